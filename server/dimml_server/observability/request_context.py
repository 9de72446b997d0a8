"""What is learnt of one request while it is answered, for its access line, its span and every other log line of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final
from uuid import uuid4

from dimml.bundle import Bundle
from dimml.errors import DimmlError
from dimml.status import ModalityStatus
from dimml_server.observability.request_record import RequestRecord

REQUEST_ID_HEADER: Final = "X-Request-Id"
#: What a caller's id may be; anything else is replaced, so that no caller can forge log lines.
_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def new_request_id() -> str:
    """A request id for a caller that brought none."""
    return uuid4().hex


def accepted_id(given: object) -> str:
    """The caller's request id where it may be one, else a new one."""
    return given if isinstance(given, str) and _ACCEPTED_ID.fullmatch(given) else new_request_id()


@dataclass(slots=True)
class RequestNote:
    """One request. Lives in the context of its task, and so of every task that is started for it."""

    request_id: str
    #: ``http`` or ``grpc``.
    transport: str
    #: The verb of HTTP, or the call's name.
    method: str
    #: Path of HTTP, or the model that a gRPC call names; as the caller wrote it.
    target: str
    client: str
    began: float = field(default_factory=perf_counter)
    bytes_in: int = 0
    #: HTTP's number, 0 before the answer; gRPC's name.
    status: int | str = 0
    #: Of the error, where the answer is one.
    code: str = ""
    #: The name, never more, of the API key.
    key: str = ""
    trace_id: str = ""
    #: Filled in by the transport, where the request is a prediction.
    record: RequestRecord | None = None
    modalities: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it the note of this task for the block."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def fail(self, error: DimmlError) -> None:
        """Note the error that is the answer."""
        self.code = error.code
        if not self.modalities:
            self.modalities = {name: str(status) for name, status in error.statuses.items()}

    @property
    def outcome(self) -> str:
        """The error's code, or ``cancelled``; empty where there is an answer."""
        if self.code or self.record is None or self.record.answered:
            return self.code
        return self.record.outcome


_CURRENT: Final[ContextVar[RequestNote | None]] = ContextVar("dimml_request", default=None)


def current_note() -> RequestNote | None:
    """The request that this task works for."""
    return _CURRENT.get()


def note_error(error: DimmlError) -> None:
    """Note the error that the current request is answered with."""
    if (note := _CURRENT.get()) is not None:
        note.fail(error)


def note_code(code: str) -> None:
    """As ``note_error``, for errors that are none of ours."""
    if (note := _CURRENT.get()) is not None:
        note.code = code


def note_statuses(bundle: Bundle, statuses: Mapping[str, Sequence[ModalityStatus]]) -> None:
    """Note what became of each modality, by row. Of another bundle version than the one that answers: nothing."""
    note = _CURRENT.get()
    if note is None or note.record is None:
        return
    if (note.record.model, note.record.version) == (bundle.name, str(bundle.version)):
        note.modalities = {name: _in_words(column) for name, column in statuses.items()}


def _in_words(column: Sequence[ModalityStatus]) -> str:
    """``unusable:silent``; where rows differ, ``ok=3,unusable:silent=1``."""
    counts = Counter(map(str, column))
    if len(counts) == 1:
        return next(iter(counts))
    return ",".join(f"{status}={rows}" for status, rows in sorted(counts.items()))
