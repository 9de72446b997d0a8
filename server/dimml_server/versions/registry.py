"""Registry of the served bundles: finds a model by name and version."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from dimml.bundle import Bundle
from dimml.contract import ModelSpec, model_specs
from dimml.errors import InvalidParameterError, NotFoundError, UnavailableError
from dimml_server.versions.traffic_split import NEWEST_ANSWERS, Route, Routing

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a served bundle version: an encoder, the fusion, the entry or the media model."""

    bundle: Bundle
    spec: ModelSpec

    @property
    def version(self) -> int:
        """The bundle's version, which all its models share."""
        return self.bundle.version


class BundleRegistry:
    """Bundles that are loaded, by name and version. Used from the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self._bundles: dict[str, dict[int, Bundle]] = {}
        self._models: dict[str, dict[int, ServedModel]] = {}
        self._routing: dict[str, Routing] = {}
        #: Whether the first bundles are still loading, so that a missing bundle may yet appear.
        self.loading = False

    def check_loaded(self) -> None:
        """Raise UnavailableError while some of the server's first bundles are still loading."""
        if self.loading:
            raise UnavailableError("the server is starting and has not loaded all of its bundles yet; try again")

    def add(self, bundle: Bundle) -> None:
        """Register a bundle version as served."""
        self._bundles.setdefault(bundle.name, {})[bundle.version] = bundle
        for spec in model_specs(bundle):
            self._models.setdefault(spec.name, {})[bundle.version] = ServedModel(bundle, spec)

    def remove(self, bundle: Bundle) -> None:
        """Remove a bundle version. Its share of requests goes to the others."""
        _drop(self._bundles, bundle.name, bundle.version)
        routing = self.routing(bundle.name).without(bundle.version)
        left = self.versions(bundle.name)
        if not left or routing.shadow == routing.default(left):
            routing = replace(routing, shadow=None)  # No other version is left to answer.
        self.set_routing(bundle.name, routing)
        for spec in model_specs(bundle):
            _drop(self._models, spec.name, bundle.version)

    def versions(self, name: str) -> list[int]:
        """List the served versions of a bundle, ascending; empty if it is not served."""
        return sorted(self._bundles.get(name, {}))

    def bundles(self) -> list[Bundle]:
        """List every served bundle version, by name, then version."""
        return [by_version[v] for _, by_version in sorted(self._bundles.items()) for v in sorted(by_version)]

    def models(self) -> list[ServedModel]:
        """List every served model version, by name, then version."""
        return [by_version[v] for _, by_version in sorted(self._models.items()) for v in sorted(by_version)]

    def routing(self, name: str) -> Routing:
        """Return the routing of a bundle's requests that name no version."""
        return self._routing.get(name, NEWEST_ANSWERS)

    def set_routing(self, name: str, routing: Routing) -> None:
        """Set a bundle's routing; the caller must have checked it."""
        self._routing[name] = routing
        if routing == NEWEST_ANSWERS:
            del self._routing[name]

    def default(self, name: str) -> int:
        """Return a served bundle's default version, used if no version is named and no split applies."""
        return self.routing(name).default(self._bundles[name])

    def route(self, name: str | None, version: int | None, key: str | None) -> Route:
        """Route one request. If it names no version, its ``key`` determines one; without a key, chance.

        Raises as ``bundle`` does.
        """
        bundle = self.bundle(name, version)
        if version is not None:
            return Route(bundle)
        by_version = self._bundles[bundle.name]
        return Route(by_version[self.routing(bundle.name).choose(by_version, bundle.name, key)], chosen=True)

    def bundle(self, name: str | None, version: int | None = None) -> Bundle:
        """Look up a bundle by name, by default its default version; without a name, the only bundle served.

        Raises NotFoundError, InvalidParameterError if the name is left out and several bundles are served, and
        UnavailableError if the bundle may still be loading.
        """
        if name is None:
            self.check_loaded()
            if len(self._bundles) != 1:
                known = ", ".join(sorted(self._bundles)) or "none"
                raise InvalidParameterError(f"name the model; served are: {known}", field="model")
            name = next(iter(self._bundles))
        return self._pick(
            self._bundles, name, self.default(name) if version is None and name in self._bundles else version
        )

    def model(self, name: str, version: int | None = None) -> ServedModel:
        """Look up a model by its name in the repository, by default its bundle's default version.

        Raises NotFoundError, and UnavailableError if the model may still be loading.
        """
        if version is None and name in self._models:
            some = next(iter(self._models[name].values()))
            default = self.default(some.bundle.name)
            # A model that the default version lacks, such as another modality's encoder.
            version = default if default in self._models[name] else max(self._models[name])
        return self._pick(self._models, name, version)

    def _pick(self, table: dict[str, dict[int, T]], name: str, version: int | None) -> T:
        by_version = table.get(name, {})
        if version is not None and version in by_version:
            return by_version[version]
        self.check_loaded()
        if not by_version:
            raise NotFoundError(f"no model {name!r} is served here", field="model")
        raise NotFoundError(
            f"model {name!r} has no version {version} here; served: {sorted(by_version)}", field="version"
        )


def _drop(table: dict[str, dict[int, T]], name: str, version: int) -> None:
    del table[name][version]
    if not table[name]:
        del table[name]
