"""Compressed HTTP bodies, and bombs."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import pytest

from dimml.errors import RequestError, TooLargeError
from dimml_server.kserve.http.compression import accepted_encoding, compress, read_body

BODY = bytes(range(256)) * 400


async def in_chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def read(body: bytes, encoding: str, *, limit: int = 10**6, chunk: int = 1000) -> bytes:
    return asyncio.run(read_body(in_chunks(body, chunk), encoding, limit))


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [("", BODY), ("identity", BODY), ("gzip", gzip.compress(BODY)), ("Deflate", zlib.compress(BODY))],
)
@pytest.mark.parametrize("chunk", [1, 7, 10**6])
def test_a_body_comes_back_whole(encoding: str, sent: bytes, chunk: int) -> None:
    assert read(sent, encoding, chunk=chunk) == BODY


SERIES = b"".join(gzip.compress(BODY[at : at + 999]) for at in range(0, len(BODY), 999))


@pytest.mark.parametrize("chunk", [1, 7, 1000, 10**6])
def test_a_series_of_gzip_members_is_one_body(chunk: int) -> None:
    """RFC 1952, section 2.2; the gzip module reads them so too."""
    assert gzip.decompress(SERIES) == BODY
    assert read(SERIES, "gzip", chunk=chunk, limit=len(BODY)) == BODY
    assert read(gzip.compress(b"") + SERIES + gzip.compress(b""), "gzip", chunk=chunk) == BODY


def test_a_series_of_members_is_within_the_limits() -> None:
    with pytest.raises(TooLargeError, match="max_body_bytes"):
        read(SERIES, "gzip", limit=len(BODY) - 1)
    members = gzip.compress(b"") * (2**16 + 1)
    with pytest.raises(RequestError, match="after its gzip stream"):
        read(members, "gzip", limit=len(members))


@pytest.mark.parametrize(
    "whole", [SERIES[:-1], SERIES + b"\x1f\x8b", SERIES + SERIES[10:]], ids=["cut", "begun", "other"]
)
def test_a_series_that_does_not_end_with_a_member_is_refused(whole: bytes) -> None:
    for chunk in (1, 10**6):
        with pytest.raises(RequestError):
            read(whole, "gzip", chunk=chunk)


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_the_limit_is_exact(encoding: str) -> None:
    sent = compress(BODY, encoding) if encoding else BODY
    assert read(sent, encoding, limit=len(BODY)) == BODY
    with pytest.raises(TooLargeError, match="max_body_bytes"):
        read(sent, encoding, limit=len(BODY) - 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_without_being_unfolded(encoding: str) -> None:
    bomb = compress(bytes(200_000_000), encoding)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            read(bomb, encoding, limit=1_000_000, chunk=65536)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_stream_that_is_cut_or_followed_by_more_is_refused(encoding: str) -> None:
    whole = compress(BODY, encoding)
    for sent in (whole[:-1], whole[: len(whole) // 2], b"", whole + b"more", b"no stream at all"):
        for chunk in (1, 10**6):
            with pytest.raises(RequestError):
                read(sent, encoding, chunk=chunk)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(RequestError, match="'br'"):
        read(BODY, "br")


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br, deflate;q=0.5, gzip", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0", ""),
    ],
)
def test_accept_encoding(header: str, encoding: str) -> None:
    assert accepted_encoding(header) == encoding
