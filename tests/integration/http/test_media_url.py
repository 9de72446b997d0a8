"""``media_url`` of ``POST /v1/predict``: a recording that the server fetches, from a real host over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from support.certificates import Authority
from support.recording_host import Page, RecordingHost, recording_host
from support.scripted_servers import free_port
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, fates, tiny_clip

LABEL = 1
MAX_BODY_BYTES = 200_000
#: The spelling of a signed URL; none of it may stand in a log.
SIGNED = "/signed/a%7Eb%2F+c?X-Amz-Signature=0123abcd&z=%2b;&a"


_HEAD = b"HTTP/1.1 200 OK\r\n"
#: Answers that are no HTTP, or that may be read in two ways (RFC 9112).
MALFORMED = {
    "greeting": b"220 ready\r\n",
    "nothing": b"",
    "no-version": b"clip",
    "head-alone": _HEAD,
    "chunk-size": _HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nclip\r\n0\r\n\r\n",
    "chunk-sign": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nclip\r\n0\r\n\r\n",
    "no-last-chunk": _HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nclip\r\n",
    "length-sign": _HEAD + b"Content-Length: -4\r\n\r\nclip",
    "length-list": _HEAD + b"Content-Length: 4, 5\r\n\r\nclip",
    "lengths": _HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nclip!",
    "long-header": _HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    "header-name": _HEAD + b"X Y: z\r\nContent-Length: 4\r\n\r\nclip",
    "location-bytes": b"HTTP/1.1 302 Found\r\nLocation: https://\xff\xfe/\r\nContent-Length: 0\r\n\r\n",
    "locations": b"HTTP/1.1 302 Found\r\nLocation: /clip\r\nLocation: /clip\r\nContent-Length: 0\r\n\r\n",
    "informational": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "status": b"HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nclip",
}


@dataclass
class Setup:
    """A server that may fetch from four places, of which one is a host of recordings and three are no such thing."""

    server: ServerProcess
    host: RecordingHost
    #: Origins that the server may fetch from, and that no recording comes from.
    useless: dict[str, str]
    elsewhere: RecordingHost
    clip: bytes

    def post(self, url: str, files: dict[str, bytes] | None = None, **fields: object) -> httpx.Response:
        parts: dict[str, Any] = {name: (None, str(value)) for name, value in {"media_url": url, **fields}.items()}
        return httpx.post(f"{self.server.url}/v1/predict", files=parts | dict(files or {}), timeout=60.0)

    def fetches(self, outcome: str) -> float:
        return self.server.metric("dimml_media_fetches_total", outcome=outcome)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    clip = tiny_clip(tmp_path_factory.mktemp("clip"), LABEL)
    return {
        "/clip": Page(clip),
        "/chunked": Page(clip, chunked=True),
        "/identity": Page(clip, headers={"Content-Encoding": "identity"}),
        "/signed/a%7Eb%2F+c": Page(clip),
        "/garbage": Page(b"this is no recording" * 50),
        "/empty": Page(),
        "/held": Page(clip, held=True),
        "/hop3": Page(status=302, headers={"Location": "/clip", "Set-Cookie": "a=b"}),
        "/hop2": Page(status=301, headers={"Location": "hop3"}),
        "/hop1": Page(b"moved", status=308, headers={"Location": "/hop2#there"}),
        "/hop0": Page(status=307, headers={"Location": "/hop1"}),
        "/nowhere": Page(status=302),
        "/to-http": Page(status=302, headers={"Location": "http://localhost/clip"}),
        "/to-file": Page(status=302, headers={"Location": "file:///etc/hostname"}),
        "/none": Page(clip, status=206),
        "/error": Page(b"secret", status=500),
        "/gzip": Page(clip, headers={"Content-Encoding": "gzip"}),
        "/cut-off": Page(clip, headers={"Content-Length": str(len(clip) + 1)}),
        **{f"/malformed/{name}": Page(raw=answer) for name, answer in MALFORMED.items()},
        "/large": Page(bytes(MAX_BODY_BYTES + 1)),
        "/large-chunked": Page(bytes(MAX_BODY_BYTES + 1), chunked=True),
    }


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, pages: dict[str, Page]) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("media_url")
    make_tiny_bundle(folder / "models")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    good = authority.sign("good", host="localhost")
    with (
        recording_host(good) as host,
        recording_host(good) as elsewhere,
        recording_host(stranger.sign("foreign", host="localhost")) as untrusted,
        recording_host(authority.sign("old", host="localhost", valid=-timedelta(days=1))) as expired,
        recording_host(authority.sign("other", host="other.example")) as misnamed,
    ):
        for one in (host, elsewhere, untrusted, expired, misnamed):
            one.pages.update(pages)
        host.pages["/elsewhere"] = Page(status=302, headers={"Location": elsewhere.url("/clip")})
        host.pages["/with-user"] = Page(status=302, headers={"Location": f"https://user@{host.origin}/clip"})
        useless = {
            "untrusted": untrusted.origin,
            "expired": expired.origin,
            "misnamed": misnamed.origin,
            "closed": f"localhost:{free_port()}",
        }
        with running_server(
            folder / "models",
            # Neither a proxy nor a password is taken from the environment.
            environment={"SSL_CERT_FILE": str(authority.ca), "HTTPS_PROXY": "http://127.0.0.1:1", "HOME": str(folder)},
            media_url_hosts=",".join([host.origin, *useless.values()]),
            media_url_allow_private=True,
            media_url_fetches=1,
            max_body_bytes=MAX_BODY_BYTES,
            spool_bytes=4096,
            decode_workers=1,
        ) as server:
            yield Setup(server, host, useless, elsewhere, pages["/clip"].body)


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    return error


def refused(response: httpx.Response) -> str:
    error = error_of(response, 422, "fetch_failed")
    assert error["field"] == "media_url"
    return str(error["message"])


@pytest.mark.parametrize("path", ["/clip", "/chunked", "/identity", SIGNED, "/hop1"])
def test_a_recording_is_fetched_and_predicted_like_one_that_was_sent(setup: Setup, path: str) -> None:
    before = setup.fetches("ok")
    response = setup.post(setup.host.url(path))
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["label"], answer["degraded"]) == (LABELS[LABEL], False)
    assert setup.fetches("ok") == before + 1


def test_what_is_asked_of_the_host(setup: Setup) -> None:
    setup.host.asked.clear()
    setup.host.names.clear()
    assert setup.post(setup.host.url(SIGNED + "#fragment")).status_code == 200
    ((line, headers),) = setup.host.asked
    assert line == SIGNED
    assert setup.host.names == ["localhost"]
    assert headers == {
        "host": setup.host.origin,
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "dimml",
        "connection": "close",
    }
    setup.host.asked.clear()
    assert setup.post(setup.host.url("/hop1")).status_code == 200
    assert [line for line, _ in setup.host.asked] == ["/hop1", "/hop2", "/hop3", "/clip"]
    assert "cookie" not in setup.host.asked[-1][1]


def test_a_part_of_a_modality_goes_before_it_and_media_beside_it_is_refused(setup: Setup) -> None:
    answer = setup.post(setup.host.url("/clip"), {"audio": b""}).json()
    assert fates(answer) == {"audio": "unusable:empty", "visual": "ok"}
    setup.host.asked.clear()
    error = error_of(setup.post(setup.host.url("/clip"), {"media": setup.clip}), 422, "invalid_parameter")
    assert error["field"] == "media_url"
    assert "'media' or 'media_url'" in error["message"]
    assert setup.host.asked == []


def test_what_was_fetched_and_is_no_recording_is_refused_as_if_it_had_been_sent(setup: Setup) -> None:
    for path, status in (("/garbage", "unusable:undecodable"), ("/empty", "unusable:empty")):
        error = error_of(setup.post(setup.host.url(path)), 422, "unusable_media")
        assert set(fates({"error": error}).values()) == {status}


@pytest.mark.parametrize("path", ["/large", "/large-chunked"])
def test_a_recording_over_the_limit_of_bodies_is_too_large(setup: Setup, path: str) -> None:
    error = error_of(setup.post(setup.host.url(path)), 413, "too_large")
    assert str(MAX_BODY_BYTES) in error["message"]


def test_all_that_fails_on_the_way_has_one_answer(setup: Setup) -> None:
    outcomes = {
        "/missing": "status", "/none": "status", "/error": "status", "/gzip": "encoding", "/cut-off": "unreachable",
        "/hop0": "redirect", "/nowhere": "redirect", "/to-http": "redirect",
        "/to-file": "redirect", "/elsewhere": "redirect", "/with-user": "redirect",
    }  # fmt: skip
    said = set()
    for path, outcome in outcomes.items():
        before = setup.fetches(outcome)
        said.add(refused(setup.post(setup.host.url(path))))
        assert setup.fetches(outcome) == before + 1, path
    for name in MALFORMED:
        said.add(refused(setup.post(setup.host.url(f"/malformed/{name}"))))
    before = setup.fetches("unreachable")
    for origin in setup.useless.values():
        said.add(refused(setup.post(f"https://{origin}/clip")))
    assert setup.fetches("unreachable") == before + len(setup.useless)
    said.add(refused(setup.post(setup.host.url("/held"), timeout_ms=200)))
    assert setup.fetches("timeout") == 1
    assert len(said) == 1
    assert setup.elsewhere.connections == 0
    assert "secret" not in said.pop()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://{}/clip", "must begin with https"),
        ("https://user@{}/clip", "no user or password"),
        ("https://example.org/clip", "fetches nothing from 'example.org'"),
        ("s3://clips/a", "reads no bucket 'clips'"),
    ],
)
def test_what_is_wrong_with_the_url_is_said(setup: Setup, url: str, said: str) -> None:
    error = error_of(setup.post(url.format(setup.host.origin)), 422, "invalid_parameter")
    assert error["field"] == "media_url"
    assert said in error["message"]


def test_nothing_is_fetched_for_a_request_that_is_wrong_elsewhere(setup: Setup) -> None:
    setup.host.asked.clear()
    for field, value in {"top_k": 9, "timeout_ms": 0, "start_s": -1, "modalities": "smell"}.items():
        error = error_of(setup.post(setup.host.url("/clip"), **{field: value}), 422, "invalid_parameter")
        assert error["field"] == field
    error_of(setup.post(setup.host.url("/clip"), version=9), 404, "not_found")
    assert setup.host.asked == []


def test_fetches_under_way_are_bounded(setup: Setup) -> None:
    setup.host.release.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(setup.post, setup.host.url("/held"))
        setup.server.wait_for_metric("dimml_media_fetches_in_flight", 1)
        second = setup.post(setup.host.url("/clip"))
        assert "too many recordings" in error_of(second, 429, "queue_full")["message"]
        assert int(second.headers["Retry-After"]) >= 1
        assert setup.fetches("busy") == 1
        setup.host.release.set()
        assert first.result().status_code == 200
    setup.server.wait_for_metric("dimml_media_fetches_in_flight", 0)


def test_a_caller_that_goes_away_ends_its_fetch(setup: Setup) -> None:
    setup.host.release.clear()
    before = setup.fetches("cancelled")
    request = httpx.Request(
        "POST", f"{setup.server.url}/v1/predict", files={"media_url": (None, setup.host.url("/held"))}
    )
    host, _, port = setup.server.http.rpartition(":")
    caller = HTTPConnection(host, int(port))
    caller.request("POST", "/v1/predict", request.read(), dict(request.headers))
    setup.server.wait_for_metric("dimml_media_fetches_in_flight", 1)
    caller.close()
    setup.server.wait_for_metric("dimml_media_fetches_in_flight", 0)
    assert setup.fetches("cancelled") == before + 1
    setup.host.release.set()


def test_the_log_names_the_host_and_nothing_of_the_rest(setup: Setup) -> None:
    refused(setup.post(setup.host.url("/not-here/secret-name?X-Amz-Signature=0123abcd")))
    setup.server.wait_for_log(f"media_url: {setup.host.origin}: status (status 404)")
    for word in ("secret-name", "X-Amz-Signature", "0123abcd", "Traceback", "Unclosed"):
        assert word not in setup.server.log
