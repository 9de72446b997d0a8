"""Control of the served bundle versions: loading, unloading and rolling back while requests are in flight."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from dimml.bundle import Bundle
from dimml.contract import model_specs
from dimml.errors import BundleError, NotFoundError, RequestError
from dimml.media.decoders.version import DECODER_VERSION
from dimml.repository import bundle_names, bundle_versions, load_bundle
from dimml.signing import PublicKeys
from dimml_server.engines.low_priority import at_low_priority
from dimml_server.engines.protocol import ServingEngine
from dimml_server.observability.metrics import Metrics
from dimml_server.versions.policy import VersionPolicy
from dimml_server.versions.registry import BundleRegistry
from dimml_server.versions.repository_lookup import manifest, own_policy, owner
from dimml_server.versions.traffic import Traffic

logger = logging.getLogger(__name__)

READY: Final = "READY"
UNAVAILABLE: Final = "UNAVAILABLE"
#: Triton's reason for a version that is in the repository but not loaded.
UNLOADED: Final = "unloaded"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a bundle's served versions that is prepared: models are loaded, but nothing is switched yet."""

    name: str
    #: The versions served after it.
    wanted: tuple[int, ...]
    #: Those among them that were loaded for it.
    loaded: tuple[Bundle, ...] = ()


class ModelControl:
    """Loads bundles of one repository into an engine and a registry. Lives in one event loop.

    The parts of a bundle (encoders, fusion, entry, media) come and go together, under one version number.
    """

    def __init__(
        self,
        engine: ServingEngine,
        registry: BundleRegistry,
        metrics: Metrics,
        repository: Path,
        *,
        traffic: Traffic,
        signers: PublicKeys | None = None,
    ) -> None:
        """``signers``: keys of which one must have signed a bundle for it to be loaded; None: no signature needed."""
        self._engine = engine
        self._registry = registry
        self._metrics = metrics
        self._repository = repository
        self._signers = signers
        self._traffic = traffic
        self._changing = traffic.changing
        self._uses: Counter[tuple[str, int]] = Counter()
        self._retiring: dict[tuple[str, int], Bundle] = {}
        #: Reason why a version is not served although it was to be loaded, for ``index``.
        self.failures: dict[tuple[str, int], str] = {}

    async def start(self, names: Sequence[str], *, may_be_empty: bool = False) -> None:
        """Serve these bundles, or the whole repository if none is named. Raises BundleError."""
        wanted = list(names) or bundle_names(self._repository)
        if not wanted and not may_be_empty:
            raise BundleError(f"model repository {self._repository} holds no bundle; `dimml export` writes one")
        self._traffic.check_names(wanted)
        for name in wanted:
            available = bundle_versions(self._repository, name)
            if not available:
                raise BundleError(f"no bundle {name!r} in {self._repository}")
            async with self._changing:
                routing = self._traffic.planned(name, available)
                try:
                    self._switch(await self._prepared(name, None, must_run=False, also=routing.versions))
                except NotFoundError as error:  # config.pbtxt names a version that does not exist.
                    raise BundleError(error.message, field=error.field) from error
                self._traffic.begin(name, routing)

    async def load(self, model: str, policy: VersionPolicy | None = None) -> None:
        """Serve the versions that ``policy`` chooses, by default that of ``config.pbtxt``, else the newest alone.

        ``model`` is a bundle or any part of it. The served versions keep serving until all new ones are warmed up, and
        stay if that fails; after that, versions that are not chosen are unloaded, except those that have a share of the
        requests or are a shadow. Raises NotFoundError, and RequestError: also if ``policy`` names versions but omits
        one of those.
        """
        async with self._changing:
            await self.commit(await self.prepare_load(model, policy))

    async def prepare_load(self, model: str, policy: VersionPolicy | None = None) -> Change:
        """Do what ``load`` does up to the switch. The caller keeps other changes out, then commits or discards."""
        name = await asyncio.to_thread(owner, self._registry, self._repository, model)
        self._check_keeps(name, policy)
        try:
            return await self._prepared(name, policy, must_run=True)
        except BundleError as error:
            served = self._registry.versions(name)
            still = f"version {', '.join(map(str, served))} goes on" if served else "nothing of it is served"
            logger.warning("load of %s failed: %s", name, error.message)
            raise RequestError(f"failed to load '{name}': {error.message}; {still}", field=error.field) from error

    async def unload(self, model: str) -> None:
        """Unload all versions of a bundle, and discard its routing.

        As on Triton, it is no error if the bundle is not served. Raises NotFoundError, and RequestError for a part of a
        bundle that is served: it goes with its bundle.
        """
        async with self._changing:
            await self.commit(await self.prepare_unload(model))

    async def prepare_unload(self, model: str) -> Change:
        """Do what ``unload`` does up to the switch."""
        name = await asyncio.to_thread(owner, self._registry, self._repository, model)
        if self._registry.versions(name) and model != name:
            raise RequestError(f"'{model}' is part of bundle '{name}' and goes with it: unload '{name}'")
        return Change(name, ())

    async def drop(self, name: str, version: int) -> None:
        """Stop serving a version that was removed from the repository; its share goes to the others.

        If it was the only one, what the repository still has is loaded first. Raises RequestError if that fails; the
        removed version then keeps serving.
        """
        async with self._changing:
            await self.commit(await self.prepare_drop(name, version))

    async def prepare_drop(self, name: str, version: int) -> Change:
        """Do what ``drop`` does up to the switch."""
        served = self._registry.versions(name)
        left = await asyncio.to_thread(bundle_versions, self._repository, name)
        if served != [version] or not left:
            return Change(name, tuple(other for other in served if other != version))
        try:
            return await self._prepared(name, None, must_run=True, gone=version)
        except (BundleError, NotFoundError) as error:
            logger.warning("version %d of %s goes on although it has gone: %s", version, name, error.message)
            raise RequestError(f"{error.message}; version {version} of {name!r} goes on") from error

    async def prepare_exactly(self, name: str, versions: Mapping[int, str], *, must_run: bool = True) -> Change:
        """Prepare to serve these versions and no others, each with this SHA-256 of its manifest. Raises BundleError."""
        loaded: list[Bundle] = []
        try:
            for version, sha256 in sorted(versions.items()):
                if version in self._registry.versions(name):
                    bundle = self._registry.bundle(name, version)
                else:
                    bundle = await self._load(name, version, must_run)
                    loaded.append(bundle)
                _check_same(bundle, sha256)
        except BaseException:
            self.discard(Change(name, (), tuple(loaded)))
            raise
        return Change(name, tuple(sorted(versions)), tuple(loaded))

    async def commit(self, change: Change) -> None:
        """Switch to a prepared change. No request in flight notices."""
        self._switch(change)
        await self._traffic.settle(change.name)

    def discard(self, change: Change) -> None:
        """Release what was loaded for a change that is not made."""
        for bundle in change.loaded:
            self._engine.unload(bundle)

    def versions_after(self, change: Change) -> dict[int, str]:
        """Return the versions served after a change, with the SHA-256 of their manifests."""
        loaded = {bundle.version: bundle for bundle in change.loaded}
        return {v: (loaded.get(v) or self._registry.bundle(change.name, v)).sha256 for v in change.wanted}

    def serves(self, name: str, version: int) -> bool:
        """Whether a bundle version takes requests."""
        return version in self._registry.versions(name)

    @contextmanager
    def using(self, bundle: Bundle) -> Iterator[None]:
        """Keep a bundle version's models in memory for the block, even if it is unloaded meanwhile."""
        key = (bundle.name, bundle.version)
        self._uses[key] += 1
        try:
            yield
        finally:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]
                retired = self._retiring.pop(key, None)
                if retired is not None:
                    self._engine.unload(retired)

    def check_loaded(self) -> None:
        """Raise UnavailableError while the server's first bundles load."""
        self._registry.check_loaded()

    def index(self) -> list[dict[str, str]]:
        """List the entries of ``RepositoryIndexResponse``: all versions, served or in the repository. Reads files."""
        entries = [
            {"name": served.spec.name, "version": str(served.version), "state": READY, "reason": ""}
            for served in self._registry.models()
        ]
        try:
            names = bundle_names(self._repository)
        except BundleError:
            logger.exception("listing the repository")
            return entries
        for name in names:
            for version in sorted(set(bundle_versions(self._repository, name)) - set(self._registry.versions(name))):
                reason = self.failures.get((name, version), UNLOADED)
                try:
                    models = [spec.name for spec in model_specs(manifest(self._repository, name, version))]
                except BundleError as error:
                    models, reason = [name], error.message
                entries += [
                    {"name": model, "version": str(version), "state": UNAVAILABLE, "reason": reason} for model in models
                ]
        return sorted(entries, key=lambda entry: (entry["name"], int(entry["version"])))

    def _check_keeps(self, name: str, policy: VersionPolicy | None) -> None:
        """Raise RequestError if versions are requested by number, omitting one with a share or a shadow's."""
        routing = self._registry.routing(name)
        for version in sorted(routing.versions - set(policy.specific)) if policy and policy.specific else ():
            part = f"has {routing.split[version]:g} % of the requests" if version in routing.split else "is the shadow"
            raise RequestError(
                f"version {version} of '{name}' {part} and would be unloaded: load it, too, or first change that "
                "(dimml models default, split or shadow)",
                field="version_policy",
            )

    async def _prepared(
        self,
        name: str,
        policy: VersionPolicy | None,
        *,
        must_run: bool,
        also: Collection[int] = (),
        gone: int | None = None,
    ) -> Change:
        """Load what the policy wants served of a bundle, all of it or nothing. Raises BundleError.

        In addition to them, those of ``also`` and those that have a share of the requests or are a shadow, except
        ``gone``.
        """
        if policy is None:
            policy = await asyncio.to_thread(own_policy, self._repository, name)
        available = await asyncio.to_thread(bundle_versions, self._repository, name)
        chosen, before = policy.chosen(name, available), self._registry.versions(name)
        wanted = sorted({*chosen, *also, *(self._registry.routing(name).versions - {gone})})
        loaded: list[Bundle] = []
        try:
            for version in wanted:
                if version in before:
                    if version in chosen:
                        await asyncio.to_thread(self._check_unchanged, name, version)
                    continue
                try:
                    loaded.append(await self._load(name, version, must_run))
                except BundleError as error:
                    self.failures[name, version] = error.message
                    self._metrics.loaded(name, ok=False)
                    raise
        except BaseException:
            self.discard(Change(name, (), tuple(loaded)))
            raise
        return Change(name, tuple(wanted), tuple(loaded))

    def _switch(self, change: Change) -> None:
        name, before = change.name, self._registry.versions(change.name)
        for bundle in change.loaded:
            self.failures.pop((name, bundle.version), None)
            # Needed again: it was unloaded a moment ago and still has requests in flight.
            self._retiring.pop((name, bundle.version), None)
            self._registry.add(bundle)
            self._metrics.bundles.served(bundle)
            self._metrics.loaded(name, ok=True)
        for version in set(before) - set(change.wanted):
            self._retire(self._registry.bundle(name, version))

    async def _load(self, name: str, version: int, must_run: bool) -> Bundle:
        began = perf_counter()
        bundle = await at_low_priority(load_bundle, self._repository, name, version, signers=self._signers)
        await self._engine.load(bundle, self._repository, must_run=must_run)
        logger.info("loaded bundle %s version %d in %.2f s", name, version, perf_counter() - began)
        if bundle.decoder_version != DECODER_VERSION:
            # An older bundle's choices are kept; what a newer one was trained with is not known here.
            logger.log(
                logging.WARNING if bundle.decoder_version > DECODER_VERSION else logging.INFO,
                "bundle %s version %d was trained on clips of decoder version %d; this server has version %d",
                name,
                version,
                bundle.decoder_version,
                DECODER_VERSION,
            )
        return bundle

    def _retire(self, bundle: Bundle) -> None:
        """Take no new request for a version; its memory is freed after the last one in flight."""
        key = (bundle.name, bundle.version)
        self._registry.remove(bundle)
        self._metrics.bundles.unserved(bundle)
        self.failures.pop(key, None)
        if self._uses[key]:
            self._retiring[key] = bundle
        else:
            self._engine.unload(bundle)
        logger.info("unloaded bundle %s version %d", bundle.name, bundle.version)

    def _check_unchanged(self, name: str, version: int) -> None:
        if manifest(self._repository, name, version) != self._registry.bundle(name, version):
            raise BundleError(
                f"version {version} in the repository is another than the one that is served; unload it first"
            )


def _check_same(bundle: Bundle, sha256: str) -> None:
    if bundle.sha256 != sha256:
        raise BundleError(f"version {bundle.version} of {bundle.name!r} has changed since another process loaded it")
