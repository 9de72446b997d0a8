"""What pydantic found wrong with a document, for errors that name the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError


class FieldFault(NamedTuple):
    """A field by its dotted path, and what is wrong with its value."""

    field: str
    message: str


def first_fault(error: ValidationError, whole: str) -> FieldFault:
    """The first fault of a document; ``whole`` stands for the field where it is the document itself."""
    first = error.errors(include_url=False)[0]
    return FieldFault(dotted(first["loc"]) or whole, first["msg"])


def dotted(location: Sequence[int | str]) -> str:
    """A path of keys and list indices as text, such as ``encoders.0.name``; empty for the document itself."""
    return ".".join(map(str, location))
