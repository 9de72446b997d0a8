"""What callers send in good faith: parameters in the URL, a browser's form, a compressed body."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import httpx
import pytest

from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip

MAX_BODY_BYTES = 200_000
LABEL = 1
BOUNDARY = "----WebKitFormBoundaryx"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(repository)
    with running_server(repository, decode_workers=1, max_body_bytes=MAX_BODY_BYTES, model_control="explicit") as it:
        yield it
        assert "Traceback" not in it.log


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        yield client


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_clip(tmp_path_factory.mktemp("clip"), LABEL)


def form(*parts: tuple[str, str | None, bytes], more: str = "") -> bytes:
    """Parts as name, file name or None for a text, and bytes, as the HTML standard encodes a form."""
    pieces = []
    for name, file_name, data in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
        if file_name is not None:
            head += f'; filename="{file_name}"\r\nContent-Type: application/octet-stream'
        pieces.append(f"{head}{more}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join([*pieces, f"--{BOUNDARY}--\r\n".encode()])


def refused(answer: httpx.Response, status: int, code: str, field: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error.get("field")) == (code, field)
    return str(error["message"])


@pytest.mark.parametrize("name", ["version", "top_k", "nonsense"])
def test_a_prediction_takes_no_parameters_in_its_url(
    server: ServerProcess, http: httpx.Client, name: str, clip: bytes
) -> None:
    counted = {"transport": "http", "outcome": "invalid_parameter"}
    before = server.metric("dimml_requests_total", **counted)
    answer = http.post("/v1/predict", params={name: 1}, files={"media": clip})
    assert "belongs into the body" in refused(answer, 422, "invalid_parameter", name)
    assert server.metric("dimml_requests_total", **counted) == before + 1


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/v1/models/tiny/routing"])
def test_other_calls_take_the_parameters_they_know(http: httpx.Client, path: str) -> None:
    assert "colour" in refused(http.get(path, params={"colour": 1}), 422, "invalid_parameter", "colour")
    assert http.get("/v1/models/tiny", params={"version": 1}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2"),
        ("GET", "/v2/models/tiny"),
        ("GET", "/v2/models/stats"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/models/tiny/infer"),
        ("POST", "/v2/models/tiny/versions/1/infer"),
    ],
)
def test_kserve_calls_take_the_parameters_they_know(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path, params={"model_version": 1})
    assert answer.status_code == 422
    assert "'model_version' is no parameter of this URL" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/health/live", "/v2/health/ready", "/v2/models/tiny/ready", "/metrics", "/"])
def test_probes_may_carry_what_they_like(http: httpx.Client, path: str) -> None:
    assert http.get(path, params={"verbose": ""}).status_code == 200


def test_what_a_form_leaves_empty_is_not_sent(http: httpx.Client, clip: bytes) -> None:
    names = ("model", "version", "route_key", "start_s", "end_s", "top_k", "timeout_ms", "modalities")
    texts = [(name, None, b"") for name in names]
    body = form(("_charset_", None, b"UTF-8"), ("media", "clip.mp4", clip), ("audio", "", b""), *texts)
    answer = http.post("/v1/predict", content=body, headers=FORM)
    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == LABELS[LABEL]
    assert not answer.json()["degraded"]


def test_a_form_without_a_recording_says_so(http: httpx.Client) -> None:
    answer = http.post("/v1/predict", content=form(("media", "", b""), ("audio", "", b"")), headers=FORM)
    assert "send a recording" in refused(answer, 422, "invalid_parameter", "media")


def test_a_file_that_is_empty_is_one(http: httpx.Client) -> None:
    answer = http.post("/v1/predict", content=form(("media", "clip.mp4", b"")), headers=FORM)
    refused(answer, 422, "unusable_media")


def test_unfilled_parts_count_as_parts(http: httpx.Client, clip: bytes) -> None:
    body = form(*[("audio", "", b"")] * 40, ("media", "clip.mp4", clip))
    refused(http.post("/v1/predict", content=body, headers=FORM), 413, "too_large")


def test_a_form_in_another_charset_or_encoding_is_refused(http: httpx.Client, clip: bytes) -> None:
    body = form(("_charset_", None, b"windows-1252"), ("media", "clip.mp4", clip))
    refused(http.post("/v1/predict", content=body, headers=FORM), 422, "invalid_parameter", "_charset_")
    body = form(("media", "clip.mp4", b"AAAA"), more="\r\nContent-Transfer-Encoding: base64")
    answer = http.post("/v1/predict", content=body, headers=FORM)
    refused(answer, 422, "invalid_parameter", "Content-Transfer-Encoding")
    body = form(("media", "clip.mp4", clip), more="\r\nContent-Transfer-Encoding: binary")
    assert http.post("/v1/predict", content=body, headers=FORM).status_code == 200


COMPRESSED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "gzip, in two members": lambda body: gzip.compress(body[:500]) + gzip.compress(body[500:]),
    "deflate": zlib.compress,
    "identity": bytes,
}


@pytest.mark.parametrize("encoding", list(COMPRESSED))
def test_a_compressed_body_is_undone(http: httpx.Client, encoding: str, clip: bytes) -> None:
    body = COMPRESSED[encoding](form(("media", "clip.mp4", clip)))
    answer = http.post("/v1/predict", content=body, headers=FORM | {"Content-Encoding": encoding.partition(",")[0]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == LABELS[LABEL]


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/tiny/infer", "/v2/repository/index"])
@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_another_encoding_is_refused_with_those_that_are_taken(http: httpx.Client, path: str, encoding: str) -> None:
    answer = http.post(path, content=b"x" * 100, headers=FORM | {"Content-Encoding": encoding})
    assert answer.status_code == 415, answer.text
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"


def test_compression_is_within_the_limits(http: httpx.Client, clip: bytes) -> None:
    headers = FORM | {"Content-Encoding": "gzip"}
    large = gzip.compress(form(("media", "clip.mp4", bytes(MAX_BODY_BYTES))))
    assert len(large) < MAX_BODY_BYTES / 100
    refused(http.post("/v1/predict", content=large, headers=headers), 413, "too_large", "body")
    whole = gzip.compress(form(("media", "clip.mp4", clip)))
    for broken in (whole[:-9], b"not compressed"):
        refused(http.post("/v1/predict", content=broken, headers=headers), 400, "invalid_request")


def test_a_change_of_routing_may_be_compressed(http: httpx.Client) -> None:
    path, body = "/v1/models/tiny/routing", gzip.compress(b'{"split": {}}')
    assert http.patch(path, content=body, headers={"Content-Encoding": "gzip"}).status_code == 200
    assert http.patch(path, content=body, headers={"Content-Encoding": "br"}).status_code == 415
