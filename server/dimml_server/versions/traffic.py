"""Splits, default versions and shadows of the served bundles: set by settings, changed by calls, kept in a file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from dimml.bundle import Bundle
from dimml.errors import BundleError, CapacityError, ConfigurationError, DimmlError, RequestError
from dimml_server.shadow.shadow import Shadows, check_inputs
from dimml_server.versions.registry import BundleRegistry
from dimml_server.versions.traffic_file import keep_routing, read_routing_file
from dimml_server.versions.traffic_split import NEWEST_ANSWERS, Routing

logger = logging.getLogger(__name__)


class Unchanged:
    """Marks an argument as unchanged; None, in contrast, removes a shadow."""


UNCHANGED: Final = Unchanged()


class Traffic:
    """Traffic split and shadow version of each bundle. Lives in one event loop."""

    def __init__(
        self,
        registry: BundleRegistry,
        shadows: Shadows,
        *,
        splits: Mapping[str, Mapping[int, float]],
        shadow_versions: Mapping[str, int],
        file: Path | None,
        writes: bool = True,
    ) -> None:
        """``file``, if given, stores what calls set; at the start it overrides ``splits`` and ``shadow_versions``.

        ``writes``: whether this process writes it. Raises ConfigurationError.
        """
        #: Held while the served versions or their routing are changed.
        self.changing = asyncio.Lock()
        self.shadows = shadows
        self._registry = registry
        self._file = file if writes else None
        self._starting: set[asyncio.Task[None]] = set()
        self._by_calls = {} if file is None else read_routing_file(file)
        self._by_settings = {
            name: Routing(splits.get(name, {}), shadow_versions.get(name)) for name in {*splits, *shadow_versions}
        }

    def check_names(self, names: Collection[str]) -> None:
        """Raise ConfigurationError if the settings name a bundle that is not served."""
        for name, routing in sorted(self._by_settings.items()):
            if name not in names:
                raise ConfigurationError(
                    f"no bundle {name!r} is served; served are {sorted(names)}",
                    field="splits" if routing.split else "shadows",
                )

    def planned(self, name: str, available: Collection[int]) -> Routing:
        """Plan a bundle's routing at the start, given its versions in the repository. Raises ConfigurationError."""
        routing = self._by_calls.get(name)
        if routing is not None:
            if routing.versions <= set(available):
                return routing
            self._forget(name, f"the repository has no version {min(routing.versions - set(available))}")
            return NEWEST_ANSWERS
        routing = self._by_settings.get(name, NEWEST_ANSWERS)
        for field, versions in (("splits", routing.split), ("shadows", {routing.shadow} - {None})):
            for version in versions:
                if version not in available:
                    raise ConfigurationError(
                        f"bundle {name!r} has no version {version} in the repository; it has {sorted(available)}",
                        field=field,
                    )
        return routing

    def begin(self, name: str, routing: Routing) -> None:
        """Apply a routing at the start, once the versions are loaded. A shadow starts in the background.

        Raises ConfigurationError.
        """
        try:
            self._check(name, routing)
        except (RequestError, BundleError) as error:
            if name in self._by_calls:
                self._forget(name, error.message)
                return
            raise ConfigurationError(f"splits and shadows of {name!r}: {error.message}", field=error.field) from error
        self._registry.set_routing(name, replace(routing, shadow=None))
        if routing.shadow is not None:
            starting = asyncio.get_running_loop().create_task(self._begin_shadow(name, routing.shadow))
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)

    async def change(
        self,
        name: str,
        *,
        split: Mapping[int, float] | Unchanged = UNCHANGED,
        shadow: int | Unchanged | None = UNCHANGED,
    ) -> Routing:
        """Set the shares of a bundle's versions, its shadow, or both in one step; return the routing in effect.

        An empty ``split`` gives everything to the newest loaded version, ``shadow`` None ends the shadow. If anything
        fails, nothing changes. Raises NotFoundError, RequestError, and UnavailableError at the start.
        """
        self._registry.check_loaded()
        try:
            routing = await self._apply(name, split, shadow)
        except (BundleError, CapacityError) as error:
            raise RequestError(f"{error.message}; nothing was changed", field=error.field) from error
        await self._keep(name)
        logger.info("requests of %s: %s", name, _in_words(routing))
        return routing

    def checked(self, name: str, split: Mapping[int, float]) -> Routing:
        """Return the routing that a bundle would have with this split. Raises as ``change`` does."""
        self._registry.check_loaded()
        try:
            return self._changed(name, split, UNCHANGED)
        except BundleError as error:
            raise RequestError(f"{error.message}; nothing was changed", field=error.field) from error

    def adopt(self, name: str, split: Mapping[int, float]) -> None:
        """Set a split that ``checked`` has let pass here or in another process of this server."""
        self._registry.set_routing(name, Routing(dict(split)))

    async def close(self) -> None:
        """End all shadows."""
        for starting in list(self._starting):
            starting.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await self.shadows.close()

    async def settle(self, name: str) -> None:
        """Update routing after versions of a bundle have gone: end a shadow among them, and store the rest."""
        routing = self._registry.routing(name)
        if self.shadows.version(name) != routing.shadow:
            await self.shadows.end(name)
        if name in self._by_calls and self._by_calls[name] != routing:
            logger.warning("a version with a share or shadow of %s has gone; now: %s", name, _in_words(routing))
            await self._keep(name)

    async def _begin_shadow(self, name: str, version: int) -> None:
        try:
            await self._apply(name, UNCHANGED, version)
        except DimmlError as error:
            logger.warning("version %d of %s is not its shadow: %s", version, name, error.message)

    async def _apply(
        self, name: str, split: Mapping[int, float] | Unchanged, shadow: int | Unchanged | None
    ) -> Routing:
        routing = self._changed(name, split, shadow)
        shadowed: Bundle | None = None
        if routing.shadow is not None and routing.shadow != self.shadows.version(name):
            # Before the lock is taken: warm-up has the lowest priority, and a roll-back must not wait for it.
            shadowed = self._registry.bundle(name, routing.shadow)
            runner = await self.shadows.prepare(shadowed)
        async with self.changing:
            try:
                routing = self._changed(name, split, shadow)
                if shadowed is not None:
                    self._check_still(shadowed)
            except BaseException:
                if shadowed is not None:
                    runner.close()
                raise
            if routing.shadow is None or shadowed is not None:
                await self.shadows.end(name)
            if shadowed is not None:
                self.shadows.begin(shadowed, runner)
            self._registry.set_routing(name, routing)
        return routing

    def _check_still(self, shadow: Bundle) -> None:
        if self._registry.bundle(shadow.name, shadow.version) is not shadow:
            raise RequestError("what is served was changed by another call; try again", field="shadow")

    def _changed(self, name: str, split: Mapping[int, float] | Unchanged, shadow: int | Unchanged | None) -> Routing:
        """Return the routing with these changes, checked. Raises NotFoundError, InvalidParameterError, BundleError."""
        self._registry.bundle(name)
        routing = self._registry.routing(name)
        if not isinstance(split, Unchanged):
            routing = replace(routing, split=dict(split))
        if not isinstance(shadow, Unchanged):
            routing = replace(routing, shadow=shadow)
        self._check(name, routing)
        return routing

    def _check(self, name: str, routing: Routing) -> None:
        served = self._registry.versions(name)
        routing.check(name, served)
        if routing.shadow is not None:
            answering = routing.split or [routing.default(served)]
            shadow = self._registry.bundle(name, routing.shadow)
            check_inputs(shadow, [self._registry.bundle(name, version) for version in answering])

    async def _keep(self, name: str) -> None:
        self._by_calls[name] = self._registry.routing(name)
        await keep_routing(self._file, self._by_calls)

    def _forget(self, name: str, why: str) -> None:
        logger.warning("routing_file: what it says of %s cannot be done, so the newest version answers: %s", name, why)
        del self._by_calls[name]


def _in_words(routing: Routing) -> str:
    shares = ", ".join(f"{share:g} % to version {version}" for version, share in sorted(routing.split.items()))
    shadow = "" if routing.shadow is None else f"; shadow is version {routing.shadow}"
    return (shares or "all to the newest version") + shadow
