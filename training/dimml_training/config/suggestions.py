"""Where a fault of a config stands, as its author wrote it, and the field that a misspelt one was meant to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag

Model = type[BaseModel]
#: How alike two names must be, of 1: of the same section, and of another, where chance finds more.
_ALIKE_HERE: Final = 0.6
_ALIKE_ELSEWHERE: Final = 0.85
#: Most places named.
_NAMED: Final = 3


def locate(whole: Model, location: Sequence[int | str]) -> tuple[list[int | str], Model | None]:
    """Path of a fault without the tags of unions that pydantic puts in, and the section that holds its last part.

    The section is None where the last part is no field of one: an item of a list, or a value with several types.
    """
    path: list[int | str] = []
    section: Model | None = None
    here: Any = whole
    for part in location:
        section = None
        members = _members(here)
        if len(members) > 1:
            here = next((member for tag, member in members if tag == part), None)
            continue
        here = members[0][1] if members else None
        path.append(part)
        if _is_model(here):
            section = here
            field = here.model_fields.get(str(part))
            here = None if field is None else field.annotation
        elif get_origin(here) in (tuple, list):
            here = get_args(here)[0]
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            here = None
    return path, section


def meant(whole: Model, section: Model | None, name: str) -> list[str]:
    """The field of its section that ``name`` may be meant to be, or else those of other sections, by dotted path."""
    if section is not None:
        close = get_close_matches(name, section.model_fields, 1, _ALIKE_HERE)
        if close:
            return close
    places = list(dict.fromkeys(_places(whole)))
    exact = [path for path in places if path.rpartition(".")[2] == name]
    if exact:
        return exact[:_NAMED]
    names = get_close_matches(name, {path.rpartition(".")[2] for path in places}, 1, _ALIKE_ELSEWHERE)
    return [path for path in places if path.rpartition(".")[2] in names][:_NAMED]


def _places(model: Model, above: str = "") -> Iterator[str]:
    """Dotted paths of all fields of a section and of those within it; ``[]`` is any item of a list."""
    for name, field in model.model_fields.items():
        yield above + name
        for inside, brackets in _models_within(field.annotation):
            yield from _places(inside, f"{above}{name}{brackets}.")


def _models_within(annotation: Any, brackets: str = "") -> Iterator[tuple[Model, str]]:
    for _, member in _members(annotation):
        if _is_model(member):
            yield member, brackets
        elif get_origin(member) in (tuple, list):
            yield from _models_within(get_args(member)[0], brackets + "[]")


def _members(annotation: Any) -> list[tuple[str | None, Any]]:
    """Types of a union but None, each with the tag that pydantic names it by; of no union, the type alone."""
    tag = None
    while get_origin(annotation) is Annotated:
        tag = next((str(m.tag) for m in get_args(annotation)[1:] if isinstance(m, Tag)), tag)
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return [member for own in get_args(annotation) if own is not NoneType for member in _members(own)]
    return [] if annotation is None else [(tag or _kind(annotation), annotation)]


def _kind(annotation: Any) -> str | None:
    """Tag of a model that a union tells apart by its field ``kind``."""
    if not _is_model(annotation) or "kind" not in annotation.model_fields:
        return None
    values = annotation.model_fields["kind"].annotation
    return str(get_args(values)[0]) if get_origin(values) is Literal else None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
