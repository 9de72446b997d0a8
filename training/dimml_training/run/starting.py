"""Starting a training from the weights of an earlier run (``stage1.start_from``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dimml.bundle import file_sha256
from dimml.errors import ConfigurationError
from dimml_training.config import expand_path
from dimml_training.run.directory import WEIGHTS_FILE, TrainedRun, load_run

FIELD = "stage1.start_from"


def load_start(start_from: str, encoders: Mapping[str, nn.Module]) -> TrainedRun:
    """Load the run that a training is to start from, and check that its encoders fit those of the same modality.

    Raises ConfigurationError if none has a modality in common, or an encoder is of another architecture; SetupError if
    the run cannot be read.
    """
    run = load_run(expand_path(start_from))
    common = [name for name in encoders if name in run.encoders]
    if not common:
        raise ConfigurationError(
            f"{FIELD}: the run has {', '.join(run.encoders)}, and none of {', '.join(encoders)}", field=FIELD
        )
    for name in common:
        own, theirs = (
            {k: v.shape for k, v in _embed(module).items()} for module in (encoders[name], run.encoders[name])
        )
        if own != theirs:
            raise ConfigurationError(
                f"{FIELD}: the run's {name} encoder has other weights than this config's; give the modality the "
                "encoder and the input that it had there",
                field=FIELD,
            )
    return run


def take_weights(run: TrainedRun, labels: Sequence[str], modules: Mapping[str, nn.Module | None]) -> list[str]:
    """Copy a run's weights into fresh modules: encoders by modality, heads by their name in ``TrainedRun``.

    Encoders are taken without their own head if the classes differ, and other heads only if these and all sizes are the
    same. Returns the names of what was taken.
    """
    same = tuple(labels) == run.labels
    taken = []
    for name, module in modules.items():
        theirs = run.encoders.get(name) or getattr(run, name, None)
        if module is None or theirs is None:
            continue
        state = theirs.state_dict() if same else {k: v for k, v in _embed(theirs).items() if name in run.encoders}
        shapes = {key: value.shape for key, value in module.state_dict().items()}
        if state and all(shapes.get(key) == value.shape for key, value in state.items()):
            module.load_state_dict(state, strict=same)
            taken.append(name)
    return taken


def start_record(start_from: str) -> dict[str, Any]:
    """What a run keeps of where it started: the path as written, and the SHA-256 of the weights."""
    return {"run": start_from, "weights_sha256": weights_sha256(start_from)}


def weights_sha256(start_from: str) -> str | None:
    """SHA-256 of the weights of the run to start from; None if there are none."""
    path: Path = expand_path(start_from) / WEIGHTS_FILE
    return file_sha256(path) if path.is_file() else None


def _embed(encoder: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in encoder.state_dict().items() if key.startswith("embed.")}
