"""Content-Encoding gzip and deflate for HTTP bodies, bounded: a small body must not unfold into a large one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Final

from dimml.errors import RequestError, TooLargeError

#: zlib's window size argument by encoding; HTTP's "deflate" is the zlib format (RFC 9110, section 8.4.1.2).
WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
#: Answers are small and the caller waits for them.
_LEVEL = 1


async def read_body(chunks: AsyncIterator[bytes], encoding: str, max_bytes: int) -> bytes:
    """A whole body, decompressed. ``encoding`` is the Content-Encoding header, possibly empty.

    Raises TooLargeError as soon as the body, or what it unfolds to, exceeds ``max_bytes``; RequestError where it
    is not what ``encoding`` says, or that encoding is none of ours.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return b"".join([chunk async for chunk in _limited(chunks, max_bytes)])
    if name not in WINDOW_BITS:
        raise RequestError(f"unsupported Content-Encoding '{encoding[:40]}': use gzip, deflate or none")
    inflate = zlib.decompressobj(WINDOW_BITS[name])
    parts: list[bytes] = []
    room = max_bytes
    async for chunk in _limited(chunks, max_bytes):
        if inflate.eof and chunk:
            raise RequestError(f"request body has data after its {name} stream")
        try:
            part = inflate.decompress(chunk, room + 1)
        except zlib.error as error:
            raise RequestError(f"request body is not a {name} stream") from error
        room -= len(part)
        if room < 0:
            raise _too_large(max_bytes)
        parts.append(part)
    if not inflate.eof or inflate.unused_data:
        raise RequestError(f"request body is not one whole {name} stream")
    return b"".join(parts)


def accepted_encoding(accept_encoding: str) -> str:
    """The encoding for an answer to this Accept-Encoding header: the first that we have, or ''."""
    for item in accept_encoding.split(","):
        name, _, parameters = item.partition(";")
        if name.strip().lower() in WINDOW_BITS and parameters.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip().lower()
    return ""


def compress(body: bytes, encoding: str) -> bytes:
    """``body`` in ``encoding``, one of ``WINDOW_BITS``."""
    return gzip.compress(body, _LEVEL, mtime=0) if encoding == "gzip" else zlib.compress(body, _LEVEL)


async def _limited(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    room = max_bytes
    async for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"request body exceeds max_body_bytes ({max_bytes})", field="body")
