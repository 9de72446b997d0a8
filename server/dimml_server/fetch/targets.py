"""What ``media_url`` may name: parsed once, strictly, and put together anew, so that no parser reads it otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urljoin

from dimml.errors import InvalidParameterError
from dimml_server.settings.media_url import HTTPS, Bucket, Origin, parse_origin

MEDIA_URL: Final = "media_url"
_S3: Final = "s3://"
#: RFC 3986, appendix B: authority, path and query; a fragment is never sent.
_PARTS: Final = re.compile(r"(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(#.*)?", re.DOTALL)
#: Characters that no URL holds and that parsers read differently.
_NEVER: Final = re.compile(r"[\x00-\x20\x7f\\]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Target:
    """What to ask of which host. ``path`` has the query and is sent as it is; ``bucket`` None: not S3."""

    origin: Origin
    path: str
    bucket: str | None = None

    @property
    def url(self) -> str:
        """The address, for HTTP. It may hold a signature, and belongs into no log."""
        return f"{HTTPS}{self.origin}{self.path}"


class Targets:
    """The hosts and buckets that the settings allow."""

    def __init__(self, hosts: Iterable[str], buckets: Mapping[str, Bucket]) -> None:
        self._hosts = frozenset(map(parse_origin, hosts))
        self._buckets = {name: bucket.origin for name, bucket in buckets.items()}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._hosts or self._buckets)

    def parse(self, text: str) -> Target:
        """Parse what a caller sent. Raises InvalidParameterError that says what is wrong with it."""
        if text[: len(_S3)].lower() == _S3:
            return self._in_bucket(text[len(_S3) :])
        if text[: len(HTTPS)].lower() != HTTPS:
            raise _fault("it must begin with https://" + (" or s3://" if self._buckets else ""))
        return self._at_host(text[len(HTTPS) :])

    def redirected(self, target: Target, location: str) -> Target:
        """Follow a redirect from ``target``. Raises InvalidParameterError as ``parse`` does."""
        if _NEVER.search(location):
            raise _fault("redirected to what is no URL")
        text = urljoin(target.url, location)
        if text[: len(HTTPS)].lower() != HTTPS:
            raise _fault("redirected to what is not https")
        return self._at_host(text[len(HTTPS) :])

    def _at_host(self, rest: str) -> Target:
        parts = _PARTS.fullmatch(rest)
        if parts is None or _NEVER.search(rest):
            raise _fault("it holds a space, a backslash or a control character: percent-encode it")
        authority, path, query = parts["authority"], parts["path"], parts["query"] or ""
        if "@" in authority:
            raise _fault("it must hold no user or password")
        try:
            origin = parse_origin(authority)
        except ValueError as error:
            raise _fault(str(error)) from error
        if not (path + query).isascii():
            raise _fault("it holds a character that is not ASCII after the host: percent-encode it")
        if origin not in self._hosts:
            raise _fault(f"this server fetches nothing from {str(origin)[:100]!r}; its operator names hosts")
        return Target(origin, (path or "/") + query)

    def _in_bucket(self, rest: str) -> Target:
        name, _, key = rest.partition("/")
        origin = self._buckets.get(name)
        if origin is None:
            raise _fault(f"this server reads no bucket {name[:100]!r}; its operator names buckets")
        if not key or _CONTROL.search(key) or not {".", ".."}.isdisjoint(key.split("/")):
            raise _fault("it must be s3://BUCKET/KEY, the key without control characters, '.' and '..'")
        return Target(origin, f"/{name}/{quote(key, safe='/-_.~')}", bucket=name)


def _fault(what: str) -> InvalidParameterError:
    return InvalidParameterError(f"{MEDIA_URL}: {what}", field=MEDIA_URL)
