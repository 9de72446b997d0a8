"""What ``make demo`` runs: serve the demo bundle, predict the sample clips over HTTP and gRPC, show the answers.

Exits 0 when every answer came, over both transports, with the label and the statuses that samples/samples.csv
expects; a sample without a label must be refused.
DEMO_HTTP_PORT and DEMO_GRPC_PORT choose other ports than 8000 and 8001.
"""

from __future__ import annotations

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
from typing import IO, NoReturn

from rich.console import Console
from rich.table import Table

from dimml.errors import DimmlError, UnusableMediaError
from dimml.prediction import Prediction
from dimml.status import ModalityStatus
from dimml.system.child_process import die_with_parent
from dimml_client import Client
from dimml_server.console.page import page_files

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY, SAMPLES = ROOT / "model_repository", ROOT / "samples"
START_TIMEOUT_S, STOP_TIMEOUT_S = 90.0, 30.0
MODALITIES = ("audio", "visual")


@dataclass(frozen=True)
class Answer:
    """What came back for one clip: a prediction, or the refusal of a clip in which nothing is usable."""

    statuses: dict[str, ModalityStatus]
    prediction: Prediction | None

    @property
    def label(self) -> str:
        return "" if self.prediction is None else self.prediction.label


def fail(message: str) -> NoReturn:
    print(f"demo: {message}", file=sys.stderr)
    sys.exit(1)


def port(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        fail(f"{name} must be a port from 1 to 65535, got {text!r}")
    return int(text)


@contextmanager
def server(http_port: int, grpc_port: int) -> Iterator[None]:
    """A server that takes requests on these ports, stopped on leaving, however that comes about."""
    command = [sys.executable, "-m", "dimml", "serve", "--repository", str(REPOSITORY), "--log-level", "warning"]
    command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
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
                fail(f"the server did not start: {reason}\ndemo: DEMO_HTTP_PORT and DEMO_GRPC_PORT choose other ports")
            yield
            process.terminate()
            if process.wait(STOP_TIMEOUT_S) != 0:
                errors.seek(0)
                fail(f"the server ended with exit code {process.returncode}: {errors.read().strip()}")
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def first_line(stream: IO[str]) -> str | None:
    """The first line, empty where the stream ends without one, None where it does not come in time."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        return lines.get(timeout=START_TIMEOUT_S)
    except queue.Empty:
        return None


def predict(client: Client, sample: dict[str, str]) -> Answer:
    """Raises DimmlError for any refusal but that of a clip in which nothing is usable."""
    start_s, end_s = (float(sample[key]) if sample[key] else None for key in ("start_s", "end_s"))
    try:
        prediction = client.predict(SAMPLES / sample["file"], start_s=start_s, end_s=end_s)
    except UnusableMediaError as error:
        return Answer(error.statuses, None)
    return Answer({name: own.modality_status for name, own in prediction.modalities.items()}, prediction)


def cell(answer: Answer, modality: str) -> str:
    """A modality's vote, certainty and weight, or why it has none."""
    status = answer.statuses.get(modality)
    if answer.prediction is None or status is None or not status.ok:
        return f"[yellow]{status}[/]"
    own = answer.prediction.modalities[modality]
    return f"{own.label} {own.probability:.2f}, weight {own.weight:.2f}"


def is_expected(sample: dict[str, str], http: Answer, grpc: Answer) -> bool:
    """Whether both transports gave the sample's label (none: a refusal) and the statuses of its modalities."""
    statuses = {name: sample[name] for name in MODALITIES}
    return all(
        answer.label == sample["label"] and {name: str(fate) for name, fate in answer.statuses.items()} == statuses
        for answer in (http, grpc)
    )


def show(samples: list[dict[str, str]], answers: dict[str, list[Answer]]) -> bool:
    """Print what came back; whether all of it is as expected."""
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


def main() -> int:
    # A plain SIGTERM would end Python without the clean-up below.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # A shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The server is on this machine, whatever proxy the environment names.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    http_port, grpc_port = port("DEMO_HTTP_PORT", 8000), port("DEMO_GRPC_PORT", 8001)
    with (SAMPLES / "samples.csv").open(newline="") as file:
        samples = list(csv.DictReader(file))
    urls = {"http": f"http://127.0.0.1:{http_port}", "grpc": f"grpc://127.0.0.1:{grpc_port}"}
    print(f"starting dimml serve on {urls['http']} and {urls['grpc']} …", flush=True)
    answers: dict[str, list[Answer]] = {}
    with server(http_port, grpc_port):
        for transport, url in urls.items():
            with Client(url) as client:
                answers[transport] = [predict(client, sample) for sample in samples]
        good = show(samples, answers)
    if page_files():
        print("to see it rather than read it: `make serve`, and http://127.0.0.1:8000/console in a browser")
    else:
        print(
            "there is a page that shows what each modality believes, not built here: `make console`, then `make serve`"
        )
    print("the server has stopped; every answer came as expected" if good else "some answers are not as expected")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DimmlError as error:
        fail(error.message)
    except KeyboardInterrupt:
        sys.exit(130)
