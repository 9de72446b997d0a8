"""Validation errors of pydantic in a form for messages that name the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import ValidationError


class FieldFault(NamedTuple):
    """A field by its dotted path, and the problem with its value."""

    field: str
    message: str


def first_fault(error: ValidationError, whole: str) -> FieldFault:
    """Return the first fault of a document; ``whole`` names the field if it is the document itself."""
    first = error.errors(include_url=False)[0]
    return FieldFault(dotted(first["loc"]) or whole, first["msg"])


def dotted(location: Sequence[int | str]) -> str:
    """Join keys and list indices into a path such as ``encoders.0.name``; empty for the document itself."""
    return ".".join(map(str, location))
