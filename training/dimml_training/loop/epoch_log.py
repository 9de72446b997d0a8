"""The figures of every epoch, for TensorBoard and MLflow."""

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
    """Hands rows of figures to the loggers that the config names. With none, it does nothing."""

    def __init__(self, loggers: list[Logger]) -> None:
        self._loggers = loggers

    def epoch(self, row: Mapping[str, float]) -> None:
        """Log a row of ``metrics.csv``: under ``stage1/`` or ``stage2/``, at the epoch that stands in it."""
        stage, key = ("stage2", "stage2_epoch") if "stage2_epoch" in row else ("stage1", "epoch")
        self._log({f"{stage}/{name}": value for name, value in row.items() if name != key}, int(row[key]))

    def result(self, metrics: Mapping[str, Any]) -> None:
        """Log the single numbers of ``metrics.json``, under ``validation/`` and ``test/``."""
        numbers = {
            f"{split}/{name}": float(value)
            for split, found in metrics.items()
            for name, value in found.items()
            if isinstance(value, int | float)
        }
        self._log(numbers, 0)

    def _log(self, figures: dict[str, float], step: int) -> None:
        for logger in self._loggers:
            try:
                logger.log_metrics(figures, step=step)
            except Exception as error:  # a tracking server that went away, in the words of its client library
                raise SetupError(
                    f"logging to {type(logger).__name__} failed ({type(error).__name__}); mend it and go on with "
                    "--resume, or train without it (section `logging`) with another --out"
                ) from error


@contextmanager
def epoch_log(config: TrainConfig, out: Path) -> Iterator[EpochLog]:
    """Loggers of one training, closed at the end; whoever reads them sees whether it finished.

    Raises ConfigurationError where MLflow is wanted and not installed, SetupError where its server does not answer.
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
                # Where training failed, its own error is the one to tell.
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
