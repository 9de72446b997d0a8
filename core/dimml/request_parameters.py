"""Parameters that a KServe v2 request may carry, read alike by the embedded server and inside Triton."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from dimml.errors import InvalidParameterError

ROUTE_KEY: Final = "route_key"
MAX_ROUTE_KEY: Final = 256
EXPLAIN: Final = "explain"
DAMAGE: Final = "damage"
ABSTAIN_BELOW: Final = "abstain_below"
MAX_SET_SIZE: Final = "max_set_size"
#: What may be asked for as an explanation, the lesser first; each includes those before it.
Explain = Literal["shapley", "occlusion"]
EXPLANATIONS: Final[tuple[Explain, ...]] = get_args(Explain)


@dataclass(frozen=True, slots=True)
class Abstention:
    """When a request's answer abstains; None: as its bundle says.

    It does where it is less probable than ``abstain_below``, 0 to 1, or its prediction set has more than
    ``max_set_size`` labels. Raises InvalidParameterError for a value out of range.
    """

    abstain_below: float | None = None
    max_set_size: int | None = None

    def __post_init__(self) -> None:
        if self.abstain_below is not None and not 0.0 <= self.abstain_below <= 1.0:
            raise InvalidParameterError(
                f"{ABSTAIN_BELOW} must be from 0 to 1, got {self.abstain_below}", field=ABSTAIN_BELOW
            )
        if self.max_set_size is not None and self.max_set_size < 1:
            raise InvalidParameterError(
                f"{MAX_SET_SIZE} must be 1 or more labels, got {self.max_set_size}", field=MAX_SET_SIZE
            )


#: A request that leaves it to the bundle.
AS_BUNDLED: Final = Abstention()


def route_key(parameters: Mapping[str, Any]) -> str | None:
    """Return the key by which a traffic split picks the version, or None. Raises InvalidParameterError."""
    value = parameters.get(ROUTE_KEY)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_ROUTE_KEY:
        raise InvalidParameterError(
            f"{ROUTE_KEY} must be a text of at most {MAX_ROUTE_KEY} characters", field=ROUTE_KEY
        )
    return value


def explain_of(parameters: Mapping[str, Any]) -> Explain | None:
    """Return which explanation is asked for, or None. Raises InvalidParameterError."""
    value = parameters.get(EXPLAIN)
    if value is None or value == "":
        return None
    for known in EXPLANATIONS:
        if value == known:
            return known
    raise InvalidParameterError(
        f"{EXPLAIN} must be {' or '.join(EXPLANATIONS)}, got {str(value)[:40]!r}", field=EXPLAIN
    )


def damage_of(parameters: Mapping[str, Any]) -> str | None:
    """Return the text of the damage that is asked for, or None. Raises InvalidParameterError unless it is a text."""
    value = parameters.get(DAMAGE)
    if value is None or isinstance(value, str):
        return value or None
    raise InvalidParameterError(f"{DAMAGE} must be a text such as audio:noise:-10", field=DAMAGE)


def abstention_of(parameters: Mapping[str, Any]) -> Abstention:
    """Return when the answer is to abstain. Raises InvalidParameterError."""
    below, largest = parameters.get(ABSTAIN_BELOW), parameters.get(MAX_SET_SIZE)
    if below is not None and (isinstance(below, bool) or not isinstance(below, int | float)):
        raise InvalidParameterError(f"parameter '{ABSTAIN_BELOW}' must be a number", field=ABSTAIN_BELOW)
    if largest is not None and (isinstance(largest, bool) or not isinstance(largest, int)):
        raise InvalidParameterError(f"parameter '{MAX_SET_SIZE}' must be a whole number", field=MAX_SET_SIZE)
    return Abstention(None if below is None else float(below), largest)


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Return a request's time limit in seconds, or None: ``timeout_ms``, or Triton's ``timeout`` in µs.

    If both are given, the smaller counts. Triton's 0 means no limit. Raises InvalidParameterError.
    """
    limits: list[float] = []
    for name, unit_s in (("timeout_ms", 1e-3), ("timeout", 1e-6)):
        value = parameters.get(name)
        if value is None or (name == "timeout" and value == 0 and value is not False):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidParameterError(f"parameter '{name}' must be a number", field=name)
        if not (math.isfinite(value) and value > 0):
            raise InvalidParameterError(f"parameter '{name}' must be above 0, got {value}", field=name)
        limits.append(value * unit_s)
    return min(limits, default=None)
