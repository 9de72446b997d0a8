"""Schema of a decode worker's reply as JSON: strict types, finite numbers, no field beside those that are named here.

A worker may be in the hands of a hostile file, so its text is validated before anything is built from it; ``codec``
writes these documents and turns them into messages. What there is any number of is a list, of which validation stops at
the first fault: pydantic collects all faults of an object, at some hundred bytes each.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter

#: Windows of one recording: three years of one a tenth of a second apart.
MAX_WINDOWS: Final = 10**9
#: Characters of a sentence about a status.
MAX_DETAIL_CHARS: Final = 300
#: Of a row's shape; its size is compared with the bytes that are there.
_MAX_DIMENSIONS: Final = 32
_MAX_EXTENT: Final = 2**62

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_Extent = Annotated[int, Field(ge=0, le=_MAX_EXTENT)]


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class RowDocument(_Document):
    """Array whose bytes follow the text."""

    dtype: Literal["float32", "uint8"]
    shape: Annotated[tuple[_Extent, ...], Field(max_length=_MAX_DIMENSIONS), FailFast()]


class StatusDocument(_Document):
    """Status of one modality, as ``ModalityStatus`` prints it, and its detail."""

    modality: str
    status: str
    detail: Annotated[str, Field(max_length=MAX_DETAIL_CHARS)] | None = None


class TrackDocument(StatusDocument):
    """``DecodedTrack`` of one modality."""

    times_s: Annotated[tuple[_Number, ...], FailFast()]
    channel: Annotated[str, Field(pattern=r"^(mix|mean|left|right|[0-9]{1,3})$")] | None = None
    row: RowDocument | None
    #: ``Truncation``: seconds held and promised.
    truncation: tuple[_Seconds, _Seconds] | None = None


class DecodedDocument(_Document):
    """``Decoded``."""

    kind: Literal["decoded"]
    tracks: Annotated[list[TrackDocument], FailFast()]
    start_s: _Number | None
    end_s: _Number | None
    duration_s: _Seconds | None = None


class ErrorDocument(_Document):
    """``DimmlError`` by the name of its class."""

    kind: Literal["error"]
    error: str
    message: str
    field: str | None
    statuses: Annotated[list[StatusDocument], FailFast()]


class LostDocument(_Document):
    """``Lost`` for a reason that a worker can know."""

    kind: Literal["lost"]
    reason: Literal["decode_memory", "decoder_crashed"]
    details: str


class ResultDocument(_Document):
    """``DecodeResult``."""

    outcome: Annotated[DecodedDocument | ErrorDocument | LostDocument, Field(discriminator="kind")]
    seconds: _Seconds


class ResultsDocument(_Document):
    """Results of the first requests of a message."""

    kind: Literal["results"]
    results: Annotated[list[ResultDocument], FailFast()]


class WindowDocument(_Document):
    """``WindowDecoded``; windows as ``[start_s, end_s]``."""

    number: Annotated[int, Field(ge=0, lt=MAX_WINDOWS)]
    count: Annotated[int, Field(ge=1, le=MAX_WINDOWS)]
    window: tuple[_Number, _Number] | None
    span: tuple[_Number, _Number] | None
    decoded: DecodedDocument


class WindowsDocument(_Document):
    """``WindowsReply``."""

    kind: Literal["windows"]
    windows: Annotated[list[WindowDocument], FailFast()]
    done: bool


class ReadyDocument(_Document):
    """``Ready``, with what ``Isolation`` lists."""

    kind: Literal["ready"]
    enforced: Annotated[tuple[str, ...], FailFast()]
    missing: Annotated[tuple[str, ...], FailFast()]


ReplyDocument = Annotated[
    ResultsDocument | WindowsDocument | ReadyDocument | ErrorDocument | LostDocument, Field(discriminator="kind")
]
REPLY: Final[TypeAdapter[ReplyDocument]] = TypeAdapter(ReplyDocument)
