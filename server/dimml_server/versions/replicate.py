"""Serving exactly what another process of the same server serves."""

from __future__ import annotations

from dimml_server.versions.control import ModelControl
from dimml_server.versions.registry import BundleRegistry
from dimml_server.versions.served import Served
from dimml_server.versions.traffic import Traffic


def served_by(registry: BundleRegistry) -> Served:
    """Return what a registry's process serves."""
    versions: dict[str, dict[int, str]] = {}
    for bundle in registry.bundles():
        versions.setdefault(bundle.name, {})[bundle.version] = bundle.sha256
    return Served(versions, {name: registry.routing(name).split for name in versions})


async def serve_exactly(served: Served, control: ModelControl, registry: BundleRegistry, traffic: Traffic) -> None:
    """Serve what another process does, and nothing else. The caller keeps other changes out. Raises BundleError."""
    for name in sorted({*served.versions, *(bundle.name for bundle in registry.bundles())}):
        await control.commit(await control.prepare_exactly(name, served.versions.get(name, {}), must_run=False))
        if name in served.versions:
            traffic.adopt(name, served.splits.get(name, {}))
