"""Values of a table's cells: one value as text, the number of a class as its label, and media within the table."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

#: Most characters of a value in a message.
_SHOWN: Final = 60
#: Class of a clip without label, as Hugging Face's ``datasets`` writes it.
_NO_CLASS: Final = -1
#: Key of a Parquet schema's metadata under which ``datasets`` writes the features of the columns.
_HUGGING_FACE: Final = b"huggingface"
_INTEGER: Final = re.compile(r"-?\d+")


@dataclass(frozen=True, slots=True)
class MediaCell:
    """A recording whose bytes stand in the table; ``row`` counts from 0."""

    column: str
    row: int


def cell_text(value: object) -> str:
    """Return a cell as text; empty without a value. A whole number is written as one: 2.0 is ``2``.

    Raises ValueError for bytes, lists and objects, and for a text that no file holds (NUL, lone surrogates).
    """
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray | memoryview | Mapping | list | tuple | set) or hasattr(value, "__array__"):
        raise ValueError(f"is {_kind(value)}, not one value: {shown(value)}")
    if isinstance(value, float | Decimal) and not isinstance(value, bool):
        if math.isnan(value):
            return ""
        if math.isfinite(value) and value == int(value):
            return str(int(value))
    text = str(value)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(f"holds characters that no text has: {shown(text)}")
    return text


def shown(value: object) -> str:
    """Return a value for a message: on one line, in ASCII and short."""
    text = ascii(value[:_SHOWN] if isinstance(value, bytes | str | list | tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def label_text(value: object, names: Sequence[str] | None) -> str:
    """Return a cell's label; with the ``names`` of the classes, a number is the place of one. Empty without a label.

    Raises ValueError for what is not one value, a fraction, and a number that no class has.
    """
    text = cell_text(value)
    if isinstance(value, float | Decimal) and text and not _INTEGER.fullmatch(text):
        raise ValueError(f"is {text}; a class is a whole number, or a name")
    if names is None or isinstance(value, str | bool) or not text:
        return text
    number = int(text)
    if number == _NO_CLASS:
        return ""
    if not 0 <= number < len(names):
        raise ValueError(f"is {number}; the {len(names)} classes are numbered from 0")
    return names[number]


def ordered_labels(labels: Iterable[str], names: Sequence[str] | None) -> tuple[str, ...]:
    """Order the classes: as in ``names``; else by number if all are whole numbers; else by name."""
    found = set(labels)
    if names is not None and found <= set(names):
        return tuple(name for name in dict.fromkeys(names) if name in found)
    if all(_INTEGER.fullmatch(label) for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """Return the names of a column's classes (``ClassLabel`` of ``datasets``), from a schema's metadata."""
    try:
        feature: Any = json.loads((metadata or {})[_HUGGING_FACE])["info"]["features"][column]
        names = feature["names"] if feature.get("_type") == "ClassLabel" else None
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        return None
    return tuple(names)


def _kind(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    return "an object" if isinstance(value, Mapping) else "a list"
