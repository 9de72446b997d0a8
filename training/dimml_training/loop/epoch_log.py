"""Logging the metrics of every epoch to TensorBoard and MLflow."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger

from dimml.errors import ConfigurationError, SetupError
from dimml_training.config import TrainConfig

TENSORBOARD = "tensorboard"


class EpochLog:
    """Sends rows of metrics to the loggers that the config names. Without any, it does nothing."""

    def __init__(self, loggers: list[Logger]) -> None:
        self._loggers = loggers

    def epoch(self, row: Mapping[str, float]) -> None:
        """Log a row of ``metrics.csv`` under ``stage1/`` or ``stage2/``, at the epoch given in it."""
        stage, key = ("stage2", "stage2_epoch") if "stage2_epoch" in row else ("stage1", "epoch")
        self._log({f"{stage}/{name}": value for name, value in row.items() if name != key}, int(row[key]))

    def result(self, metrics: Mapping[str, Any]) -> None:
        """Log the scalars of ``metrics.json`` under ``validation/`` and ``test/``."""
        numbers = {
            f"{split}/{name}": float(value)
            for split, found in metrics.items()
            for name, value in found.items()
            if isinstance(value, int | float)
        }
        self._log(numbers, 0)

    def _log(self, metrics: dict[str, float], step: int) -> None:
        for logger in self._loggers:
            try:
                logger.log_metrics(metrics, step=step)
            except Exception as error:  # each client library has its own error for a server that went away
                raise SetupError(
                    f"logging to {type(logger).__name__} failed ({type(error).__name__}); fix it and continue with "
                    "--resume, or train without it (section `logging`) with another --out"
                ) from error


@contextmanager
def epoch_log(config: TrainConfig, out: Path) -> Iterator[EpochLog]:
    """Open the loggers of one training; on exit close them with its status, finished or failed.

    Raises ConfigurationError if MLflow is configured but not installed, SetupError if its server does not answer.
    """
    loggers: list[Logger] = []
    if config.logging.tensorboard:
        loggers.append(TensorBoardLogger(out, name="", version=TENSORBOARD, default_hp_metric=False))
    if config.logging.mlflow is not None:
        loggers.append(_mlflow(config, config.logging.mlflow))
    status = "failed"
    try:
        yield EpochLog(loggers)
        status = "success"
    finally:
        for logger in loggers:
            try:
                logger.finalize(status)
            except Exception as error:  # as in EpochLog
                # If training itself failed, its own error is the one to report.
                if status == "success":
                    raise SetupError(
                        f"the run is finished, but {type(logger).__name__} could not be closed ({type(error).__name__})"
                    ) from error


def _mlflow(config: TrainConfig, uri: str) -> Logger:
    if importlib.util.find_spec("mlflow") is None:
        raise ConfigurationError(
            "logging.mlflow is set, but MLflow is not installed: pip install mlflow, or leave the field out",
            field="logging.mlflow",
        )
    logger = MLFlowLogger(experiment_name=config.name, tracking_uri=uri)
    try:
        logger.log_hyperparams(config.model_dump(mode="json"))
    except Exception as error:
        raise SetupError(
            f"MLflow at {uri} cannot be used ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error
    return logger
