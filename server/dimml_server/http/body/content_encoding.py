"""Content-Encoding gzip and deflate of request bodies, with a bound: a small body must not expand into a huge one."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

from dimml.errors import EncodingError, RequestError, TooLargeError

#: zlib's window size argument by encoding; HTTP's "deflate" is the zlib format (RFC 9110, section 8.4.1.2).
WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
#: Bytes decompressed at a time: a few bytes may expand a thousandfold.
_PIECE_BYTES = 2**20
#: Compressed bytes given to zlib at a time.
_FED_BYTES = 2**13
#: gzip data may be a series of members (RFC 1952, section 2.2), as parallel compressors write it, 64 KiB or more in
#: each. An empty one of 20 bytes costs as much time as any, so that their number is bounded too.
_MAX_MEMBERS = 2**16


def decoded(chunks: AsyncIterator[bytes], encoding: str, max_bytes: int) -> AsyncIterator[bytes]:
    """Decompress a body as it arrives. ``encoding`` is the Content-Encoding header, possibly empty.

    Raises TooLargeError as soon as the body, compressed or not, exceeds ``max_bytes``; EncodingError if the encoding is
    not supported, RequestError if the body is not encoded so.
    """
    name = checked_encoding(encoding)
    parts = _limited(chunks, max_bytes)
    return _inflated(parts, name, max_bytes) if name else parts


def checked_encoding(encoding: str) -> str:
    """Return the name of a supported Content-Encoding, or '' for none. Raises EncodingError."""
    name = encoding.strip().lower()
    name = "gzip" if name == "x-gzip" else name  # RFC 9110, section 8.4.1.3
    if name in ("", "identity"):
        return ""
    if name not in WINDOW_BITS:
        raise EncodingError(
            f"unsupported Content-Encoding '{encoding[:40]}': use gzip, deflate or none", field="Content-Encoding"
        )
    return name


async def _inflated(chunks: AsyncIterator[bytes], name: str, max_bytes: int) -> AsyncIterator[bytes]:
    inflate = zlib.decompressobj(WINDOW_BITS[name])
    room, members = max_bytes, 1
    async for chunk in chunks:
        for fed in _slices(chunk):
            part, folded = b"", fed
            # zlib keeps what did not fit into the last full piece, perhaps with the end of the compressed data.
            while folded or len(part) == _PIECE_BYTES:
                if inflate.eof and folded:
                    if name != "gzip" or members == _MAX_MEMBERS:
                        raise RequestError(f"request body has data after its {name} stream")
                    inflate, members = zlib.decompressobj(WINDOW_BITS[name]), members + 1
                try:
                    part = inflate.decompress(folded, _PIECE_BYTES)
                except zlib.error as error:
                    raise RequestError(f"request body is not a {name} stream") from error
                room -= len(part)
                if room < 0:
                    raise _too_large(max_bytes)
                if part:
                    yield part
                folded = inflate.unused_data or inflate.unconsumed_tail
    if not inflate.eof:
        raise RequestError(f"request body is not one whole {name} stream")


def _slices(chunk: bytes) -> Iterator[bytes]:
    """Cut it up, since zlib copies all that follows a member at the end of each."""
    yield from (chunk[at : at + _FED_BYTES] for at in range(0, len(chunk), _FED_BYTES))


async def _limited(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    room = max_bytes
    async for chunk in chunks:
        room -= len(chunk)
        if room < 0:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"request body exceeds max_body_bytes ({max_bytes})", field="body")
