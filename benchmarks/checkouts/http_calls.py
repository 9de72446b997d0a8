"""HTTP requests that a user may send, right and wrong, and what comes back of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from checkouts.checkout import SAMPLES
from checkouts.comparison import without_noise

IDENTITY = "compared-0001"
#: Their values change from run to run: with timings' digits, and by how much of a refused body had come already.
_UNSTABLE_HEADERS = frozenset({"date", "content-length", "connection"})
_BOUNDARY = "compared"
_PREDICT = "/v1/predict"
_LENGTH = "Inference-Header-Content-Length"
CLIP, SOUND, PICTURE, BROKEN = "clean_three.mp4", "spoken_nine.wav", "written_nine.png", "broken.mp4"


@dataclass(frozen=True)
class HttpCall:
    """One request; ``name`` tells it from all others."""

    name: str
    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def answer(self, client: httpx.Client) -> dict[str, Any]:
        """Status, headers and body, as JSON where it is."""
        headers = {"X-Request-Id": IDENTITY, **self.headers}
        got = client.request(self.method, self.path, headers=headers, content=self.body)
        shown = {name: value for name, value in got.headers.items() if name not in _UNSTABLE_HEADERS}
        kind = got.headers.get("content-type", "")
        body = json.loads(got.content) if kind.startswith("application/json") and got.content else _text(got.content)
        return {"status": got.status_code, "headers": without_noise(shown), "body": without_noise(body)}


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")


def form(
    name: str, files: Mapping[str, bytes], *, headers: Mapping[str, str] | None = None, **fields: object
) -> HttpCall:
    """A prediction of these parts; the boundary is fixed, so that both checkouts get the same bytes."""
    return HttpCall(f"predict {name}", _PREDICT, "POST", {**_KIND, **(headers or {})}, multipart(files, fields))


def multipart(files: Mapping[str, bytes], fields: Mapping[str, object]) -> bytes:
    """A body with a fixed boundary, fields first; of a list one field each."""
    parts = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            parts.append(f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{one}\r\n'.encode())
    for name, data in files.items():
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()])


_KIND = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


def predictions(folder: Path) -> Iterator[HttpCall]:
    """Every sample, whole and by its stretch, with modalities missing, and with parameters right and wrong."""
    samples = folder / SAMPLES
    data = {path.name: path.read_bytes() for path in sorted(samples.iterdir()) if path.suffix != ".csv"}
    for name, content in data.items():
        yield form(name, {"media": content})
        for modality in ("audio", "visual"):
            yield form(f"{name}, {modality} alone", {"media": content}, modalities=modality)
            yield form(f"{name} as {modality}", {modality: content}, top_k=10)
    with (samples / "samples.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            stretch = {key: row[key] for key in ("start_s", "end_s") if row[key]}
            if stretch:
                yield form(f"{row['file']} {stretch}", {"media": data[row["file"]]}, **stretch)
    whole = {"media": data[CLIP]}
    wrong: dict[str, list[object]] = {
        "top_k": [0, 1, 10, 11, -1, "many", "1.5"],
        "start_s": [0, 0.3, -1, "nan", "inf", 99, "soon"],
        "end_s": [0.5, 0, -1, "nan", 99, "late"],
        "timeout_ms": [30000, 0, -5, "nan", 1e9, "short"],
        "version": [1, 2, 0, "newest"],
        "model": ["avdigits", "nothing", ""],
        "modalities": ["audio,visual", " audio ", "smell", "", "audio,audio"],
        "route_key": ["user-7", "", "k" * 257],
        "colour": ["red"],
        "media": ["a field instead of a file"],
    }
    for name, values in wrong.items():
        for value in values:
            yield form(f"{name}={value!s:.20}", whole, **{name: value})
    yield form("end before start", whole, start_s=0.8, end_s=0.2)
    yield form("a field twice", whole, top_k=[1, 2])
    yield form("nothing but fields", {}, top_k=1)
    yield form("no part at all", {})
    yield form("an unknown part", {**whole, "smell": b"x"})
    yield form("an empty file", {"media": b""})
    yield form("text for a recording", {"media": b"this is no recording" * 50})
    yield form("a part for each modality", {"audio": data[SOUND], "visual": data[PICTURE]})
    yield form("a part beside the recording", {**whole, "audio": data[SOUND]})
    yield form("a broken part beside the recording", {**whole, "audio": data[BROKEN]})
    yield form("a sound file for the picture", {"visual": data[SOUND]})
    yield form("forty parts", {f"part{number}": b"x" for number in range(40)})
    yield form("an id of the server's", whole, headers={"X-Request-Id": "not an id!"})
    body = multipart(whole, {})
    for name, kind, content in (
        ("an empty body", _KIND["Content-Type"], b""),
        ("half a body", _KIND["Content-Type"], body[: len(body) // 2]),
        ("no boundary", "multipart/form-data", body),
        ("JSON", "application/json", b"{}"),
        ("no content type", "", body),
    ):
        yield HttpCall(f"predict {name}", _PREDICT, "POST", {"Content-Type": kind}, content)


def pages() -> Iterator[HttpCall]:
    """What is read of a server beside predictions."""
    reads = (
        "/health/live", "/health/ready", "/v1/models", "/v1/models/avdigits", "/v1/models/avdigits?version=1",
        "/v1/models/avdigits?version=2", "/v1/models/avdigits?version=x", "/v1/models/nothing",
        "/v1/models/avdigits/routing", "/v1/models/nothing/routing", "/", "/nowhere", "/docs", _PREDICT,
        "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/avdigits/infer",
        "/v2/models/avdigits/versions/1", "/v2/models/avdigits/versions/2", "/v2/models/avdigits/versions/x",
        "/v2/models/avdigits/trace/setting", "/v2/logging", "/v2/systemsharedmemory/status",
    )  # fmt: skip
    for path in reads:
        yield HttpCall(f"GET {path}", path)
    for model in ("avdigits", "avdigits_media", "avdigits_audio", "avdigits_visual", "avdigits_fusion", "nothing"):
        for of in ("", "/config", "/ready", "/stats"):
            yield HttpCall(f"GET /v2/models/{model}{of}", f"/v2/models/{model}{of}")
    posts = (
        "/v1/models", "/v2/repository/index", "/v2/repository/models/avdigits/load",
        "/v2/repository/models/avdigits/unload", "/v2/models/avdigits/generate", "/health/live", "/metrics",
    )  # fmt: skip
    for path in posts:
        yield HttpCall(f"POST {path}", path, "POST", {"Content-Type": "application/json"}, b"{}")
    yield HttpCall("PATCH routing", "/v1/models/avdigits/routing", "PATCH", body=b'{"split": {"1": 100}}')
    yield HttpCall("HEAD models", "/v1/models", "HEAD")
    yield HttpCall("DELETE models", "/v1/models", "DELETE")


def inferences() -> Iterator[HttpCall]:
    """KServe inference by hand: bodies that no client would send, and headers that no client shows."""
    path = "/v2/models/avdigits_fusion/infer"
    for name, body in {
        "no JSON": b"{",
        "no object": b"[]",
        "nothing": b"",
        "no inputs": b"{}",
        "inputs that are none": b'{"inputs": 3}',
        "an input without a name": b'{"inputs": [{}]}',
    }.items():
        yield HttpCall(f"infer {name}", path, "POST", {"Content-Type": "application/json"}, body)
    yield HttpCall("infer a header length that is none", path, "POST", {_LENGTH: "many"}, b"{}")
    yield HttpCall("infer a header length past the end", path, "POST", {_LENGTH: "99"}, b"{}")
    yield HttpCall("infer gzip that is none", path, "POST", {"Content-Encoding": "gzip"}, b"{}")
    yield HttpCall("infer an unknown encoding", path, "POST", {"Content-Encoding": "rot13"}, b"{}")
