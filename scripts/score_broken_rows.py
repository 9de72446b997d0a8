"""Score many small recordings of which one in a hundred cannot be opened: every row must come out, on every engine.

    python scripts/score_broken_rows.py --rows 10000 --engine local --repository model_repository

Two in five rows stand in tar shards of a hundred, two in five are files, and one in five is on an HTTP host of this
machine. One in a hundred shards is missing, damaged or no archive, one file in a hundred is missing or damaged, and one
in a hundred rows of hosts names a host where nothing listens, or FTP. `--engine server` starts `dimml serve` for the
run; further options are those of `dimml score`. Exits 1 unless there is a row for each, in order, with the right code.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.web import web

SHARD: Final = 100
#: One broken place in so many.
BROKEN: Final = 100
Rows = list[tuple[str, str | None]]


def tone(number: int) -> bytes:
    """A quarter of a second of a tone, as WAV."""
    out = io.BytesIO()
    wave = 0.3 * np.sin(2 * np.pi * (200 + 5 * (number % 200)) * np.arange(4000) / 16_000)
    soundfile.write(out, wave, 16_000, format="WAV")
    return out.getvalue()


def shards(folder: Path, count: int) -> Iterator[tuple[str, str | None]]:
    for first in range(0, count, SHARD):
        number = first // SHARD
        path = folder / f"shard_{number:04d}.tar"
        members = range(first, min(first + SHARD, count))
        # The first is broken too, so that a short run has one.
        broken = number % BROKEN == 0
        kind = number // BROKEN % 3
        if broken and kind == 0:
            path.write_bytes(b"no archive" * 1000)
        elif not broken or kind == 1:
            with tarfile.open(path, "w") as archive:
                for member in members:
                    entry, content = tarfile.TarInfo(f"{member}.wav"), tone(member)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
            if broken:
                path.write_bytes(path.read_bytes()[:300])
        for member in members:
            yield f"tar://{member}.wav::file://{path}", "unreadable" if broken else None


def files(folder: Path, count: int) -> Iterator[tuple[str, str | None]]:
    for number in range(count):
        path = folder / f"{number:05d}.wav"
        missing, damaged = number % (2 * BROKEN) == 0, number % (2 * BROKEN) == BROKEN
        if not missing:
            path.write_bytes(b"no recording" * 50 if damaged else tone(number))
        yield str(path), "unreadable" if missing else "unusable_media" if damaged else None


def hosted(folder: Path, count: int, address: str) -> Iterator[tuple[str, str | None]]:
    for number in range(50):
        (folder / f"{number}.wav").write_bytes(tone(number))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    for number in range(count):
        if number % BROKEN == 0:
            yield f"{'ftp' if number // BROKEN % 2 else 'http'}://{closed}/{number}.wav", "unreadable"
        else:
            yield f"{address}/{number % 50}.wav", None


@contextlib.contextmanager
def engine_words(engine: str, repository: Path, extra: list[str]) -> Iterator[list[str]]:
    """Options of `dimml score` for an engine; a server runs for the block."""
    if engine != "server":
        yield ["--engine", engine, "--repository", str(repository), *extra]
        return
    words = [sys.executable, "-m", "dimml", "serve", "--repository", str(repository), "--http-port", "0"]
    with subprocess.Popen(
        [*words, "--grpc-port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        ready = next(line for line in server.stdout or () if line.startswith("ready "))
        try:
            yield ["--url", f"http://{ready.split('http=')[1].split()[0]}", *extra]
        finally:
            server.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--engine", choices=("local", "server", "ray"), default="local")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    arguments, extra = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="dimml-broken-") as temporary:
        places = {name: Path(temporary) / name for name in ("shards", "files", "web")}
        for place in places.values():
            place.mkdir()
        with web(places["web"]) as address:
            in_shards, in_files = 2 * arguments.rows // 5, 2 * arguments.rows // 5
            rows: Rows = [
                *shards(places["shards"], in_shards),
                *files(places["files"], in_files),
                *hosted(places["web"], arguments.rows - in_shards - in_files, address),
            ]
            manifest, out = Path(temporary) / "rows.csv", Path(temporary) / "scores.parquet"
            with manifest.open("w", newline="") as file:
                csv.writer(file).writerows([["path"], *([place] for place, _ in rows)])
            with engine_words(arguments.engine, arguments.repository, extra) as words:
                began = time.monotonic()
                command = [sys.executable, "-m", "dimml", "score", str(manifest), "--out", str(out), "--quiet", *words]
                code = subprocess.run(command, check=False).returncode
                seconds = time.monotonic() - began
        found = pq.read_table(out).to_pylist() if out.exists() else []
    wrong = sum((row["path"], row["error"]) != expected for row, expected in zip(found, rows, strict=False)) + abs(
        len(rows) - len(found)
    )
    counts = dict(Counter(row["error"] or "answered" for row in found))
    print(
        json.dumps(
            {
                "engine": arguments.engine,
                "rows": len(rows),
                "rows_out": len(found),
                "wrong": wrong,
                "counts": counts,
                "exit_code": code,
                "seconds": round(seconds, 1),
            }
        )
    )
    return int(wrong > 0 or code != 3)


if __name__ == "__main__":
    sys.exit(main())
