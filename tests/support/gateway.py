"""A gateway (`dimml serve --engine triton`) before a real Triton server, and load on it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from dimml.contract import model_specs
from dimml.repository import bundle_names, load_bundle
from support.server_process import ServerProcess, running_server

#: Requests that may wait on Triton for the encoder that stalls.
QUEUE_SIZE = 16


def encoders_and_fusion(repository: Path, *bundles: str) -> list[str]:
    """Names of the models that a gateway needs on Triton, of all bundles of a repository where none is named."""
    found = [load_bundle(repository, name) for name in bundles or bundle_names(repository)]
    return [spec.name for bundle in found for spec in model_specs(bundle) if spec.role in ("encoder", "fusion")]


@contextmanager
def gateway(repository: Path, triton: str, **settings: object) -> Iterator[ServerProcess]:
    """A gateway to the Triton at ``host:port``."""
    with running_server(repository, engine="triton", triton_url=triton, decode_workers=1, **settings) as server:
        yield server
        assert "Traceback" not in server.log, server.log


@dataclass
class Answered:
    """One answered request of a load."""

    #: When it was sent and when it was answered, of ``time.monotonic()``.
    began: float
    at: float
    status: int
    degraded: bool = False
    #: Each modality's status, and after a colon its reason where it has one.
    modalities: dict[str, str] = field(default_factory=dict)
    #: What was answered, and what the sender knows to be right; None where there is none.
    label: str | None = None
    expected: str | None = None


@dataclass
class Load:
    """Requests that go on until they are stopped."""

    answers: list[Answered] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _more: threading.Condition = field(default_factory=threading.Condition)

    def since(self, began: float) -> list[Answered]:
        """Answers to requests that ended after ``time.monotonic()`` was ``began``."""
        return [answer for answer in list(self.answers) if answer.at >= began]

    def wait_for(self, count: int, began: float, limit_s: float = 60.0) -> list[Answered]:
        """Block until so many have been answered since ``began``."""
        self.wait_until(lambda: len(self.since(began)) >= count, limit_s)
        return self.since(began)

    def wait_until(self, enough: Callable[[], bool], limit_s: float = 60.0) -> None:
        """Block until it is true of what was answered; looked at with every answer."""
        with self._more:
            assert self._more.wait_for(enough, limit_s), f"not within {limit_s} s: {only(self.answers[-20:])}"

    def add(self, answer: Answered) -> None:
        """Record an answer, and wake who waits for it."""
        with self._more:
            self.answers.append(answer)
            self._more.notify_all()


def answered_whole(made: Load, began: float) -> float:
    """When the first answer by all modalities came after ``began``."""
    made.wait_until(lambda: any(a.status == 200 and not a.degraded for a in made.since(began)))
    return next(a.at for a in made.since(began) if a.status == 200 and not a.degraded)


def only(answers: list[Answered]) -> Counter[tuple[int, bool, tuple[tuple[str, str], ...]]]:
    """Answers by status, whether degraded, and modalities."""
    return Counter((a.status, a.degraded, tuple(sorted(a.modalities.items()))) for a in answers)


def print_row(fault: str, made: Load, recovery_s: float) -> None:
    """A line of the table in docs/evidence/gateway.md, for `pytest -s`."""
    failed = sum(a.status != 200 for a in made.answers)
    degraded = sum(a.degraded for a in made.answers)
    print(f"| {fault} | {len(made.answers)} | {failed} | {degraded} | {recovery_s:.2f} s |")


@contextmanager
def load(
    server: ServerProcess, clip: bytes, *, workers: int = 2, expected: str | None = None, **fields: object
) -> Iterator[Load]:
    """``workers`` clients that send ``clip`` of class ``expected`` time after time, at most for three minutes."""
    made, stop = Load(), threading.Event()
    end = time.monotonic() + 180

    def work() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            while not stop.wait(0.01) and time.monotonic() < end:
                began = time.monotonic()
                try:
                    answer = http.post("/v1/predict", files={"media": clip}, data=fields)
                    made.add(_answered(answer, began, expected))
                except Exception as error:
                    made.errors.append(repr(error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        stop.set()
        for thread in threads:
            thread.join(90)
    assert not made.errors, made.errors[:3]


def _answered(answer: httpx.Response, began: float, expected: str | None) -> Answered:
    document: dict[str, Any] = answer.json()
    parts = document.get("modalities") or document.get("error", {}).get("modalities") or {}
    fates = {name: f"{p['status']}:{p['reason']}" if p.get("reason") else p["status"] for name, p in parts.items()}
    return Answered(
        began,
        time.monotonic(),
        answer.status_code,
        document.get("degraded", False),
        fates,
        document.get("label"),
        expected,
    )
