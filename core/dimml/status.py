"""Status of a modality in one request, and the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """The five statuses a modality can have in a request."""

    OK = "ok"
    ABSENT = "absent"
    UNUSABLE = "unusable"
    TIMEOUT = "timeout"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a modality is not ``ok``. Each reason belongs to exactly one status (see ``REASON_STATUS``)."""

    # absent
    NOT_SENT = "not_sent"
    NO_TRACK = "no_track"
    TRACK_NOT_STARTED = "track_not_started"
    TRACK_ENDED = "track_ended"
    NOT_REQUESTED = "not_requested"
    # unusable
    UNSUPPORTED = "unsupported"
    UNDECODABLE = "undecodable"
    EMPTY = "empty"
    DECODER_CRASHED = "decoder_crashed"
    DECODE_TIMEOUT = "decode_timeout"
    DECODE_MEMORY = "decode_memory"
    SILENT = "silent"
    BLACK = "black"
    FROZEN = "frozen"
    FLAT = "flat"
    GAPS = "gaps"
    SATURATED = "saturated"
    # timeout
    DEADLINE = "deadline"
    # failed
    ENCODER_ERROR = "encoder_error"
    ENCODER_GONE = "encoder_gone"
    ENCODER_BUSY = "encoder_busy"
    NON_FINITE = "non_finite"


REASON_STATUS: dict[Reason, Status] = {
    Reason.NOT_SENT: Status.ABSENT,
    Reason.NO_TRACK: Status.ABSENT,
    Reason.TRACK_NOT_STARTED: Status.ABSENT,
    Reason.TRACK_ENDED: Status.ABSENT,
    Reason.NOT_REQUESTED: Status.ABSENT,
    Reason.UNSUPPORTED: Status.UNUSABLE,
    Reason.UNDECODABLE: Status.UNUSABLE,
    Reason.EMPTY: Status.UNUSABLE,
    Reason.DECODER_CRASHED: Status.UNUSABLE,
    Reason.DECODE_TIMEOUT: Status.UNUSABLE,
    Reason.DECODE_MEMORY: Status.UNUSABLE,
    Reason.SILENT: Status.UNUSABLE,
    Reason.BLACK: Status.UNUSABLE,
    Reason.FROZEN: Status.UNUSABLE,
    Reason.FLAT: Status.UNUSABLE,
    Reason.GAPS: Status.UNUSABLE,
    Reason.SATURATED: Status.UNUSABLE,
    Reason.DEADLINE: Status.TIMEOUT,
    Reason.ENCODER_ERROR: Status.FAILED,
    Reason.ENCODER_GONE: Status.FAILED,
    Reason.ENCODER_BUSY: Status.FAILED,
    Reason.NON_FINITE: Status.FAILED,
}


@dataclass(frozen=True, slots=True)
class ModalityStatus:
    """Status of one modality in one request; ``reason`` is None exactly when the status is ``ok``."""

    status: Status
    reason: Reason | None = None
    #: A sentence for people about this very file, and the way out; not part of what the status is.
    detail: str | None = field(default=None, compare=False)

    @classmethod
    def because(cls, reason: Reason, detail: str | None = None) -> ModalityStatus:
        """Return the status that ``reason`` implies."""
        return cls(REASON_STATUS[reason], reason, detail)

    @classmethod
    def parse(cls, text: str) -> ModalityStatus:
        """Parse ``"ok"`` or ``"unusable:silent"``; inverse of ``str()``. Raises ValueError on anything else."""
        status, _, reason = text.partition(":")
        parsed = cls(Status(status), Reason(reason) if reason else None)
        if (parsed.reason is None) != parsed.ok or (
            parsed.reason is not None and REASON_STATUS[parsed.reason] is not parsed.status
        ):
            raise ValueError(f"{text!r} is not a modality status")
        return parsed

    @property
    def ok(self) -> bool:
        """Whether the modality takes part in the answer."""
        return self.status is Status.OK

    @property
    def degrades(self) -> bool:
        """Whether an answer without this modality counts as degraded: it was requested and is not available."""
        return not self.ok and self.reason is not Reason.NOT_REQUESTED

    def __str__(self) -> str:
        return self.status.value if self.reason is None else f"{self.status.value}:{self.reason.value}"


OK = ModalityStatus(Status.OK)


def describe_statuses(statuses: Mapping[str, ModalityStatus]) -> str:
    """Return statuses for a message: all of them, then each detail once, in brackets."""
    listed = ", ".join(f"{name} {status}" for name, status in statuses.items())
    details = dict.fromkeys(status.detail for status in statuses.values() if status.detail is not None)
    return f"{listed} ({'; '.join(details)})" if details else listed
