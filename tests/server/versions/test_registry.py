"""Which bundle and model a name and version mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimml.errors import InvalidParameterError, NotFoundError
from dimml_server.versions.registry import BundleRegistry
from support.tiny_bundle import make_tiny_bundle


def test_the_newest_version_is_the_default(tmp_path: Path) -> None:
    registry = BundleRegistry()
    first, second = make_tiny_bundle(tmp_path), make_tiny_bundle(tmp_path)
    registry.add(second)
    registry.add(first)
    assert registry.bundle(None).version == registry.bundle("tiny").version == 2
    assert registry.bundle("tiny", 1) == first
    assert registry.model("tiny_audio").version == 2
    assert registry.model("tiny_media", 1).spec.role == "media"
    assert registry.bundles() == [first, second]
    with pytest.raises(NotFoundError, match="version 3"):
        registry.model("tiny_audio", 3)


def test_without_a_name_there_must_be_one_bundle(tmp_path: Path) -> None:
    registry = BundleRegistry()
    with pytest.raises(InvalidParameterError, match="none"):
        registry.bundle(None)
    for name in ("one", "two"):
        registry.add(make_tiny_bundle(tmp_path, name=name))
    with pytest.raises(InvalidParameterError, match="one, two") as error:
        registry.bundle(None)
    assert error.value.field == "model"
    with pytest.raises(NotFoundError, match="'three'"):
        registry.bundle("three")
