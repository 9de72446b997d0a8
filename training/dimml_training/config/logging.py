"""Section ``logging``: loggers for the metrics of every epoch, in addition to the files of the run directory."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from dimml_training.config.base import Section


class LoggingConfig(Section):
    """TensorBoard and MLflow loggers of a training."""

    tensorboard: bool = Field(default=True, description="Write the run directory's tensorboard/ folder.")
    mlflow: str | None = Field(
        default=None,
        min_length=1,
        description="MLflow tracking URI, such as http://host:5000 or sqlite:///mlflow.db; needs mlflow installed.",
    )

    @field_validator("mlflow")
    @classmethod
    def _no_password(cls, uri: str | None) -> str | None:
        if uri is not None and urlsplit(uri).password is not None:
            # The message leaves out the URI, since messages end up in logs.
            raise ValueError(
                "a password would be kept in the run, its report and the bundle; leave it out and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return uri
