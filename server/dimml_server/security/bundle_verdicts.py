"""Check the bundle versions of a repository: hashes and signatures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dimml.errors import BundleError
from dimml.repository import bundle_names, bundle_versions, load_bundle
from dimml.signing import PublicKeys


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of checking one version of a bundle; ``problem`` is None if there is none."""

    bundle: str
    version: int
    files: int
    signed: bool
    problem: str | None
    #: Of its training clips; None where the manifest could not be read.
    decoder_version: int | None


def verdicts_of(
    repository: Path, signers: PublicKeys | None, bundle: str | None = None, version: int | None = None
) -> list[Verdict]:
    """Check each requested version. Raises BundleError if there is none."""
    verdicts = []
    for name in bundle_names(repository) if bundle is None else [bundle]:
        for number in bundle_versions(repository, name):
            if version not in (None, number):
                continue
            try:
                loaded = load_bundle(repository, name, number, signers=signers)
            except BundleError as error:
                verdicts.append(Verdict(name, number, 0, signed=False, problem=error.message, decoder_version=None))
                continue
            signed = signers is not None
            verdicts.append(Verdict(name, number, len(loaded.files), signed, None, loaded.decoder_version))
    if not verdicts:
        raise BundleError(f"{repository} holds no {'bundle' if bundle is None else f'such version of {bundle!r}'}")
    return verdicts
