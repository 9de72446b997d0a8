"""API keys: their creation, storage and lookup.

A key is 256 random bits with a prefix that secret scanners can look for. Only its SHA-256 is stored: with that much
randomness nothing slower is needed, and a stolen keys file opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dimml.errors import ConfigurationError

PREFIX: Final = "dimml_"
_RANDOM_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_ADMIN: Final = "admin"
_CONCURRENT: Final = "concurrent="


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What the server stores of a key. ``concurrent``: its own limit on requests in flight; None: the default."""

    name: str
    digest: bytes
    admin: bool = False
    concurrent: int | None = None

    @property
    def line(self) -> str:
        """The key's line in a keys file."""
        words = [self.name, self.digest.hex()]
        if self.admin:
            words.append(_ADMIN)
        if self.concurrent is not None:
            words.append(f"{_CONCURRENT}{self.concurrent}")
        return " ".join(words)


def new_key(name: str, *, admin: bool = False, concurrent: int | None = None) -> tuple[str, ApiKey]:
    """Make a new key, to be shown once, and what to store of it. Raises ConfigurationError for a bad name."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"key name {name[:80]!r}: use letters, digits, '.', '_' and '-', 64 at most", field="name"
        )
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return secret, ApiKey(name, _sha256(secret), admin=admin, concurrent=concurrent)


class KeyRing:
    """The keys of a server."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, secret: str) -> ApiKey | None:
        """Find the key with this secret; None if there is none.

        Every stored digest is compared, each in constant time: the duration reveals neither how close a guess was nor
        which key it is.
        """
        digest, found = _sha256(secret), None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


def read_keys(file: Path | None, lines: Iterable[str]) -> KeyRing:
    """Read the keys of a file, and of lines in the same format.

    Raises ConfigurationError that names file and line but never quotes the line: the key itself may be stored there by
    mistake. A file without a key is an error too, since emptying it must not open the server.
    """
    keys: dict[str, ApiKey] = {}
    digests: dict[bytes, str] = {}
    sources = [(f"api_keys, entry {number}", line, "api_keys") for number, line in enumerate(lines, 1)]
    if file is not None:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ConfigurationError(f"cannot read keys file {file}: {why}", field="api_keys_file") from error
        stored = [(f"{file}, line {n}", line, "api_keys_file") for n, line in enumerate(text.splitlines(), 1)]
        stored = [entry for entry in stored if entry[1].partition("#")[0].strip()]
        if not stored:
            raise ConfigurationError(
                f"keys file {file} holds no key; `dimml keys new NAME` makes one", field="api_keys_file"
            )
        sources += stored
    for where, line, setting in sources:
        key = _parse(line, where, setting)
        if key.name in keys:
            raise ConfigurationError(f"{where}: key {key.name!r} stands there twice", field=setting)
        if key.digest in digests:
            raise ConfigurationError(f"{where}: {key.name!r} is the same key as {digests[key.digest]!r}", field=setting)
        keys[key.name], digests[key.digest] = key, key.name
    return KeyRing(keys.values())


def _parse(line: str, where: str, setting: str) -> ApiKey:
    form = "NAME SHA256 [admin] [concurrent=N]"
    words = line.partition("#")[0].split()
    if len(words) < 2 or not _NAME.fullmatch(words[0]):
        raise ConfigurationError(f"{where}: write it as {form}", field=setting)
    name, digest, *options = words
    if digest.startswith(PREFIX):
        raise ConfigurationError(
            f"{where}: this is the key itself; store its SHA-256, as `dimml keys new` prints it", field=setting
        )
    if not _DIGEST.fullmatch(digest):
        raise ConfigurationError(f"{where}: the SHA-256 must be 64 small hexadecimal digits", field=setting)
    admin, concurrent = False, None
    for option in options:
        number = option.removeprefix(_CONCURRENT)
        if option == _ADMIN:
            admin = True
        elif option.startswith(_CONCURRENT) and number.isascii() and number.isdigit() and int(number) >= 1:
            concurrent = int(number)
        else:
            raise ConfigurationError(f"{where}: an option is neither admin nor concurrent=N, N from 1", field=setting)
    return ApiKey(name, bytes.fromhex(digest), admin=admin, concurrent=concurrent)


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
