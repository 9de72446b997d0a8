"""Retries, only when the server is full or cannot answer now."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from dimml.errors import CapacityError, DeadlineExceededError

T = TypeVar("T")

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 8.0


class TryAgainError(Exception):
    """An answer of 429 or 503 (RESOURCE_EXHAUSTED, UNAVAILABLE): ``error`` is raised after the last attempt.

    ``wait_s`` is the wait the server asked for, or None.
    """

    def __init__(self, error: CapacityError, wait_s: float | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most ``retries`` retries within ``timeout_s`` in total.

    Waits double from FIRST_WAIT_S to LONGEST_WAIT_S, each drawn from its upper half so that clients do not return in
    step; a wait that the server asked for is used as it is.
    """

    retries: int
    timeout_s: float

    async def run(self, attempt: Callable[[float], Awaitable[T]], sleep: Callable[[float], Awaitable[None]]) -> T:
        """Await ``attempt(seconds left)`` until it answers. Raises what it raises; for TryAgainError, its error.

        ``sleep`` waits for some seconds between two attempts.
        """
        end = time.monotonic() + self.timeout_s
        for repetition in range(self.retries + 1):
            left_s = end - time.monotonic()
            if left_s <= 0.0:
                raise DeadlineExceededError(f"no answer within {self.timeout_s:g} s")
            try:
                return await attempt(left_s)
            except TryAgainError as again:
                wait_s = self._backoff_s(repetition) if again.wait_s is None else again.wait_s
                if repetition == self.retries or wait_s >= end - time.monotonic():
                    raise again.error from None
            await sleep(wait_s)
        raise AssertionError("unreachable: the last repetition answers or raises")

    @staticmethod
    def _backoff_s(repetition: int) -> float:
        longest = min(FIRST_WAIT_S * 2.0**repetition, LONGEST_WAIT_S)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, not for security
