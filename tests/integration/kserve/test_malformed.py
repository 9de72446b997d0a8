"""Requests that no well-behaved client sends, over raw HTTP: a 4xx that explains, never a 500, and the server lives."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.kserve_clients import frames, waveform


@pytest.fixture(autouse=True)
def still_answering(http: httpx.Client) -> Iterator[None]:
    yield
    header, tail = good_request()
    answer = post(http, json.dumps(header).encode(), tail)
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["shape"] == [1, 3]


def good_request() -> tuple[dict[str, Any], bytes]:
    """A header and its binary tail: both inputs of the entry model."""
    sound, pictures = waveform([1]).tobytes(), frames([1]).tobytes()
    header = {
        "id": "x",
        "inputs": [
            {
                "name": "WAVEFORM",
                "datatype": "FP32",
                "shape": [1, 4000],
                "parameters": {"binary_data_size": len(sound)},
            },
            {
                "name": "FRAMES",
                "datatype": "UINT8",
                "shape": [1, 4, 16, 16, 3],
                "parameters": {"binary_data_size": len(pictures)},
            },
        ],
        "outputs": [{"name": "PROBABILITIES", "parameters": {"binary_data": False}}],
        "parameters": {"timeout_ms": 5000},
    }
    return header, sound + pictures


def post(
    http: httpx.Client, header: bytes, tail: bytes, *, length: str | None = None, model: str = "tiny", **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named["Inference-Header-Content-Length"] = str(len(header)) if length is None else length
    return http.post(f"/v2/models/{model}/infer", content=header + tail, headers=named)


def check_refused(answer: httpx.Response) -> str:
    assert 400 <= answer.status_code < 500, answer.text
    (message,) = answer.json().values()
    assert list(answer.json()) == ["error"]
    assert 0 < len(message) < 4000
    return message


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["WAVEFORM", "FRAMES", "FP32", "UINT8", "BYTES", "BF16", "STATUS", 0, -1, 1, 16000, 3072, 4000])
)
_ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8
)
_FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@given(st.data())
@_FUZZ
def test_one_thing_in_the_header_is_something_else(http: httpx.Client, data: st.DataObject) -> None:
    header, tail = good_request()
    path = data.draw(st.sampled_from([place for place in places(header) if place]))
    holder: Any = header
    for key in path[:-1]:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[path[-1]] = data.draw(_ANYTHING)
    else:
        del holder[path[-1]]
    answer = post(http, json.dumps(header).encode(), tail)
    # A parameter may be turned into a sequence (501) or a time limit that is too short (504).
    if answer.status_code not in (200, 501, 504):
        check_refused(answer)


@given(st.integers(-40, 40), st.integers(-40, 40), st.integers(-40, 40))
@_FUZZ
def test_sizes_that_do_not_add_up(http: httpx.Client, first: int, second: int, cut: int) -> None:
    header, tail = good_request()
    sizes = [entry["parameters"] for entry in header["inputs"]]
    sizes[0]["binary_data_size"] += first
    sizes[1]["binary_data_size"] += second
    tail = tail[:cut] if cut < 0 else tail + bytes(cut)
    answer = post(http, json.dumps(header).encode(), tail)
    if first == second == cut == 0:
        assert answer.status_code == 200
    else:
        check_refused(answer)


@given(st.binary(max_size=200), st.none() | st.text("-+0123456789abc", max_size=6))
@_FUZZ
def test_bodies_of_noise(http: httpx.Client, body: bytes, length: str | None) -> None:
    header = {} if length is None else {"Inference-Header-Content-Length": length}
    for model in ("tiny", "tiny_media", "tiny_audio", "tiny_fusion"):
        check_refused(http.post(f"/v2/models/{model}/infer", content=body, headers=header))


@pytest.mark.parametrize("length", ["-1", "1e3", "999999999", "9" * 40, "ten", "0x10", ""])
def test_header_lengths(http: httpx.Client, length: str) -> None:
    header, tail = good_request()
    assert "nference" in check_refused(post(http, json.dumps(header).encode(), tail, length=length))


@pytest.mark.parametrize(
    "body", [b"[" * 20_000, b'{"inputs":' + b"[" * 20_000, b'{"inputs":[' + b"1" * 9000 + b"]}", b"\xff\xfe{}", b'"x"']
)
def test_json_that_is_none(http: httpx.Client, body: bytes) -> None:
    check_refused(http.post("/v2/models/tiny/infer", content=body))


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", b"not gzip"),
        ("deflate", b"not deflate"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4]),
        ("deflate", zlib.compress(b"{}") + b"more"),
        ("br", b"{}"),
        ("gzip, deflate", b"{}"),
    ],
)
def test_encodings_that_are_not_what_they_say(http: httpx.Client, encoding: str, content: bytes) -> None:
    answer = http.post("/v2/models/tiny/infer", content=content, headers={"Content-Encoding": encoding})
    check_refused(answer)
    assert answer.status_code == (400 if encoding in ("gzip", "deflate") else 415)


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
def test_bodies_over_the_limit(http: httpx.Client, max_body_bytes: int, encoding: str) -> None:
    body = b" " * (max_body_bytes * 3 // 2)  # Small enough to be sent whole: what lingers is test_http_connections'.
    packed = {"": body, "gzip": gzip.compress(body), "deflate": zlib.compress(body)}[encoding]
    headers = {"Content-Encoding": encoding} if encoding else {}
    answer = http.post("/v2/models/tiny/infer", content=packed, headers=headers)
    assert answer.status_code == 413
    assert "max_body_bytes" in check_refused(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/tiny/infer"),
        ("POST", "/v2/models/tiny"),
        ("GET", "/v2/nothing"),
        ("DELETE", "/v2/models/tiny"),
        ("GET", "/v2/models/tiny/versions/1/nothing"),
        ("GET", "/v2/repository/index"),
    ],
)
def test_calls_that_do_not_exist(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 404
    assert "no such KServe v2 call" in check_refused(answer)


def test_names_and_versions_in_the_path(http: httpx.Client) -> None:
    for path in ("/v2/models/..%2f..%2fetc/config", "/v2/models/%00/ready", f"/v2/models/{'x' * 2000}/stats"):
        assert http.get(path).status_code in (400, 404)
    for version in ("0", "-1", "1.0", "01x", "9" * 5000):
        assert check_refused(http.get(f"/v2/models/tiny/versions/{version}"))


def test_a_non_finite_output_cannot_be_json(http: httpx.Client) -> None:
    nan = {"name": "WAVEFORM", "datatype": "FP32", "shape": [1, 4000], "data": [float("nan")] * 4000}
    answer = post(http, json.dumps({"inputs": [nan]}).encode(), b"", model="tiny_audio")
    assert "request it with binary_data" in check_refused(answer)
