"""Encoders of a run in reduced precision: made, judged on validation clips, with a fusion fitted to their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from torch import nn

from dimml.bundle import ReducedPrecision
from dimml.errors import BundleError, SetupError
from dimml.fusion import Fused, FusionParameters, FusionSpec
from dimml.monitoring.reference import Reference
from dimml.system.files import StrPath
from dimml_export.evaluation import CORRUPTIONS_FILE
from dimml_export.precision.figures import agreement, answer_loss, faults, figures_of, head_losses
from dimml_export.precision.fp16 import fp16_model
from dimml_export.precision.int8 import Int8Encoder
from dimml_export.precision.search import search
from dimml_export.precision.session_encoder import SessionEncoder
from dimml_export.reference import reference_of_votes
from dimml_training.evaluation.heads import HeadLogits, figures
from dimml_training.loop.other_encoders import answers_of, refitted, run_clips, spread
from dimml_training.run.directory import TrainedRun

Precision = Literal["fp32", "fp16", "int8"]
#: Training clips that give the ranges of activations, and validation clips on which a fusion is fitted again.
CALIBRATION_CLIPS: Final = 200
#: Most clips of a split that are judged, spread evenly over it: half a point is then five clips.
JUDGED_CLIPS: Final = 1000
#: Fewer calibration clips would leave ranges to chance.
FEWEST_CLIPS: Final = 8

Answers = tuple[HeadLogits, Fused]


@dataclass(frozen=True)
class Reduced:
    """Encoders in reduced precision, and what a manifest says of them."""

    models: dict[str, onnx.ModelProto]
    fusion: FusionSpec
    parameters: FusionParameters
    reference: Reference | None
    #: Metrics of validation and test by these encoders, as a training notes them.
    metrics: dict[str, Any]
    #: Of ``ReducedPrecision``, all but ``float_version``.
    record: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def noted(self, float_version: int) -> ReducedPrecision:
        """Make the manifest's record."""
        return ReducedPrecision(float_version=float_version, **self.record)


def reduce_precision(
    folder: Path,
    run: TrainedRun,
    float_models: Mapping[str, onnx.ModelProto],
    precision: Literal["fp16", "int8"],
    *,
    calibration_clips: int = CALIBRATION_CLIPS,
    cache_dir: StrPath | None = None,
    decoding: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Reduced:
    """Reduce the run's exported encoders, by modality, and judge them on validation clips.

    Training and validation clips are read from ``cache_dir``, by default ``dimml train``'s, or decoded again. What the
    fusion learned from the encoders' outputs is fitted again on those of int8; fp16 keeps it. Raises BundleError with
    the figures where any head or the answer loses more than ``figures.MOST_ACCURACY_LOST``, or the answer's calibration
    error rises by more than ``figures.MOST_ECE_ADDED``; SetupError for too few training clips; DataError for problems
    of the data.
    """
    say("reading the run's clips")
    clips, of_training = run_clips(folder, run, cache_dir=cache_dir, decoding=decoding)
    judged = {split: spread(clips[split], JUDGED_CLIPS) for split in ("validation", "test")}

    def answers(
        encoders: Mapping[str, nn.Module],
        split: Literal["validation", "test"] = "validation",
        fusion: FusionSpec = run.fusion,
        parameters: FusionParameters = run.fusion_parameters,
    ) -> Answers:
        return answers_of(run, encoders, judged[split], fusion, parameters)

    say("answering validation clips in FP32")
    before = answers({name: SessionEncoder(model) for name, model in float_models.items()})
    figures_before = figures_of(*before, run.fusion)
    left: dict[str, tuple[str, ...]] = {}
    used = 0
    steps: tuple[dict[str, Any], ...] = ()
    if precision == "fp16":
        found = {name: fp16_model(model) for name, model in float_models.items()}
        models, layers = {name: one[0] for name, one in found.items()}, {name: one[1] for name, one in found.items()}
    else:
        rows = {}
        for name in float_models:
            having = clips["train"].take(np.flatnonzero(clips["train"].has(name)))
            rows[name] = _calibration_rows(name, spread(having, calibration_clips).rows(name, slice(None)))
        used = min(map(len, rows.values()))
        int8 = {}
        for name, model in float_models.items():
            say(f"{name}: calibrating on {len(rows[name])} training clips")
            int8[name] = Int8Encoder(model, rows[name])

        def losses(encoders: Mapping[str, nn.Module]) -> dict[str, float]:
            found = figures_of(*answers(encoders), run.fusion)
            lost = head_losses(figures_before, found)
            # A fusion that is fitted again may make up for what the answer loses before.
            return lost if run.fusion_report else lost | {"answer": answer_loss(figures_before, found)}

        found_layers = search(int8, float_models, rows, losses, say)
        models, left, steps = found_layers.models, found_layers.left_in_float, found_layers.steps
        layers = {name: len(int8[name].layers) - len(left[name]) for name in models}
    encoders = {name: SessionEncoder(model) for name, model in models.items()}
    fusion, parameters = run.fusion, run.fusion_parameters
    if precision == "int8":
        say("fitting the fusion to the int8 encoders")
        fusion, parameters = refitted(
            run, encoders, train=clips["train"], validation=clips["validation"], most_clips=calibration_clips
        )
    say(f"answering validation and test clips in {precision}")
    after = answers(encoders, "validation", fusion, parameters)
    figures_after = figures_of(*after, fusion)
    _refuse(precision, faults(figures_before, figures_after), left, len(after[0].labels_N))
    tested = answers(encoders, "test", fusion, parameters)
    warnings = []
    if not of_training:
        warnings.append(
            f"{precision} was judged on other clips than those of the run's training: its clip table has changed since"
        )
    if (folder / CORRUPTIONS_FILE).is_file():
        warnings.append(f"the {precision} version's manifest has no figures under corruptions: the run's are of FP32")
    return Reduced(
        models=models,
        fusion=fusion,
        parameters=parameters,
        reference=reference_of_votes(after[0], after[1].certainty_BH, after[1].probabilities_BC, fusion),
        metrics=_metrics(run, after, tested),
        record={
            "precision": precision,
            "calibration_clips": used,
            "layers": layers,
            "left_in_float": left,
            "search": steps,
            "clips": len(after[0].labels_N),
            "before": figures_before,
            "after": {**figures_after, "agreement": agreement(before, after)},
        },
        warnings=warnings,
    )


def _calibration_rows(modality: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if len(rows) < FEWEST_CLIPS:
        raise SetupError(
            f"int8 needs {FEWEST_CLIPS} training clips with {modality} to calibrate on, and there are {len(rows)}: add "
            "clips, or export without --precision int8"
        )
    return rows


def _refuse(precision: str, found: list[str], left: Mapping[str, tuple[str, ...]], clips: int) -> None:
    if not found:
        return
    kept = sum(map(len, left.values()))
    beside = f", with {kept} layers left in FP32" if kept else ""
    more = "calibrate on more clips (--calibration-clips), or " if precision == "int8" else ""
    raise BundleError(
        f"{precision} costs too much on {clips} validation clips{beside}: {'; '.join(found)}; {more}"
        f"export without --precision {precision}; nothing was exported",
        field="precision",
    )


def _metrics(run: TrainedRun, validation: Answers, test: Answers) -> dict[str, Any]:
    return {split: figures(*found, run.labels) for split, found in {"validation": validation, "test": test}.items()}
