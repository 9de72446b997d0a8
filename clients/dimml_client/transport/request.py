"""One prediction request, independent of the transport."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

from dimml.errors import InvalidParameterError, NotFoundError
from dimml.prediction import Prediction
from dimml.request_parameters import Explain

#: What a caller may give for a recording: a file's path, or its bytes.
Media = str | os.PathLike[str] | bytes
#: The part that serves every modality that has no part of its own.
MEDIA_PART = "media"


class PredictOptions(TypedDict, total=False):
    """Options of a request, beside its recording; each may be left out."""

    model: str | None
    version: int | None
    start_s: float | None
    end_s: float | None
    top_k: int | None
    timeout_ms: float | None
    modalities: Sequence[str] | None
    route_key: str | None
    audio_track: int | str | None
    video_track: int | str | None
    explain: Explain | None
    damage: str | None
    abstain_below: float | None
    max_set_size: int | None


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """One request. ``parts`` are by modality name, or ``media`` for all modalities without a part of their own."""

    parts: Mapping[str, Path | bytes]
    model: str | None = None
    version: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    top_k: int | None = None
    timeout_ms: float | None = None
    modalities: Sequence[str] | None = None
    route_key: str | None = None
    audio_track: int | str | None = None
    video_track: int | str | None = None
    explain: Explain | None = None
    damage: str | None = None
    abstain_below: float | None = None
    max_set_size: int | None = None


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A bundle as a server describes it; ``sha256`` of its manifest is None over gRPC."""

    name: str
    version: int
    labels: Sequence[str]
    modalities: Sequence[str]
    heads: Sequence[str]
    sha256: str | None = None
    #: Whether its answers have prediction sets.
    sets: bool = False


class Transport(Protocol):
    """One way to a server. ``timeout_s`` bounds one exchange with it.

    Of a blocking client its coroutines never suspend (``dimml_client.transport.blocking``).
    """

    async def predict(self, request: PredictRequest, timeout_s: float) -> Prediction:
        """Predict once, without retries. Raises RequestError and CapacityError."""
        ...

    async def describe(self, model: str | None, version: int | None, timeout_s: float) -> ModelDescription:
        """Describe a served bundle. Raises RequestError and CapacityError."""
        ...

    async def ready(self, timeout_s: float) -> bool:
        """Whether the server takes requests; False if it cannot be reached."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


def gather_parts(media: Media | None, parts: Mapping[str, Media] | None) -> dict[str, Path | bytes]:
    """Collect the files of one request by part name. Raises InvalidParameterError naming a part that cannot be read."""
    if media is None and not parts:
        raise InvalidParameterError("give a recording as `media`, or a file per modality as `parts`", field=MEDIA_PART)
    gathered: dict[str, Path | bytes] = {}
    for name, value in (*(parts or {}).items(), *([] if media is None else [(MEDIA_PART, media)])):
        if isinstance(value, bytes):
            gathered[name] = value
            continue
        path = Path(value)
        if not path.is_file():
            what = "is not a file" if path.exists() else "there is no such file"
            raise InvalidParameterError(f"{name}: {what}: {path}", field=name)
        gathered[name] = path
    return gathered


def read_part(name: str, source: Path | bytes) -> bytes:
    """Read all bytes of a part. Raises InvalidParameterError naming the part."""
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise InvalidParameterError(f"{name}: cannot read {source}: {error.strerror}", field=name) from error


def chosen(served: Sequence[ModelDescription], model: str | None, version: int | None) -> ModelDescription:
    """Choose one of the served bundles. Raises NotFoundError, or InvalidParameterError if it must be named."""
    names = sorted({one.name for one in served})
    if model is None and len(names) > 1:
        raise InvalidParameterError(f"name the model, one of {names}", field="model")
    found = (
        [one for one in served if one.name == (model or names[0]) and version in (None, one.version)] if names else []
    )
    if not found:
        which = "a model" if model is None else repr(model)
        raise NotFoundError(
            f"the server has no {which}{'' if version is None else f' version {version}'}", field="model"
        )
    return max(found, key=lambda one: one.version)
