"""What two checkouts gave, held to each other: a line for each comparison, and every place where they differ."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

#: In place of what may differ between two runs of the same code.
ASIDE = "(aside)"
#: Members of JSON documents: timings, and ids that a server made.
VOLATILE = frozenset({"timings_ms", "ms", "ns", "last_inference", "seconds"})
_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
_IDENTITY = re.compile(r"\b[0-9a-f]{32}\b")
#: Ids inside pictures, which matplotlib draws anew for each.
_PICTURE_ID = re.compile(r"\b[mp][0-9a-f]{10}\b")
_DURATION = re.compile(r"\b\d+(\.\d+)? ?(s|ms|recordings/s)\b")
#: Members whose own order says nothing: maps of protobuf, which come in any.
UNORDERED = frozenset({"parameters"})
#: Differences of one comparison that are printed; the rest are counted.
SHOWN = 3


def without_noise(value: Any, volatile: frozenset[str] = VOLATILE) -> Any:
    """A JSON-able value with timings, generated ids and addresses replaced."""
    if isinstance(value, Mapping):
        return {k: ASIDE if k in volatile else without_noise(v, volatile) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_noise(item, volatile) for item in value]
    return plain_text(value) if isinstance(value, str) else value


def plain_text(text: str) -> str:
    """Text with addresses and generated ids replaced."""
    return _IDENTITY.sub("ID", _ADDRESS.sub("HOST", text))


def without_durations(text: str) -> str:
    """Text of a command or a page likewise, less durations and ids in pictures; an answer's seconds are compared."""
    return _DURATION.sub(r"N \2", _PICTURE_ID.sub("ID", plain_text(text)))


def differences(before: Any, after: Any, tolerance: float = 0.0, where: str = "") -> Iterator[tuple[str, str]]:
    """Places in two JSON-able values, and how they differ there; members of objects in another order are a difference.

    Numbers may differ by ``tolerance``, types may not; NaN is equal to NaN.
    """
    if type(before) is not type(after):
        yield where, f"{_short(before)} became {_short(after)}"
    elif isinstance(before, Mapping):
        for key in before.keys() | after.keys():
            place = f"{where}.{key}" if where else str(key)
            if key not in after:
                yield place, f"{_short(before[key])} is gone"
            elif key not in before:
                yield place, f"{_short(after[key])} is new"
            else:
                yield from differences(before[key], after[key], tolerance, place)
        same = before.keys() == after.keys()
        if same and list(before) != list(after) and where.rpartition(".")[2] not in UNORDERED:
            yield where, f"order {list(before)} became {list(after)}"
    elif isinstance(before, Sequence) and not isinstance(before, str | bytes):
        if len(before) != len(after):
            yield where, f"{len(before)} items became {len(after)}"
        for number, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from differences(one, other, tolerance, f"{where}[{number}]")
    elif before != after and not _close(before, after, tolerance):
        yield where, _change(before, after)


def _close(before: Any, after: Any, tolerance: float) -> bool:
    if not isinstance(before, float):
        return False
    return abs(before - after) <= tolerance or (math.isnan(before) and math.isnan(after))


def _change(before: Any, after: Any) -> str:
    """Of a long text the first line that differs."""
    if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        lines = (before.splitlines(), after.splitlines())
        for number, (one, other) in enumerate(zip(*lines, strict=False), 1):
            if one != other:
                return f"line {number}: {_short(one.strip())} became {_short(other.strip())}"
        return f"{len(lines[0])} lines became {len(lines[1])}"
    return f"{_short(before)} became {_short(after)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


@dataclass
class Comparison:
    """Prints a line for each comparison; ``aside`` are patterns of ``name: place`` whose difference is meant."""

    aside: Sequence[str] = ()
    equal: int = 0
    differing: list[str] = field(default_factory=list)
    #: Differences that a pattern of ``aside`` took, by pattern.
    meant: dict[str, int] = field(default_factory=dict)

    def compare(self, name: str, before: Any, after: Any, tolerance: float = 0.0) -> None:
        """One comparison under a name."""
        found = []
        for place, change in differences(before, after, tolerance):
            full = f"{name}: {place}" if place else name
            pattern = next((pattern for pattern in self.aside if fnmatchcase(full, pattern)), None)
            if pattern is None:
                found.append(f"{place}: {change}" if place else change)
            else:
                self.meant[pattern] = self.meant.get(pattern, 0) + 1
        if found:
            more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
            print(f"{name}: differs: {'; '.join(found[:SHOWN])}{more}", flush=True)
            self.differing.append(name)
        else:
            print(f"{name}: equal", flush=True)
            self.equal += 1

    def compare_all(self, before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = 0.0) -> None:
        """A comparison for each name that either has."""
        for name in dict.fromkeys([*before, *after]):
            self.compare(name, before.get(name), after.get(name), tolerance)

    def fail(self, name: str, what: str) -> None:
        """A comparison that could not be made."""
        print(f"{name}: differs: {what}", flush=True)
        self.differing.append(name)

    def summary(self) -> str:
        """What was found, in a few lines."""
        lines = [f"{self.equal} comparisons equal, {len(self.differing)} differ"]
        lines += [f"meant: {count} differences of {pattern!r}" for pattern, count in self.meant.items()]
        return "\n".join([*lines, *(f"differs: {name}" for name in self.differing)])
