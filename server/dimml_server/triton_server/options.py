"""Options of one run of `dimml triton`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelControl(StrEnum):
    """Whether clients may load and unload models."""

    #: Clients may, through the repository calls of KServe v2; models whose process died are then also reloaded.
    EXPLICIT = "explicit"
    #: Not at all.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Options of a run. Ports of 0: any free one; ``models``: bundles or single models, empty for all."""

    repository: Path
    home: Path
    models: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    model_control: ModelControl = ModelControl.EXPLICIT
