"""The demo's run: a server of its own, every sample over both transports, a table of the answers."""

from __future__ import annotations

import contextlib
import csv
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import httpx
from rich.console import Console
from rich.table import Table

from dimml.errors import SetupError, UnusableMediaError
from dimml.prediction import Prediction
from dimml.status import ModalityStatus
from dimml.system.child_process import die_with_parent
from dimml_client import Client

START_TIMEOUT_S, STOP_TIMEOUT_S = 90.0, 30.0
MODALITIES = ("audio", "visual")


@dataclass(frozen=True)
class Answer:
    """What came back for one clip: a prediction, or the refusal of a clip in which nothing is usable."""

    statuses: dict[str, ModalityStatus]
    prediction: Prediction | None

    @property
    def label(self) -> str:
        """Answer, empty for a refusal."""
        return "" if self.prediction is None else self.prediction.label


@contextmanager
def server(repository: Path, http_port: int, grpc_port: int) -> Iterator[None]:
    """Run a server on these ports, stopped on leaving, however that comes about. Raises SetupError."""
    command = [sys.executable, "-m", "dimml", "serve", "--repository", str(repository), "--log-level", "warning"]
    command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # Even a demo that is killed outright leaves no server behind.
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - no other thread runs
        )
        try:
            line = first_line(process.stdout) if process.stdout else None
            if line is None or not line.startswith("ready "):
                process.kill()
                process.wait()
                errors.seek(0)
                reason = errors.read().strip() or f"it was not ready within {START_TIMEOUT_S:g} s"
                reason = reason.removeprefix("error: ")
                raise SetupError(
                    f"the server did not start: {reason}; --http-port and --grpc-port (DEMO_HTTP_PORT, DEMO_GRPC_PORT) "
                    "choose other ports"
                )
            yield
            process.terminate()
            if process.wait(STOP_TIMEOUT_S) != 0:
                errors.seek(0)
                raise SetupError(f"the server ended with exit code {process.returncode}: {errors.read().strip()}")
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def first_line(stream: IO[str]) -> str | None:
    """Return the first line, empty where the stream ends without one, None where it does not come in time."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=START_TIMEOUT_S)
    except queue.Empty:
        return None


def predict(client: Client, samples: Path, sample: dict[str, str]) -> Answer:
    """Predict one sample. Raises DimmlError for any refusal but that of a clip in which nothing is usable."""
    start_s, end_s = (float(sample[key]) if sample[key] else None for key in ("start_s", "end_s"))
    try:
        prediction = client.predict(samples / sample["file"], start_s=start_s, end_s=end_s)
    except UnusableMediaError as error:
        return Answer(error.statuses, None)
    return Answer({name: own.modality_status for name, own in prediction.modalities.items()}, prediction)


def cell(answer: Answer, modality: str) -> str:
    """Describe a modality: its vote and weight, or why it has none."""
    status = answer.statuses.get(modality)
    if answer.prediction is None or status is None or not status.ok:
        return f"[yellow]{status}[/]"
    own = answer.prediction.modalities[modality]
    return f"{own.label} {own.probability:.2f}, weight {own.weight:.2f}"


def is_expected(sample: dict[str, str], http: Answer, grpc: Answer) -> bool:
    """Return whether both transports gave the sample's label (none: a refusal) and the statuses of its modalities."""
    statuses = {name: sample[name] for name in MODALITIES}
    return all(
        answer.label == sample["label"] and {name: str(status) for name, status in answer.statuses.items()} == statuses
        for answer in (http, grpc)
    )


def show(samples: list[dict[str, str]], answers: dict[str, list[Answer]]) -> bool:
    """Print what came back; return whether all of it is as expected."""
    table = Table(title="What the server answered (HTTP), and whether gRPC agrees", title_justify="left")
    for column in ("clip", "what is special", "truth", "answer", "prob.", *MODALITIES, "gRPC", "as expected"):
        table.add_column(column)
    good = True
    for sample, http, grpc in zip(samples, answers["http"], answers["grpc"], strict=True):
        as_expected = is_expected(sample, http, grpc)
        good = good and as_expected
        found = http.prediction
        table.add_row(
            sample["file"],
            sample["what"],
            sample["label"] or "-",
            "[red]refused (422)[/]" if found is None else f"[bold]{found.label}[/]",
            "" if found is None else f"{found.probability:.2f}",
            *(cell(http, name) for name in MODALITIES),
            grpc.label or "refused",
            "[green]yes[/]" if as_expected else "[red]NO[/]",
        )
    console = Console()
    (console if console.is_terminal and console.width >= 140 else Console(width=170)).print(table)
    return good


def run_demo(repository: Path, samples: Path, http_port: int, grpc_port: int, *, keep: bool) -> bool:
    """Serve, predict every sample over HTTP and gRPC, and print the answers; return whether all are as expected.

    With ``keep`` the server goes on until Ctrl-C. Raises DimmlError.
    """
    # A plain SIGTERM would end Python without stopping the server.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # A shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The server is on this machine, whatever proxy the environment names.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    with (samples / "samples.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    urls = {"http": f"http://127.0.0.1:{http_port}", "grpc": f"grpc://127.0.0.1:{grpc_port}"}
    print(f"starting dimml serve on {urls['http']} and {urls['grpc']} …", flush=True)
    answers: dict[str, list[Answer]] = {}
    with server(repository, http_port, grpc_port):
        for transport, url in urls.items():
            with Client(url) as client:
                answers[transport] = [predict(client, samples, sample) for sample in listed]
        good = show(listed, answers)
        page = httpx.get(f"{urls['http']}/console", follow_redirects=True).is_success
        if keep:
            print(f"serving until Ctrl-C: {urls['http']}{'/console' if page else ''}", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    if not keep:
        print(
            f"to see what each modality believes: `dimml demo --keep`, and {urls['http']}/console in a browser"
            if page
            else "a page shows what each modality believes; it is not built in this checkout: `make console`"
        )
    print("the server has stopped; every answer came as expected" if good else "some answers are not as expected")
    return good
