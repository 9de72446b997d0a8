"""Digests of settings that stay the same when fields are added later.

A class whose instances go into a digest (a cache's key, a training's, a manifest's hash) names the fields
that were added after its first digests, each with the value that means the earlier behaviour::

    class Waveform(BaseModel):
        HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"gain": 1.0}
        gain: float = 1.0

Digests leave such a field out while it has that value: the clips, trainings and bundles of before keep theirs. This is
not the field's default, which may change later: a digest without the field always means the historic value, and so does
a manifest or a run of before (``fill_historic``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel


def historic(value: Any) -> dict[Any, Any]:
    """List the fields of ``value`` at their historic value, nested as pydantic's ``exclude`` takes them; may be empty.

    Looks into models, dataclasses, sequences and mappings.
    """
    found: dict[Any, Any] = {}
    for name, part in _parts(value):
        defaults: Mapping[str, Any] = getattr(value, "HISTORIC_DEFAULTS", {})
        left_out = True if name in defaults and part == defaults[name] else historic(part)
        if left_out:
            found[name] = left_out
    return found


def fill_historic(document: Any, defaults: Mapping[str, Any]) -> Any:
    """Copy a mapping that was written before the fields in ``defaults``, with their historic values filled in.

    What the document names itself stays; what is no mapping is returned as it is.
    """
    return {**defaults, **document} if isinstance(document, Mapping) else document


def without(document: Any, left_out: Mapping[Any, Any]) -> Any:
    """Copy a JSON-able ``document`` without the entries that ``historic`` named."""
    if isinstance(document, Mapping):
        return {
            name: without(part, left_out.get(name, {}))
            for name, part in document.items()
            if left_out.get(name) is not True
        }
    if isinstance(document, list | tuple):
        return [without(part, left_out.get(index, {})) for index, part in enumerate(document)]
    return document


def historic_repr(value: Any) -> str:
    """``repr(value)`` of a model or dataclass without fields at their historic value."""
    if not isinstance(value, BaseModel) and not is_dataclass(value):
        return repr(value)
    left_out = historic(value)
    shown = ", ".join(f"{name}={historic_repr(part)}" for name, part in _parts(value) if left_out.get(name) is not True)
    return f"{type(value).__qualname__}({shown})"


def _parts(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, BaseModel):
        return [(name, getattr(value, name)) for name in type(value).model_fields]
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(enumerate(value))
    return []
