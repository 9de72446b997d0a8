"""Content-Encoding gzip and deflate for HTTP bodies, with a bound: a small body must not expand into a huge one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Final

from dimml.errors import RequestError, TooLargeError
from dimml_server.prediction.spool import Spool, SpooledBody

#: zlib's window size argument by encoding; HTTP's "deflate" is the zlib format (RFC 9110, section 8.4.1.2).
WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
#: Fast, since answers are small and the caller waits for them.
_LEVEL = 1
#: Bytes decompressed at a time: a few bytes may expand a thousandfold.
_PIECE_BYTES = 2**20


async def read_body(
    chunks: AsyncIterator[bytes], encoding: str, max_bytes: int, spool: Spool | None = None
) -> bytes | memoryview:
    """Read a whole body and decompress it. ``encoding`` is the Content-Encoding header, possibly empty.

    Beyond the threshold of ``spool`` it is kept on disk, and a view of the file is returned. Raises TooLargeError as
    soon as the body, compressed or not, exceeds ``max_bytes``; RequestError if it is not encoded as ``encoding`` says,
    or the encoding is not supported.
    """
    name = encoding.strip().lower()
    if name not in ("", "identity", *WINDOW_BITS):
        raise RequestError(f"unsupported Content-Encoding '{encoding[:40]}': use gzip, deflate or none")
    with SpooledBody(spool or Spool(max_bytes)) as body:
        parts = _limited(chunks, max_bytes)
        async for part in parts if name not in WINDOW_BITS else _inflated(parts, name, max_bytes):
            body.write(part)
        return body.content()


async def _inflated(chunks: AsyncIterator[bytes], name: str, max_bytes: int) -> AsyncIterator[bytes]:
    inflate = zlib.decompressobj(WINDOW_BITS[name])
    room = max_bytes
    async for chunk in chunks:
        if inflate.eof and chunk:
            raise RequestError(f"request body has data after its {name} stream")
        part, folded = b"", chunk
        # zlib keeps what did not fit into the last full piece, perhaps with the end of the compressed data.
        while folded or len(part) == _PIECE_BYTES:
            try:
                part = inflate.decompress(folded, _PIECE_BYTES)
            except zlib.error as error:
                raise RequestError(f"request body is not a {name} stream") from error
            room -= len(part)
            if room < 0:
                raise _too_large(max_bytes)
            yield part
            folded = inflate.unconsumed_tail
    if not inflate.eof or inflate.unused_data:
        raise RequestError(f"request body is not one whole {name} stream")


def accepted_encoding(accept_encoding: str) -> str:
    """Return the encoding for an answer to this Accept-Encoding header: the first supported one, or ''."""
    for item in accept_encoding.split(","):
        name, _, parameters = item.partition(";")
        if name.strip().lower() in WINDOW_BITS and parameters.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip().lower()
    return ""


def compress(body: bytes, encoding: str) -> bytes:
    """Compress ``body`` in ``encoding``, one of ``WINDOW_BITS``."""
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
