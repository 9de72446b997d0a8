"""One inference request and its answer, in the form both transports share with ``dataplane``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dimml.errors import RequestError, UnsupportedError
from dimml.media.track_choice import TrackChoice
from dimml.request_parameters import AS_BUNDLED, Abstention, Explain
from dimml_server.kserve.tensors import InputTensor, OutputTensor

#: Limit on names, identifiers and versions, since answers and messages repeat them.
MAX_TEXT: Final = 1024
MAX_RANK: Final = 16
#: The parameter of an input or output that places the tensor in shared memory.
SHARED_MEMORY: Final = "shared_memory_region"
#: The parameter of an input that says how its BYTES are encoded; ``base64`` is undone, others are not looked at.
CONTENT_TYPE: Final = "content_type"


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output to return; ``class_count`` above 0 asks for its top classes as text instead (``classification``)."""

    name: str
    class_count: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An inference request. Empty: default ``version``, all ``outputs``; ``timeout_s`` None: the default."""

    model: str
    version: str
    request_id: str
    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    timeout_s: float | None = None
    route_key: str | None = None
    audio_track: TrackChoice | None = None
    video_track: TrackChoice | None = None
    explain: Explain | None = None
    damage: str | None = None
    abstain: Abstention = AS_BUNDLED


@dataclass(frozen=True, slots=True)
class InferResponse:
    """An answer; ``outputs`` are in the order requested, or in the model's."""

    model: str
    version: str
    request_id: str
    outputs: tuple[OutputTensor, ...]
    #: Parameters of the answer: ``channel_audio`` and the like, what was heard of several channels; of a recording that
    #: was cut off ``truncated``, and seconds by modality (``dimml.contract.truncation_names``); ``explanation`` and
    #: ``damage_audio`` where they were asked for.
    parameters: Mapping[str, bool | float | str] = field(default_factory=dict)


def check_text(what: str, text: str) -> str:
    """Return ``text``, unless it is too long to be repeated in an answer. Raises RequestError."""
    if len(text) > MAX_TEXT:
        raise RequestError(f"'{what}' must be at most {MAX_TEXT} characters long")
    return text


def check_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return ``shape``, unless no tensor can have it. Raises RequestError."""
    if len(shape) > MAX_RANK or any(not 0 <= dimension < 2**63 for dimension in shape):
        raise RequestError(
            f"Unable to parse 'shape' of input '{name}': it must be at most {MAX_RANK} whole numbers from 0 up"
        )
    return tuple(shape)


def check_request_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that would silently be ignored. Raises UnsupportedError, RequestError."""
    if parameters.get("sequence_id") not in (None, 0, ""):
        raise UnsupportedError("sequence requests are not supported: every request stands for itself")
    for name in parameters:
        if name.startswith("triton_"):
            raise RequestError(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."
            )


def is_base64(parameters: Mapping[str, Any]) -> bool:
    """Whether an input's parameters say that its BYTES are base64, by MLServer's convention."""
    return parameters.get(CONTENT_TYPE) == "base64"


def check_tensor_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse tensors in shared memory. Raises UnsupportedError."""
    if SHARED_MEMORY in parameters:
        raise UnsupportedError(f"tensor '{name}' is in shared memory, which this server does not support")


def class_count_of(name: str, parameters: Mapping[str, Any]) -> int:
    """Return the ``classification`` parameter of an output, 0 if absent. Raises RequestError."""
    value = parameters.get("classification", 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RequestError(f"Unable to parse 'classification' of output '{name}': it must be a whole number")
    return value
