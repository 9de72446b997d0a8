"""Content-Encoding gzip and deflate for HTTP bodies."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

from dimml_server.http.body.content_encoding import WINDOW_BITS, decoded
from dimml_server.prediction.spool import Spool, SpooledBody

#: Fast, since answers are small and the caller waits for them.
_LEVEL = 1


async def read_body(
    chunks: AsyncIterator[bytes], encoding: str, max_bytes: int, spool: Spool | None = None
) -> bytes | memoryview:
    """Read a whole body and decompress it. ``encoding`` is the Content-Encoding header, possibly empty.

    Beyond the threshold of ``spool`` it is kept on disk, and a view of the file is returned. Raises what ``decoded``
    does.
    """
    with SpooledBody(spool or Spool(max_bytes)) as body:
        async for part in decoded(chunks, encoding, max_bytes):
            body.write(part)
        return body.content()


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
