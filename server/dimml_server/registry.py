"""Which bundles are being served, and which model of which bundle a name and version mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from dimml.bundle import Bundle
from dimml.contract import ModelSpec, model_specs
from dimml.errors import InvalidParameterError, NotFoundError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a served bundle version: an encoder, the fusion, the entry or the media model."""

    bundle: Bundle
    spec: ModelSpec

    @property
    def version(self) -> int:
        """The bundle's version, which all of its models share."""
        return self.bundle.version


class BundleRegistry:
    """Bundles that are loaded, by name and version. Used from the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self._bundles: dict[str, dict[int, Bundle]] = {}
        self._models: dict[str, dict[int, ServedModel]] = {}

    def add(self, bundle: Bundle) -> None:
        """Serve this bundle version. Where a bundle has several, the newest is the default."""
        self._bundles.setdefault(bundle.name, {})[bundle.version] = bundle
        for spec in model_specs(bundle):
            self._models.setdefault(spec.name, {})[bundle.version] = ServedModel(bundle, spec)

    def remove(self, bundle: Bundle) -> None:
        """Serve this bundle version no more."""
        _drop(self._bundles, bundle.name, bundle.version)
        for spec in model_specs(bundle):
            _drop(self._models, spec.name, bundle.version)

    def versions(self, name: str) -> list[int]:
        """Versions of a bundle that are served, ascending; empty where it is not."""
        return sorted(self._bundles.get(name, {}))

    def bundles(self) -> list[Bundle]:
        """Every served bundle version, by name, then version."""
        return [by_version[v] for _, by_version in sorted(self._bundles.items()) for v in sorted(by_version)]

    def models(self) -> list[ServedModel]:
        """Every served model version, by name, then version."""
        return [by_version[v] for _, by_version in sorted(self._models.items()) for v in sorted(by_version)]

    def bundle(self, name: str | None, version: int | None = None) -> Bundle:
        """The bundle by name, by default its newest version; without a name, the only bundle there is.

        Raises NotFoundError, or InvalidParameterError where the name is left out and is not plain.
        """
        if name is None:
            if len(self._bundles) != 1:
                known = ", ".join(sorted(self._bundles)) or "none"
                raise InvalidParameterError(f"name the model; served are: {known}", field="model")
            name = next(iter(self._bundles))
        return _pick(self._bundles, name, version)

    def model(self, name: str, version: int | None = None) -> ServedModel:
        """One model by its name in the repository, by default its newest version. Raises NotFoundError."""
        return _pick(self._models, name, version)


def _drop(table: dict[str, dict[int, T]], name: str, version: int) -> None:
    del table[name][version]
    if not table[name]:
        del table[name]


def _pick(table: dict[str, dict[int, T]], name: str, version: int | None) -> T:
    by_version = table.get(name)
    if not by_version:
        raise NotFoundError(f"no model {name!r} is served here", field="model")
    if version is None:
        return by_version[max(by_version)]
    if version not in by_version:
        raise NotFoundError(
            f"model {name!r} has no version {version} here; served: {sorted(by_version)}", field="version"
        )
    return by_version[version]
