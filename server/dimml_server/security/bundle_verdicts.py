"""Check the bundle versions of a repository: hashes and signatures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dimml.errors import BundleError
from dimml.repository import bundle_names, bundle_versions, load_bundle
from dimml.signing import PublicKeys


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of checking one version of a bundle; ``problem`` None where all is well."""

    bundle: str
    version: int
    files: int
    signed: bool
    problem: str | None


def verdicts_of(
    repository: Path, signers: PublicKeys | None, bundle: str | None = None, version: int | None = None
) -> list[Verdict]:
    """One for each version asked for. Raises BundleError where there is none."""
    verdicts = []
    for name in bundle_names(repository) if bundle is None else [bundle]:
        for number in bundle_versions(repository, name):
            if version not in (None, number):
                continue
            try:
                files, problem = len(load_bundle(repository, name, number, signers=signers).files), None
            except BundleError as error:
                files, problem = 0, error.message
            verdicts.append(Verdict(name, number, files, signers is not None and problem is None, problem))
    if not verdicts:
        raise BundleError(f"{repository} holds no {'bundle' if bundle is None else f'such version of {bundle!r}'}")
    return verdicts
