"""Record of one request for the request metrics."""

from __future__ import annotations

from dataclasses import dataclass

#: Outcomes other than an error's code.
OK, DEGRADED, CANCELLED, INTERNAL = "ok", "degraded", "cancelled", "internal"


@dataclass(slots=True)
class RequestRecord:
    """Record that a transport fills in while it answers one request.

    The outcome need not be set: an exception sets it, and otherwise it becomes ok or degraded.
    """

    model: str = ""
    version: str = ""
    degraded: bool = False
    outcome: str = ""
    total_s: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether the request got an answer."""
        return self.outcome in (OK, DEGRADED)
