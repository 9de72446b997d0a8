"""What every HTTP client asks for, and what a right answer is; the same direct and behind a proxy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.tiny_media import marked

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
MAX_BODY_BYTES = 8_000_000
#: Over the 1 MiB from which curl asks before it sends (``Expect: 100-continue``), and over nginx's buffers.
_LARGE_BYTES = 3_000_000
BOUNDARY = "dimml-8f14e45fceea167a"


@dataclass(frozen=True)
class Answer:
    """What a client got: status 0 where it got none, and then why as its body."""

    case: str
    status: int
    body: bytes
    version: str = ""

    def json(self) -> Any:
        """The body, or None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def comparable(self) -> Any:
        """What does not differ from one request to the next."""
        body = self.json()
        if isinstance(body, dict):
            body = {name: value for name, value in body.items() if name not in ("request_id", "timings_ms")}
            if isinstance(body.get("error"), dict):
                body["error"] = {**body["error"], "request_id": None}
        return self.status, body


@dataclass(frozen=True)
class Case:
    """One request. ``ways`` says how it is sent: ``expect`` asks first, ``chunked`` has no length."""

    name: str
    path: str
    problem: Callable[[Answer], str | None]
    file: Path | None = None
    fields: dict[str, str] = field(default_factory=dict)
    ways: frozenset[str] = frozenset()

    @property
    def method(self) -> str:
        return "GET" if self.file is None else "POST"

    def line(self) -> str:
        """As the programs in other languages read it."""
        fields = "&".join(f"{name}={value}" for name, value in self.fields.items())
        return "\t".join([self.name, self.method, self.path, str(self.file or ""), fields, ",".join(self.ways)])


def _wrong(answer: Answer, status: int) -> str | None:
    if answer.status == status:
        return None
    return f"{answer.status or 'no answer'} in place of {status}: {answer.body[:200].decode(errors='replace')}"


def _ready(answer: Answer) -> str | None:
    return _wrong(answer, 200) or (None if answer.json() == {"status": "ready"} else "is not the answer of readiness")


def _models(answer: Answer) -> str | None:
    return _wrong(answer, 200) or (None if b'"avdigits"' in answer.body else "does not list the bundle")


def _label(label: str, missing: str | None = None) -> Callable[[Answer], str | None]:
    def problem(answer: Answer) -> str | None:
        wrong = _wrong(answer, 200)
        if wrong:
            return wrong
        body = answer.json()
        absent = [name for name, own in body["modalities"].items() if own["status"] != "ok"]
        if (body["label"], absent, body["degraded"]) != (label, [missing] if missing else [], missing is not None):
            return f"says {body['label']}, without {absent}"
        return None

    return problem


def _refused(status: int, code: str, message: str) -> Callable[[Answer], str | None]:
    def problem(answer: Answer) -> str | None:
        wrong = _wrong(answer, status)
        if wrong:
            return wrong
        body = answer.json()
        error = body["error"] if isinstance(body, dict) else {}
        right = error.get("code") == code and message in error.get("message", "")
        return None if right else f"does not say {message!r}: {answer.body[:200].decode(errors='replace')}"

    return problem


def kept_cases(folder: Path) -> list[Case]:
    """Those that one connection can carry, one after another."""
    large = folder / "large.mp4"
    large.write_bytes(marked((SAMPLES / "clean_three.mp4").read_bytes(), bytes(_LARGE_BYTES)))
    return [
        Case("ready", "/health/ready", _ready),
        Case("predict", "/v1/predict", _label("three"), SAMPLES / "clean_three.mp4"),
        Case("one modality missing", "/v1/predict", _label("four", "audio"), SAMPLES / "no_sound.mp4"),
        Case(
            "refused",
            "/v1/predict",
            _refused(422, "invalid_parameter", "top_k must be a whole number, got 'many'"),
            SAMPLES / "no_sound.mp4",
            {"top_k": "many"},
        ),
        Case("large", "/v1/predict", _label("three"), large, ways=frozenset({"expect"})),
        Case("chunked", "/v1/predict", _label("seven"), SAMPLES / "clean_seven.mp4", ways=frozenset({"chunked"})),
        Case("models", "/v1/models", _models),
    ]


def small_cases(folder: Path) -> list[Case]:
    """Those whose bytes are few enough to be kept."""
    few = {"ready", "one modality missing", "refused"}
    chunked = Case(
        "chunked", "/v1/predict", _label("four", "audio"), SAMPLES / "no_sound.mp4", {}, frozenset({"chunked"})
    )
    return [*(case for case in kept_cases(folder) if case.name in few), chunked]


def closing_cases(folder: Path) -> list[Case]:
    """One whose answer comes before its body has been sent, which ends the connection, and one on a new connection."""
    huge = folder / "huge.mp4"
    huge.write_bytes(marked((SAMPLES / "clean_three.mp4").read_bytes(), bytes(MAX_BODY_BYTES)))
    return [
        Case("too large", "/v1/predict", _refused(413, "too_large", "larger than 8000000 bytes"), huge),
        Case("ready after it", "/health/ready", _ready),
    ]


def multipart(case: Case) -> Iterator[bytes]:
    """A form as a client streams it that does not build one by itself."""
    for name, value in case.fields.items():
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    path = Path(case.file or "")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="media"; filename="{path.name}"\r\n'
    yield f"{head}Content-Type: video/mp4\r\n\r\n".encode()
    data = path.read_bytes()
    yield from (data[at : at + 4096] for at in range(0, len(data), 4096))
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def problems(cases: Iterable[Case], answers: Iterable[Answer]) -> list[str]:
    """What is wrong, one text per case; a case without its one answer is wrong."""
    asked, got = list(cases), list(answers)
    found = []
    if [case.name for case in asked] != [answer.case for answer in got]:
        found.append(f"answered {[answer.case for answer in got]}, asked {[case.name for case in asked]}")
    by_name = {case.name: case for case in asked}
    for answer in got:
        problem = by_name[answer.case].problem(answer)
        if problem is not None:
            found.append(f"{answer.case}: {problem}")
    return found
