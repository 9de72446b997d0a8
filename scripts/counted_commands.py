"""Commands, each in a fresh home, with what scripts/packet_sink.py saw of them and what they left in the home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from packet_sink import PacketSink, Seen

ROOT = Path(__file__).resolve().parents[1]
HEADER = "| command | s | look-ups | connections | other files in the home | what |\n|---|---|---|---|---|---|"
#: What commands get of the caller's environment: nothing that a library could read as a wish. Not CI: ONNX Runtime and
#: MLflow send nothing where that is set.
_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
#: dimml's own, matplotlib's list of the machine's fonts, and the secret by which the processes of a Ray cluster know
#: each other: each in its documented place, and sent nowhere.
_EXPECTED_FILES = (".cache/dimml/", ".cache/matplotlib/fontlist-", ".ray/auth_token")
_READY_LIMIT_S = 180.0
_COMMAND_LIMIT_S = 900.0
_STOP_LIMIT_S = 60.0
#: What a process sends at its end may still be on its way.
_SETTLE_S = 2.0
#: Programs that ask until their time is over and print how many answers came: dimml's client, and Triton's own.
DIMML_TRAFFIC = """
import sys, time
from dimml_client import Client
end, count, clips = time.monotonic() + float(sys.argv[1]), 0, sys.argv[4:]
clients = [Client(f"http://{sys.argv[2]}", timeout_s=30), Client(f"grpc://{sys.argv[3]}", timeout_s=30)]
while time.monotonic() < end:
    clients[count % 2].predict(media=clips[count % len(clips)])
    count += 1
    time.sleep(0.1)
print(count)
"""
TRITON_TRAFFIC = """
import sys, time
from pathlib import Path
import numpy as np
import tritonclient.grpc, tritonclient.http
end, count, clips = time.monotonic() + float(sys.argv[1]), 0, [Path(name).read_bytes() for name in sys.argv[4:]]
kinds = (tritonclient.http, sys.argv[2]), (tritonclient.grpc, sys.argv[3])
clients = [(kind, kind.InferenceServerClient(address)) for kind, address in kinds]
while time.monotonic() < end:
    kind, client = clients[count % 2]
    media = kind.InferInput("MEDIA", [1], "BYTES")
    media.set_data_from_numpy(np.array([clips[count % len(clips)]], object))
    client.infer("avdigits_media", [media])
    count += 1
    time.sleep(0.1)
print(count)
"""


@dataclass
class Row:
    """What one command did. ``error`` is empty where it ended as it should."""

    name: str
    seconds: float = 0.0
    seen: Seen = field(default_factory=Seen)
    files: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def clean(self) -> bool:
        """Whether it worked, and nothing was seen."""
        return not (self.sent or self.files or self.error)

    @property
    def sent(self) -> int:
        """Look-ups and connections together."""
        return self.seen.lookups.total() + self.seen.connections.total()

    def __str__(self) -> str:
        lookups, connections = self.seen.lookups.total(), self.seen.connections.total()
        what = "; ".join(text for text in (self.seen.describe(), self.error) if text)
        files = ", ".join(self.files) or "0"
        return f"| {self.name} | {self.seconds:.0f} | {lookups} | {connections} | {files} | {what} |"


class CountedCommands:
    """Runs commands one after another and prints a row for each; ``folder`` holds their homes."""

    def __init__(self, sink: PacketSink, folder: Path) -> None:
        self._sink = sink
        self._folder = folder
        self._log = folder / "log"

    def run(self, name: str, words: Sequence[str], variables: Mapping[str, str] | None = None) -> Row:
        """Run a command to its end."""
        with self._counted(name, variables) as (row, environment):
            process = self._started(words, environment)
            try:
                code = process.wait(_COMMAND_LIMIT_S)
            finally:
                process.kill()
            if code != 0:
                raise RuntimeError(f"exit code {code}: {self._last_words()}")
        return row

    def serve(
        self,
        name: str,
        words: Sequence[str],
        variables: Mapping[str, str] | None = None,
        *,
        seconds: float,
        traffic: str = DIMML_TRAFFIC,
    ) -> Row:
        """Run a server under the traffic of one client, over HTTP and gRPC in turn, for so long; then stop it."""
        with self._counted(name, variables) as (row, environment):
            process = self._started(words, environment)
            try:
                ready = self._ready(process)
                count = _ask(traffic, ready["http"], ready["grpc"], environment, seconds)
                row.name += f", {count} requests"
                process.send_signal(signal.SIGTERM)
                code = process.wait(_STOP_LIMIT_S)
            finally:
                process.kill()
            if code != 0:
                raise RuntimeError(f"exit code {code}: {self._last_words()}")
        return row

    @contextmanager
    def _counted(self, name: str, variables: Mapping[str, str] | None) -> Iterator[tuple[Row, dict[str, str]]]:
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self._folder))
        kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
        row = Row(name)
        self._sink.take()
        begun = time.monotonic()
        try:
            yield row, {**kept, "HOME": str(home), **(variables or {})}
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            row.error = " ".join(str(error).split())[-400:]
        row.seconds = time.monotonic() - begun
        time.sleep(_SETTLE_S)
        row.seen = self._sink.take()
        found = sorted(str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir())
        row.files = [file for file in found if not file.startswith(_EXPECTED_FILES)]
        print(row, flush=True)

    def _started(self, words: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self._folder
            )

    def _ready(self, process: subprocess.Popen[bytes]) -> dict[str, str]:
        end = time.monotonic() + _READY_LIMIT_S
        while time.monotonic() < end and process.poll() is None:
            for line in self._log.read_text(errors="replace").splitlines():
                if line.startswith("ready "):
                    return dict(word.split("=", 1) for word in line.split()[1:])
            time.sleep(0.2)
        raise RuntimeError(f"not ready: {self._last_words()}")

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-300:]


def _ask(traffic: str, http: str, grpc: str, environment: dict[str, str], seconds: float) -> int:
    """Run a client in a process of its own; the number of answers. Raises RuntimeError where a request fails."""
    clips = [str(ROOT / "samples" / name) for name in ("clean_three.mp4", "no_sound.mp4", "no_picture.mp4")]
    words = [sys.executable, "-c", traffic, str(seconds), http, grpc, *clips]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"traffic: {done.stderr[-300:]}")
    return int(done.stdout)
