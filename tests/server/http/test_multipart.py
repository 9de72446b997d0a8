"""The multipart reader, fed in every way a network can cut a body up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser
from starlette.requests import Request

from dimml.errors import InvalidParameterError, RequestError, TooLargeError
from dimml_server.http.body.limits import Uploads
from dimml_server.http.body.multipart import MAX_PARTS, read_form

BOUNDARY = b"----dimml"
FIELDS = frozenset({"model", "top_k"})


def body_of(*parts: tuple[str, bytes]) -> bytes:
    pieces = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="../../x"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n%b\r\n" % (BOUNDARY, name.encode(), data)
        for name, data in parts
    ]
    return b"".join([*pieces, b"--%b--\r\n" % BOUNDARY])


def request_of(chunks: list[bytes], headers: dict[str, str] | None = None) -> Request:
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting = iter([*messages, {"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, object]:
        return next(waiting)

    given_headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}", **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in given_headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def read(
    chunks: list[bytes], *, max_body_bytes: int = 2**20, spool_bytes: int = 64, headers: dict[str, str] | None = None
) -> tuple[dict[str, str], dict[str, bytes], list[Path]]:
    """Fields, file contents, and the paths that were spooled (which must be gone by now)."""

    async def scenario() -> tuple[dict[str, str], dict[str, bytes], list[Path]]:
        reading = read_form(
            request_of(chunks, headers),
            Uploads(limit=1, timeout_s=60.0),
            field_names=FIELDS,
            max_body_bytes=max_body_bytes,
            spool_bytes=spool_bytes,
        )
        async with reading as form:
            paths = [source for source in form.files.values() if isinstance(source, Path)]
            files = {n: s.read_bytes() if isinstance(s, Path) else s for n, s in form.files.items()}
            return form.fields, files, paths

    return asyncio.run(scenario())


@settings(max_examples=60, deadline=None)
@given(media=st.binary(max_size=300), audio=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1200), max_size=12))
def test_parts_arrive_whole_however_the_body_is_cut(media: bytes, audio: bytes, cuts: list[int]) -> None:
    body = body_of(("media", media), ("model", b"tiny"), ("audio", audio))
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    fields, files, paths = read([body[a:b] for a, b in pairwise(edges)])
    assert fields == {"model": "tiny"}
    assert files == {"media": media, "audio": audio}
    # The threshold is for all files in memory together.
    first = len(media) > 64
    second = len(audio) > 0 and len(audio) + (0 if first else len(media)) > 64
    assert len(paths) == first + second
    assert not any(path.exists() for path in paths)


def test_a_body_past_the_limit_is_refused_on_its_header_and_while_it_comes() -> None:
    with pytest.raises(TooLargeError, match="2000 bytes"):
        read([], max_body_bytes=2000, headers={"content-length": "2001"})
    endless = [body_of(("media", b"x" * 100_000))[:50_000]] * 100

    seen = 0

    async def count() -> AsyncIterator[bytes]:
        nonlocal seen
        for chunk in endless:
            seen += len(chunk)
            yield chunk

    request = request_of([])
    request.stream = count  # type: ignore[method-assign]

    async def scenario() -> None:
        uploads = Uploads(limit=1, timeout_s=60.0)
        async with read_form(request, uploads, field_names=FIELDS, max_body_bytes=60_000, spool_bytes=64):
            pytest.fail("the body was too large")

    with pytest.raises(TooLargeError):
        asyncio.run(scenario())
    assert seen == 100_000  # No more was read than it took to see it.


@pytest.mark.parametrize(
    ("chunks", "error", "message"),
    [
        ([body_of(("media", b"abc"))[:-20]], InvalidParameterError, "closing boundary"),
        ([b"no multipart at all"], InvalidParameterError, "well-formed"),
        ([body_of(("media", b"a"), ("media", b"b"))], InvalidParameterError, "more than once"),
        ([body_of(("", b"a"))], InvalidParameterError, "no name"),
        ([body_of(("model", b"x" * 5000))], TooLargeError, "'model'"),
        ([body_of(("model", b"\xff\xfe"))], InvalidParameterError, "UTF-8"),
        ([body_of(*((f"p{i}", b"") for i in range(MAX_PARTS + 1)))], TooLargeError, "parts"),
        ([b"--%b\r\nX-Long: %b\r\n\r\n" % (BOUNDARY, b"y" * 10_000)], InvalidParameterError, "well-formed"),
    ],
)
def test_a_malformed_body_is_refused_with_the_reason(
    chunks: list[bytes], error: type[RequestError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read(chunks)


def test_another_content_type_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="multipart/form-data"):
        read([b"{}"], headers={"content-type": "application/json"})


@pytest.mark.parametrize("declared", [True, False])
def test_a_boundary_is_bounded_whichever_way_the_body_is_read(declared: bool) -> None:
    for length, refused in ((256, False), (257, True)):
        boundary = b"b" * length
        body = _PLAIN.replace(BOUNDARY, boundary)
        headers = {"content-type": f"multipart/form-data; boundary={boundary.decode()}"}
        headers |= {"content-length": str(len(body))} if declared else {}
        if refused:
            with pytest.raises(InvalidParameterError, match="257 bytes, more than 256"):
                read([body], spool_bytes=2**20, headers=headers)
        else:
            assert read([body], spool_bytes=2**20, headers=headers)[1] == {"media": b"data"}


def test_the_threshold_is_for_all_parts_together() -> None:
    """Thirty parts just below it would be thirty times as much memory."""
    parts = [(f"part{number}", bytes([number]) * 50) for number in range(10)]
    _, files, paths = read([body_of(*parts)], spool_bytes=64)
    assert files == dict(parts)
    assert len(paths) >= 8


def test_a_parts_own_headers_are_bounded() -> None:
    for long in (b"X-Long: " + b"a" * 100_000, b"X" * 100_000 + b": a", b"\r\n".join([b"X: a"] * 20_000)):
        head = b'--%b\r\nContent-Disposition: form-data; name="media"\r\n%b\r\n\r\n' % (BOUNDARY, long)
        with pytest.raises(InvalidParameterError, match="well-formed"):
            read([head + b"data\r\n--%b--\r\n" % BOUNDARY])


@pytest.mark.parametrize("declared", [True, False])
def test_the_number_of_parts_is_a_setting(declared: bool) -> None:
    async def scenario() -> None:
        body = body_of(*((f"part{number}", b"x") for number in range(4)))
        request = request_of([body], {"content-length": str(len(body))} if declared else None)
        uploads = Uploads(limit=1, timeout_s=60.0)
        limits = {"max_body_bytes": 2**20, "spool_bytes": 2**20, "max_parts": 3}
        async with read_form(request, uploads, field_names=FIELDS, **limits):
            pass

    with pytest.raises(TooLargeError, match="more than 3 parts"):
        asyncio.run(scenario())


#: Pieces of bodies that are put together at random: what is plainly written, and what is nearly so.
_PIECES = [
    b"--",
    b"\r\n",
    b"--" + BOUNDARY,
    b"\r\n--" + BOUNDARY + b"\r\n",
    b"\r\n--" + BOUNDARY + b"--\r\n",
    b'Content-Disposition: form-data; name="media"; filename="a;b=c.mp4"',
    b'Content-Disposition: form-data; name="model"',
    b'content-disposition: form-data; name="audio"; filename=""',
    b'Content-Disposition: form-data; name="n\\"x"; filename="C:\\a"',
    b"Content-Disposition: form-data; name=media",
    b"Content-Type: video/mp4",
    b"Content-Transfer-Encoding: base64",
    b"\r\n\r\n",
    b"some bytes",
    b"\xff\x00",
]
_HEADS = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="%b"; filename="a b.mp4"\r\nContent-Type: video/mp4',
        b'Content-Disposition: form-data; name="%b"; filename=""\r\nContent-Type: application/octet-stream',
        b'Content-Disposition: form-data; name="%b"',
        b'Content-Disposition: form-data; name="%b"; filename="x"\r\nX-Other: 1',
    ]
)
_PARTS = st.tuples(_HEADS, st.sampled_from([b"media", b"audio", b"model", b"_charset_", b""]), st.binary(max_size=40))
_SCRAMBLED = st.lists(st.sampled_from(_PIECES), max_size=12).map(b"".join)


def _written(parts: list[tuple[bytes, bytes, bytes]]) -> bytes:
    pieces = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (BOUNDARY, head % name, data) for head, name, data in parts]
    return b"".join([*pieces, b"--%b--\r\n" % BOUNDARY])


_PLAIN = _written(
    [(b'Content-Disposition: form-data; name="%b"; filename="a.mp4"\r\nContent-Type: a/b', b"media", b"data")]
)


@settings(max_examples=80, deadline=None)
@given(
    body=st.one_of(
        st.lists(_PARTS, min_size=1, max_size=4).map(_written),
        _SCRAMBLED,
        st.tuples(st.lists(_PARTS, min_size=1, max_size=2).map(_written), st.integers(0, 400), _SCRAMBLED).map(
            lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] :]
        ),
        st.tuples(st.lists(_PARTS, min_size=1, max_size=2).map(_written), st.integers(0, 400)).map(
            lambda cut: cut[0][: cut[1]]
        ),
    ),
    cut=st.integers(0, 400),
)
@example(body=_PLAIN.replace(b"a.mp4", b"C:\\\\a.mp4"), cut=9)
@example(body=_PLAIN.replace(b'"media"', b'"m\\\\edia"'), cut=9)
@example(body=_PLAIN[:-2], cut=9)
@example(body=_PLAIN[:-2] + b"x", cut=9)
@example(body=_PLAIN + b"more", cut=9)
@example(body=b"\r\n" + _PLAIN, cut=9)
@example(body=_PLAIN.replace(b"\r\ndata", b"\r\n\r\n--" + BOUNDARY + b"x\r\ndata"), cut=9)
@example(body=_PLAIN.replace(b"\r\ndata", b"\r\n--" + BOUNDARY + b"\r\ndata"), cut=9)
@example(body=_PLAIN.replace(b"Type: ", b"Type:"), cut=9)
def test_a_whole_body_is_read_as_the_library_reads_it(body: bytes, cut: int) -> None:
    def outcome(declared: dict[str, str]) -> object:
        try:
            return read([body[:cut], body[cut:]], spool_bytes=2**20, headers=declared)
        except RequestError as error:
            return type(error), error.message, error.field

    # Without its length it is fed to the library piece by piece.
    assert outcome({"content-length": str(len(body))}) == outcome({})


def test_what_clients_send_is_split_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    body = httpx.Request(
        "POST",
        "http://localhost/",
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"},
        data={"model": "tiny"},
        files={"media": ("a clip.mp4", b"\r\n--x" * 9000)},
    ).read()
    monkeypatch.setattr(MultipartParser, "write", None)
    fields, files, _ = read([body[:1000], body[1000:]], spool_bytes=2**20, headers={"content-length": str(len(body))})
    assert fields == {"model": "tiny"}
    assert files == {"media": b"\r\n--x" * 9000}
