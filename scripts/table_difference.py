"""Where two tables of `dimml score` differ; for the scripts that hold one to another."""

from __future__ import annotations

from typing import Any

#: Of numbers: the make-up of batches moves last bits.
TOLERANCE = 1e-5


def difference(wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    """The first one between their rows, timing aside; empty where there is none."""
    if len(wanted) != len(found):
        return f"{len(found)} rows instead of {len(wanted)}"
    for one, other in zip(wanted, found, strict=True):
        for name in one.keys() - {"ms"}:
            a, b = one[name], other[name]
            close = isinstance(a, float) and isinstance(b, float) and abs(a - b) <= TOLERANCE
            if a != b and not close:
                return f"{one['id']}: {name} is {b!r} instead of {a!r}"
    return ""
