"""Signatures of bundles: Ed25519 (RFC 8032) over the bytes of ``bundle.json``, which holds the hash of every file.

The signature lies beside the manifest in ``bundle.sig``, in base64; ``openssl pkeyutl -verify -rawin`` checks it too.
Needs the package ``cryptography``, which the extras ``serve`` and ``export`` bring.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dimml.errors import BundleError, ConfigurationError
from dimml.system.files import StrPath, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_NAME: Final = "bundle.sig"


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """Public keys whose signatures are accepted. Read by ``read_public_keys``."""

    keys: tuple[Ed25519PublicKey, ...]

    def check(self, manifest: bytes, path: StrPath) -> None:
        """Check that ``manifest``, the bytes of ``path``, is signed by one of the keys. Raises BundleError."""
        from cryptography.exceptions import InvalidSignature

        place = Path(path).with_name(SIGNATURE_NAME)
        try:
            signature = base64.b64decode(place.read_bytes().strip(), validate=True)
        except FileNotFoundError as error:
            raise BundleError(
                f"{path} is not signed, and bundle_public_keys asks for it: `dimml bundle sign`", field=SIGNATURE_NAME
            ) from error
        except OSError as error:
            raise BundleError(f"cannot read {place}: {error.strerror}", field=SIGNATURE_NAME) from error
        except (binascii.Error, ValueError) as error:
            raise BundleError(f"{place} holds no signature", field=SIGNATURE_NAME) from error
        for key in self.keys:
            try:
                key.verify(signature, manifest)
            except InvalidSignature:
                continue
            return
        raise BundleError(
            f"{path}: the signature fits none of the public keys; the manifest was changed, or signed by another key",
            field=SIGNATURE_NAME,
        )


def generate_keys(private: StrPath, public: StrPath) -> None:
    """Write a new key pair in PEM, the private key readable by its owner only.

    Existing files are never overwritten. Raises ConfigurationError.
    """
    private, public = Path(private), Path(public)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    files = {
        private: key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        public: key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    }
    for path in files:
        if path.exists():
            raise ConfigurationError(f"{path} is there already; keys are not overwritten")
    for path, data in files.items():
        mode = 0o600 if path == private else 0o644
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)


def read_public_keys(paths: Sequence[StrPath]) -> PublicKeys | None:
    """Read the keys of PEM files; None without any file. Raises ConfigurationError naming the file."""
    if not paths:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys = []
    for path in paths:
        try:
            key = load_pem_public_key(_read(path))
        except ValueError as error:
            raise ConfigurationError(f"{path} holds no public key in PEM", field="bundle_public_keys") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(f"{path} is no Ed25519 key; see `dimml bundle keygen`", field="bundle_public_keys")
        keys.append(key)
    return PublicKeys(tuple(keys))


def read_private_key(path: StrPath) -> Ed25519PrivateKey:
    """Read a private key from a PEM file. Raises ConfigurationError naming the file."""
    path = Path(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:  # TypeError: the key is encrypted.
        raise ConfigurationError(f"{path} holds no private key in PEM, unencrypted", field="key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is no Ed25519 key; see `dimml bundle keygen`", field="key")
    return key


def sign(manifest: StrPath, key: Ed25519PrivateKey) -> Path:
    """Sign a ``bundle.json`` and return the path of its signature, which is written whole or not at all."""
    manifest = Path(manifest)
    place = manifest.with_name(SIGNATURE_NAME)
    try:
        write_atomically(place, base64.b64encode(key.sign(manifest.read_bytes())) + b"\n")
    except OSError as error:
        raise BundleError(f"cannot sign {manifest}: {error.strerror}") from error
    return place


def _read(path: StrPath) -> bytes:
    path = Path(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
