"""What can be chosen for one run of `dimml triton`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelControl(StrEnum):
    """Whether clients may load and unload models."""

    #: Through the repository calls of KServe v2; a model whose process died is then loaded again, too.
    EXPLICIT = "explicit"
    #: Not at all.
    NONE = "none"


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Ports of 0 are chosen free; ``models`` are bundles or single models, all of the repository where empty."""

    repository: Path
    home: Path
    models: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    model_control: ModelControl = ModelControl.EXPLICIT
