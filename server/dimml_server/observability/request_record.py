"""What a transport records of one request while it answers it."""

from __future__ import annotations

from dataclasses import dataclass

#: Outcomes that are not an error's code.
OK, DEGRADED, CANCELLED, INTERNAL = "ok", "degraded", "cancelled", "internal"


@dataclass(slots=True)
class RequestRecord:
    """What a transport fills in while it answers one request.

    An exception sets the outcome by itself, and so does leaving it empty: ok, or degraded.
    """

    model: str = ""
    version: str = ""
    degraded: bool = False
    outcome: str = ""
    total_s: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether the request has had an answer."""
        return self.outcome in (OK, DEGRADED)
