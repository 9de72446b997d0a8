"""Context of one request: what its access line, its span and its other log lines report."""

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
#: Form of an acceptable caller's id; any other is replaced, so that no caller can forge log lines.
_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def new_request_id() -> str:
    """Make a request id, for a caller that sent none."""
    return uuid4().hex


def accepted_id(given: object) -> str:
    """Return the caller's request id if it is acceptable, else a new one."""
    return given if isinstance(given, str) and _ACCEPTED_ID.fullmatch(given) else new_request_id()


@dataclass(slots=True)
class RequestContext:
    """One request. Lives in the context of its task, and so in that of every task started for it."""

    request_id: str
    #: ``http`` or ``grpc``.
    transport: str
    #: HTTP's method, or the name of the gRPC call.
    method: str
    #: HTTP's path, or the model that a gRPC call names; as the caller wrote it.
    target: str
    client: str
    began: float = field(default_factory=perf_counter)
    bytes_in: int = 0
    #: HTTP's status code, 0 before the answer; the name of gRPC's.
    status: int | str = 0
    #: Code of the error, if the answer is one.
    code: str = ""
    #: Name of the API key, never the key itself.
    key: str = ""
    trace_id: str = ""
    #: Set by the transport if the request is a prediction.
    record: RequestRecord | None = None
    modalities: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the current request of the task for the block."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def fail(self, error: DimmlError) -> None:
        """Record the error that is the answer."""
        self.code = error.code
        if not self.modalities:
            self.modalities = {name: str(status) for name, status in error.statuses.items()}

    @property
    def outcome(self) -> str:
        """The error's code, or ``cancelled``; empty if the request was answered."""
        if self.code or self.record is None or self.record.answered:
            return self.code
        return self.record.outcome


_CURRENT: Final[ContextVar[RequestContext | None]] = ContextVar("dimml_request", default=None)


def current_request() -> RequestContext | None:
    """Return the request that this task works for, or None."""
    return _CURRENT.get()


def record_error(error: DimmlError) -> None:
    """Record the error with which the current request is answered."""
    if (request_context := _CURRENT.get()) is not None:
        request_context.fail(error)


def record_code(code: str) -> None:
    """Record the code of an error that is not a DimmlError."""
    if (request_context := _CURRENT.get()) is not None:
        request_context.code = code


def record_statuses(bundle: Bundle, statuses: Mapping[str, Sequence[ModalityStatus]]) -> None:
    """Record the status of each modality, by row; ignored for a bundle version other than the one that answers."""
    request_context = _CURRENT.get()
    if request_context is None or request_context.record is None:
        return
    if (request_context.record.model, request_context.record.version) == (bundle.name, str(bundle.version)):
        request_context.modalities = {name: _in_words(column) for name, column in statuses.items()}


def _in_words(column: Sequence[ModalityStatus]) -> str:
    """Format a column such as ``unusable:silent``; if rows differ, ``ok=3,unusable:silent=1``."""
    if len(column) == 1:
        return str(column[0])
    counts = Counter(map(str, column))
    if len(counts) == 1:
        return next(iter(counts))
    return ",".join(f"{status}={rows}" for status, rows in sorted(counts.items()))
