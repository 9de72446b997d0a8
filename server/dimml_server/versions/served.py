"""What a server of several processes serves, as one process sends it to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Served:
    """Served versions by bundle, each with the SHA-256 of its manifest, and the splits of bundles that have one."""

    versions: Mapping[str, Mapping[int, str]]
    splits: Mapping[str, Mapping[int, float]]

    def as_json(self) -> dict[str, Any]:
        """Return both as JSON, in which keys are text."""
        return {
            "versions": {name: versions_json(versions) for name, versions in self.versions.items() if versions},
            "splits": {name: split_json(split) for name, split in self.splits.items() if split},
        }

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Served:
        """Read what ``as_json`` wrote."""
        return cls(
            {
                name: {int(version): sha256 for version, sha256 in of.items()}
                for name, of in document["versions"].items()
            },
            {name: split_of(split) for name, split in document["splits"].items()},
        )


def versions_json(versions: Mapping[int, str]) -> dict[str, str]:
    """Return versions and hashes with keys of text."""
    return {str(version): sha256 for version, sha256 in versions.items()}


def split_json(split: Mapping[int, float]) -> dict[str, float]:
    """Return a split with keys of text."""
    return {str(version): share for version, share in split.items()}


def split_of(split: Mapping[str, float]) -> dict[int, float]:
    """Read what ``split_json`` wrote."""
    return {int(version): share for version, share in split.items()}
