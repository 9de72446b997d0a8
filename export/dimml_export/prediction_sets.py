"""Thresholds of a run's prediction sets, for the manifest, with the limits from which its answers abstain."""

from __future__ import annotations

from pathlib import Path

from dimml.errors import ConfigurationError
from dimml.prediction_sets.thresholds import PredictionSets
from dimml.request_parameters import ABSTAIN_BELOW, MAX_SET_SIZE, Abstention
from dimml_training.run.directory import TrainedRun
from dimml_training.run.prediction_sets import fusion_sha256, read_sets

_WAY_OUT = "`dimml calibrate RUN --coverage 0.9` computes them"


def prediction_sets(folder: Path, run: TrainedRun, abstain: Abstention) -> tuple[PredictionSets | None, list[str]]:
    """Return the thresholds of the run in ``folder``, with remarks on why there are none.

    A run that was never calibrated for sets has none, without a remark. Raises ConfigurationError where there are none
    and ``abstain`` sets a limit, SetupError if the file is damaged.
    """
    record = read_sets(folder)
    remarks: list[str] = []
    if record is not None and record.fusion_sha256 != fusion_sha256(run.fusion, run.fusion_parameters):
        remarks = [f"no prediction sets: the run's thresholds are of another fusion than its own; {_WAY_OUT} anew"]
        record = None
    if record is None:
        for name, value in ((ABSTAIN_BELOW, abstain.abstain_below), (MAX_SET_SIZE, abstain.max_set_size)):
            if value is not None:
                why = "thresholds of another fusion" if remarks else "no thresholds of prediction sets"
                option = name.replace("_", "-")
                raise ConfigurationError(f"--{option}: {folder} has {why}; {_WAY_OUT}", field=name)
        return None, remarks
    limits = {"abstain_below": abstain.abstain_below, "max_set_size": abstain.max_set_size}
    return record.sets.model_copy(update=limits), []
