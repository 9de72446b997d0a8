"""What the repository says of a model: its bundle, its manifest, the version policy of its ``config.pbtxt``."""

from __future__ import annotations

import logging
from pathlib import Path

from dimml.bundle import MANIFEST_NAME, Bundle, read_bundle
from dimml.contract import model_specs
from dimml.errors import BundleError, NotFoundError
from dimml.repository import bundle_names, bundle_versions
from dimml_server.versions.model_config import CONFIG_NAME, read_config, version_policy_of
from dimml_server.versions.policy import NEWEST, VersionPolicy
from dimml_server.versions.registry import BundleRegistry

logger = logging.getLogger(__name__)


def own_policy(repository: Path, name: str) -> VersionPolicy:
    """Read the policy of a bundle's ``config.pbtxt``; the newest version alone if it has none. Raises BundleError."""
    if not (repository / name / CONFIG_NAME).exists():
        return NEWEST
    return version_policy_of(read_config(repository, name))


def manifest(repository: Path, name: str, version: int) -> Bundle:
    """Read the manifest of a bundle version. Raises BundleError."""
    return read_bundle(repository / name / str(version) / MANIFEST_NAME)


def owner(registry: BundleRegistry, repository: Path, model: str) -> str:
    """Find the bundle of a model name, among those served or in the repository. Raises NotFoundError."""
    for served in registry.models():
        if served.spec.name == model:
            return served.bundle.name
    try:
        names = bundle_names(repository)
    except BundleError:
        logger.exception("listing the repository")
        names = []
    if model in names:
        return model
    for name in names:
        for version in bundle_versions(repository, name) if model.startswith(f"{name}_") else ():
            try:
                parts = {spec.name for spec in model_specs(manifest(repository, name, version))}
            except BundleError:
                continue  # Loading that bundle will report what is wrong with it.
            if model in parts:
                return name
    raise NotFoundError(f"no bundle in the repository has a model '{model}'", field="model")
