"""Finding bundles in a Triton model repository."""

from __future__ import annotations

from pathlib import Path

from dimml.bundle import MANIFEST_NAME, Bundle, read_bundle
from dimml.errors import BundleError
from dimml.signing import PublicKeys
from dimml.system.files import StrPath


def versions(repository: StrPath, model: str) -> list[int]:
    """List a model's version numbers in the repository, ascending. Other entries are ignored, as Triton does."""
    repository = Path(repository)
    folder = repository / model
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit() and int(entry.name) > 0)


def bundle_versions(repository: StrPath, name: str) -> list[int]:
    """List the versions of a model that hold a bundle manifest, ascending; empty if it is not an entry model."""
    repository = Path(repository)
    return [v for v in versions(repository, name) if (repository / name / str(v) / MANIFEST_NAME).is_file()]


def bundle_names(repository: StrPath) -> list[str]:
    """List the names of all bundles in a repository, sorted. Raises BundleError if the folder does not exist."""
    repository = Path(repository)
    if not repository.is_dir():
        raise BundleError(f"model repository {repository} is not a folder")
    return sorted(entry.name for entry in repository.iterdir() if bundle_versions(repository, entry.name))


def only_bundle(repository: StrPath) -> str:
    """Return the name of the only bundle in a repository. Raises BundleError if it holds none or several."""
    names = bundle_names(repository)
    if len(names) == 1:
        return names[0]
    if not names:
        raise BundleError(f"model repository {repository} holds no bundle; `dimml export` writes one")
    raise BundleError(f"name the bundle; {repository} holds {', '.join(names)}", field="model")


def load_bundle(
    repository: StrPath, name: str, version: int | None = None, *, signers: PublicKeys | None = None
) -> Bundle:
    """Load the manifest of a bundle (by default its newest version), and verify every file. Raises BundleError.

    With ``signers``, the manifest must be signed by one of them.
    """
    repository = Path(repository)
    known = bundle_versions(repository, name)
    if not known:
        raise BundleError(f"no bundle {name!r} in {repository}")
    if version is not None and version not in known:
        raise BundleError(f"bundle {name!r} has no version {version}; it has {known}")
    chosen = known[-1] if version is None else version
    bundle = read_bundle(repository / name / str(chosen) / MANIFEST_NAME, signers=signers)
    if (bundle.name, bundle.version) != (name, chosen):
        raise BundleError(
            f"{name}/{chosen}/{MANIFEST_NAME} says it is {bundle.name!r} version {bundle.version}; "
            "a bundle cannot be renamed by moving its folder"
        )
    bundle.verify(repository)
    return bundle
