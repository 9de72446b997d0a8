"""A field that comes later, at the value that stands for how things were, changes no digest taken before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import BaseModel

from dimml.digests import historic, historic_repr, without


class Lens(BaseModel):
    """With a field that was not there at first; today's default is another than how things were."""

    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"coated": False}
    mm: int = 50
    coated: bool = True


class Camera(BaseModel):
    """Lenses in every kind of place."""

    main: Lens
    others: tuple[Lens, ...] = ()
    by_name: dict[str, Lens] = {}


@dataclass(frozen=True)
class Shelf:
    """A dataclass that holds a model."""

    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"floor": 0}
    camera: Camera
    floor: int = 0


OLD, NEW = Lens(coated=False), Lens(mm=35)
CAMERA = Camera(main=OLD, others=(NEW, OLD), by_name={"macro": OLD})


def test_the_historic_value_is_left_out_at_any_depth_and_others_are_not() -> None:
    assert CAMERA.model_dump(exclude=historic(CAMERA)) == {
        "main": {"mm": 50},
        "others": ({"mm": 35, "coated": True}, {"mm": 50}),
        "by_name": {"macro": {"mm": 50}},
    }
    # A default is not what is left out: it may change, and the digest must not.
    assert historic(NEW) == {}


def test_dataclasses_and_what_they_hold() -> None:
    for floor, said in ((0, {}), (2, {"floor": 2})):
        shelf = Shelf(Camera(main=OLD), floor)
        document = without(
            {**asdict(shelf), "camera": shelf.camera.model_dump(mode="json")},
            historic(shelf),
        )
        assert document == {"camera": {"main": {"mm": 50}, "others": [], "by_name": {}}, **said}


def test_a_repr_is_pythons_own_but_for_historic_values() -> None:
    assert historic_repr(OLD) == "Lens(mm=50)"
    assert historic_repr(NEW) == repr(NEW)
    assert historic_repr(Shelf(Camera(main=NEW), floor=2)) == repr(Shelf(Camera(main=NEW), floor=2))
