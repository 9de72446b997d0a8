"""Which bundles are being served, and which model of which bundle a name and version mean."""

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
        """The bundle's version, which all of its models share."""
        return self.bundle.version


class BundleRegistry:
    """Bundles that are loaded, by name and version. Used from the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self._bundles: dict[str, dict[int, Bundle]] = {}
        self._models: dict[str, dict[int, ServedModel]] = {}
        self._routing: dict[str, Routing] = {}
        #: While the first bundles load: what is not here may be yet to come.
        self.loading = False

    def check_loaded(self) -> None:
        """Raise UnavailableError where some of the server's first bundles are yet to come."""
        if self.loading:
            raise UnavailableError("the server is starting and has not loaded all of its bundles yet; try again")

    def add(self, bundle: Bundle) -> None:
        """Serve this bundle version."""
        self._bundles.setdefault(bundle.name, {})[bundle.version] = bundle
        for spec in model_specs(bundle):
            self._models.setdefault(spec.name, {})[bundle.version] = ServedModel(bundle, spec)

    def remove(self, bundle: Bundle) -> None:
        """Serve this bundle version no more. A share that it has goes to the others."""
        _drop(self._bundles, bundle.name, bundle.version)
        routing = self.routing(bundle.name).without(bundle.version)
        left = self.versions(bundle.name)
        if not left or routing.shadow == routing.default(left):
            routing = replace(routing, shadow=None)  # There is nobody else to answer.
        self.set_routing(bundle.name, routing)
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

    def routing(self, name: str) -> Routing:
        """How a bundle's requests that name no version are spread."""
        return self._routing.get(name, NEWEST_ANSWERS)

    def set_routing(self, name: str, routing: Routing) -> None:
        """Spread them so from now on; checked by the caller."""
        self._routing[name] = routing
        if routing == NEWEST_ANSWERS:
            del self._routing[name]

    def default(self, name: str) -> int:
        """The version of a served bundle that is meant where none is named and nothing is spread."""
        return self.routing(name).default(self._bundles[name])

    def route(self, name: str | None, version: int | None, key: str | None) -> Route:
        """Who answers one request. Where it names no version, its ``key`` tells, or chance where it has none.

        Raises as ``bundle`` does.
        """
        bundle = self.bundle(name, version)
        if version is not None:
            return Route(bundle)
        by_version = self._bundles[bundle.name]
        return Route(by_version[self.routing(bundle.name).choose(by_version, bundle.name, key)], chosen=True)

    def bundle(self, name: str | None, version: int | None = None) -> Bundle:
        """The bundle by name, by default its default version; without a name, the only bundle there is.

        Raises NotFoundError, InvalidParameterError where the name is left out and is not plain, and UnavailableError
        where the bundle may be yet to come.
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
        """One model by its name in the repository, by default its bundle's default version.

        Raises NotFoundError, and UnavailableError where the model may be yet to come.
        """
        if version is None and name in self._models:
            some = next(iter(self._models[name].values()))
            default = self.default(some.bundle.name)
            # A part that the default version does not have, such as another modality's encoder.
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
