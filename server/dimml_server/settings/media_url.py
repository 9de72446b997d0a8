"""Where recordings may be fetched from: hosts by name, and buckets of S3 with their keys."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from dimml.errors import ConfigurationError

HTTPS: Final = "https://"
HTTPS_PORT: Final = 443
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_LONGEST_NAME: Final = 253
#: A name that ends so is read as an IPv4 address by getaddrinfo, in one of several old forms.
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class Origin(NamedTuple):
    """A host and a port. ``host`` is a name in lower case, IDNA-encoded, or an IP address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"


def parse_origin(text: str) -> Origin:
    """Parse ``host`` or ``host:port``, IPv6 addresses in brackets. Raises ValueError."""
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        host = str(ipaddress.IPv6Address(inner)) if bracket and "%" not in inner else ""
        if not host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text[:100]!r} is no IPv6 address in brackets")
        return Origin(host, _port(rest[1:]))
    name, _, port = text.partition(":")
    return Origin(_host(name), _port(port))


def _port(text: str) -> int:
    if not text:
        return HTTPS_PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise ValueError(f"{text[:40]!r} is no port")
    return int(text)


def _host(text: str) -> str:
    name = text.removesuffix(".")
    if not name.isascii():
        import idna

        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError as error:
            raise ValueError(f"{text[:100]!r} is no host name") from error
    name = name.lower()
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(f"{text[:100]!r} is no host name")
    if not _NUMERIC.fullmatch(labels[-1]):
        return name
    try:
        # Four decimal numbers are the one form of an IPv4 address that every parser reads alike.
        return str(ipaddress.IPv4Address(name))
    except ValueError:
        raise ValueError(f"{text[:100]!r} is no IPv4 address: write it as four decimal numbers") from None


class Bucket(BaseModel):
    """A bucket of S3, or of another store that speaks its protocol, and the key to read it with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str = Field(description="Its store, as `https://s3.example.org`.")
    region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]{1,40}$", description="Region to sign for.")
    access_key: str = Field(pattern=r"^[\x21-\x7e]{1,128}$", description="Id of the key.")
    secret_key: SecretStr | None = Field(default=None, description="The key itself.")
    secret_key_file: Path | None = Field(default=None, description="A file that holds nothing but the key itself.")
    private: bool = Field(default=False, description="Whether the store may have addresses that are not global.")

    @field_validator("endpoint")
    @classmethod
    def _is_https(cls, value: str) -> str:
        if not value.startswith(HTTPS):
            raise ValueError("must begin with https://")
        return f"{HTTPS}{parse_origin(value.removeprefix(HTTPS).removesuffix('/'))}"

    @model_validator(mode="after")
    def _has_one_secret(self) -> Self:
        if (self.secret_key is None) == (self.secret_key_file is None):
            raise ValueError("give secret_key or secret_key_file, one of them")
        return self

    @property
    def origin(self) -> Origin:
        """Host and port of the store."""
        return parse_origin(self.endpoint.removeprefix(HTTPS))

    def secret(self) -> str:
        """Read the key itself. Raises ConfigurationError that names the file."""
        if self.secret_key_file is None:
            return "" if self.secret_key is None else self.secret_key.get_secret_value()
        try:
            secret = self.secret_key_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no key"
            raise ConfigurationError(f"cannot read {self.secret_key_file}: {why}", field="media_url_buckets") from error
        if not secret:
            raise ConfigurationError(f"{self.secret_key_file} holds no key", field="media_url_buckets")
        return secret


def buckets_of(value: object) -> object:
    """Parse buckets from JSON; return anything but a text as it is. Raises ValueError, without quoting the text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except ValueError:
        raise ValueError('is not JSON: {"BUCKET": {"endpoint": …, "access_key": …, "secret_key_file": …}}') from None
