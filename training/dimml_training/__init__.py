"""Training, evaluation and reports of detached multimodal encoders.

The names below are its Python API (docs/python_api.md). Each is imported when it is first used: most need torch, for
which ``dimml --help`` must not wait.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimml_training.config import TrainConfig, load_config, parse_config
    from dimml_training.data.prepare import PreparedData, prepare
    from dimml_training.first_config.start import FirstConfig, write_first_config
    from dimml_training.loop.calibrate import Calibrated, calibrate
    from dimml_training.loop.prediction_sets import calibrate_sets
    from dimml_training.loop.train import train
    from dimml_training.report.page import write_report
    from dimml_training.run.directory import TrainedRun, load_run

_MODULES = {
    "Calibrated": "loop.calibrate",
    "FirstConfig": "first_config.start",
    "PreparedData": "data.prepare",
    "TrainConfig": "config",
    "TrainedRun": "run.directory",
    "calibrate": "loop.calibrate",
    "calibrate_sets": "loop.prediction_sets",
    "load_config": "config",
    "load_run": "run.directory",
    "parse_config": "config",
    "prepare": "data.prepare",
    "train": "loop.train",
    "write_first_config": "first_config.start",
    "write_report": "report.page",
}

__all__ = [
    "Calibrated",
    "FirstConfig",
    "PreparedData",
    "TrainConfig",
    "TrainedRun",
    "calibrate",
    "calibrate_sets",
    "load_config",
    "load_run",
    "parse_config",
    "prepare",
    "train",
    "write_first_config",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a name of the API. Raises AttributeError for any other."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
