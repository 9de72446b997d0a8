"""Which bundle versions are served: loading, unloading and rolling back while requests are in flight."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final

from dimml.bundle import MANIFEST_NAME, Bundle, read_bundle
from dimml.contract import model_specs
from dimml.errors import BundleError, NotFoundError, RequestError
from dimml.repository import bundle_names, bundle_versions, load_bundle
from dimml_server.engine import ServingEngine
from dimml_server.kserve.config import CONFIG_NAME, read_config, version_policy_of
from dimml_server.metrics import Metrics
from dimml_server.registry import BundleRegistry
from dimml_server.version_policy import NEWEST, VersionPolicy

logger = logging.getLogger(__name__)

READY: Final = "READY"
UNAVAILABLE: Final = "UNAVAILABLE"
#: Triton's word for a version that is in the repository and not loaded.
UNLOADED: Final = "unloaded"


class ModelControl:
    """Loads bundles of one repository into an engine and a registry. Lives in one event loop.

    The parts of a bundle (encoders, fusion, entry, media) come and go together, under one version number.
    """

    def __init__(self, engine: ServingEngine, registry: BundleRegistry, metrics: Metrics, repository: Path) -> None:
        self._engine = engine
        self._registry = registry
        self._metrics = metrics
        self._repository = repository
        self._changing = asyncio.Lock()
        self._uses: Counter[tuple[str, int]] = Counter()
        self._retiring: dict[tuple[str, int], Bundle] = {}
        #: Why a version is not served although a load asked for it.
        self._failures: dict[tuple[str, int], str] = {}

    async def start(self, names: Sequence[str], *, may_be_empty: bool = False) -> None:
        """Serve these bundles, all of the repository where none is named. Raises BundleError."""
        wanted = list(names) or bundle_names(self._repository)
        if not wanted and not may_be_empty:
            raise BundleError(f"model repository {self._repository} holds no bundle; `dimml export` writes one")
        for name in wanted:
            if not bundle_versions(self._repository, name):
                raise BundleError(f"no bundle {name!r} in {self._repository}")
            async with self._changing:
                try:
                    await self._serve(name, None, must_run=False)
                except NotFoundError as error:  # config.pbtxt names a version that is not there.
                    raise BundleError(error.message, field=error.field) from error

    async def load(self, model: str, policy: VersionPolicy | None = None) -> None:
        """Serve the versions that ``policy`` chooses, by default that of ``config.pbtxt``, else the newest alone.

        ``model`` is a bundle or any part of it. What is served goes on until all of the new is warmed up, and stays
        where that fails; then versions that are not chosen are unloaded. Raises NotFoundError, RequestError.
        """
        async with self._changing:
            name = await asyncio.to_thread(self._owner, model)
            try:
                await self._serve(name, policy, must_run=True)
            except BundleError as error:
                served = self._registry.versions(name)
                still = f"version {', '.join(map(str, served))} goes on" if served else "nothing of it is served"
                logger.warning("load of %s failed: %s", name, error.message)
                raise RequestError(f"failed to load '{name}': {error.message}; {still}", field=error.field) from error

    async def unload(self, model: str) -> None:
        """Serve no version of a bundle any more. One that is not served is no error, as on Triton.

        Raises NotFoundError, and RequestError for a part of a bundle that is served: it goes with its bundle.
        """
        async with self._changing:
            name = await asyncio.to_thread(self._owner, model)
            served = self._registry.versions(name)
            if served and model != name:
                raise RequestError(f"'{model}' is part of bundle '{name}' and goes with it: unload '{name}'")
            for version in served:
                self._retire(self._registry.bundle(name, version))

    @contextmanager
    def using(self, bundle: Bundle) -> Iterator[None]:
        """Keep a bundle version's models in memory for the block, should it be unloaded meanwhile."""
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

    def index(self) -> list[dict[str, str]]:
        """Entries of ``RepositoryIndexResponse``: what is served, and what else lies in the repository. Reads files."""
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
                reason = self._failures.get((name, version), UNLOADED)
                try:
                    models = [spec.name for spec in model_specs(self._manifest(name, version))]
                except BundleError as error:
                    models, reason = [name], error.message
                entries += [
                    {"name": model, "version": str(version), "state": UNAVAILABLE, "reason": reason} for model in models
                ]
        return sorted(entries, key=lambda entry: (entry["name"], int(entry["version"])))

    async def _serve(self, name: str, policy: VersionPolicy | None, *, must_run: bool) -> None:
        """Make the served versions of a bundle those of the policy, all of them or no change. Raises BundleError."""
        if policy is None:
            policy = await asyncio.to_thread(self._own_policy, name)
        available = await asyncio.to_thread(bundle_versions, self._repository, name)
        wanted, before = policy.chosen(name, available), self._registry.versions(name)
        loaded: list[Bundle] = []
        try:
            for version in wanted:
                if version in before:
                    await asyncio.to_thread(self._check_unchanged, name, version)
                    continue
                try:
                    loaded.append(await self._load(name, version, must_run))
                except BundleError as error:
                    self._failures[name, version] = error.message
                    raise
        except BaseException:
            for bundle in loaded:
                self._engine.unload(bundle)
            raise
        for bundle in loaded:
            self._failures.pop((name, bundle.version), None)
            # One that was unloaded a moment ago and still has requests in flight is wanted again.
            self._retiring.pop((name, bundle.version), None)
            self._registry.add(bundle)
            self._metrics.bundles.served(bundle)
        for version in set(before) - set(wanted):
            self._retire(self._registry.bundle(name, version))

    async def _load(self, name: str, version: int, must_run: bool) -> Bundle:
        began = perf_counter()
        bundle = await asyncio.to_thread(load_bundle, self._repository, name, version)
        await self._engine.load(bundle, self._repository, must_run=must_run)
        logger.info("loaded bundle %s version %d in %.2f s", name, version, perf_counter() - began)
        return bundle

    def _retire(self, bundle: Bundle) -> None:
        """Take no new request for it; its memory goes with the last one in flight."""
        key = (bundle.name, bundle.version)
        self._registry.remove(bundle)
        self._metrics.bundles.unserved(bundle)
        self._failures.pop(key, None)
        if self._uses[key]:
            self._retiring[key] = bundle
        else:
            self._engine.unload(bundle)
        logger.info("unloaded bundle %s version %d", bundle.name, bundle.version)

    def _own_policy(self, name: str) -> VersionPolicy:
        if not (self._repository / name / CONFIG_NAME).exists():
            return NEWEST
        return version_policy_of(read_config(self._repository, name))

    def _check_unchanged(self, name: str, version: int) -> None:
        if self._manifest(name, version) != self._registry.bundle(name, version):
            raise BundleError(
                f"version {version} in the repository is another than the one that is served; unload it first"
            )

    def _manifest(self, name: str, version: int) -> Bundle:
        return read_bundle(self._repository / name / str(version) / MANIFEST_NAME)

    def _owner(self, model: str) -> str:
        """The bundle that a model name means, of those served or in the repository. Raises NotFoundError."""
        for served in self._registry.models():
            if served.spec.name == model:
                return served.bundle.name
        try:
            names = bundle_names(self._repository)
        except BundleError:
            logger.exception("listing the repository")
            names = []
        if model in names:
            return model
        for name in names:
            for version in bundle_versions(self._repository, name) if model.startswith(f"{name}_") else ():
                try:
                    parts = {spec.name for spec in model_specs(self._manifest(name, version))}
                except BundleError:
                    continue  # Its own load will say what is wrong with it.
                if model in parts:
                    return name
        raise NotFoundError(f"no bundle in the repository has a model '{model}'", field="model")
