"""Section ``logging``: where the figures of every epoch go, beside the run directory's own files."""

from __future__ import annotations

from pydantic import Field

from dimml_training.config.base import Section


class LoggingConfig(Section):
    """Loggers of a training."""

    tensorboard: bool = Field(default=True, description="Write the run directory's tensorboard/ folder.")
    mlflow: str | None = Field(
        default=None,
        min_length=1,
        description="MLflow tracking URI, such as http://host:5000 or sqlite:///mlflow.db; needs mlflow installed.",
    )
