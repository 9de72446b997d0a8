"""The engines of ``dimml score`` give the same table: this process, a server over both transports, Ray."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from dimml.errors import UnavailableError
from dimml_client.scoring.inputs import list_inputs
from dimml_client.scoring.judging import judge_table
from dimml_client.scoring.local import LocalEngine
from dimml_client.scoring.remote import ServerEngine
from dimml_client.scoring.report import write_report
from dimml_client.scoring.run import score_table
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, made = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("made")
    by_label = [tiny_clip(made, label) for label in range(3)]
    for number in range(20):
        (folder / f"{LABELS[number % 3]}_{number:03d}.mp4").write_bytes(by_label[number % 3])
    (folder / "x_no_sound.mp4").write_bytes(tiny_clip(made, 2, sound=None))
    (folder / "y_text.mp4").write_bytes(b"no recording" * 60)
    (folder / "z_empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def wanted(repository: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The local engine's table."""
    out = tmp_path_factory.mktemp("wanted") / "t.parquet"
    score_table(LocalEngine(repository, cores=2), list_inputs([str(clips)], {}, None), out)
    return comparable(out)


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    # Hardly any room, so that requests are turned away and have to come again.
    with running_server(repository, concurrency=1, queue_length=1) as running:
        yield running


def comparable(path: Path, leave_out: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows without what may differ; numbers to 5 places: the make-up of batches moves the last bits."""
    rows = pq.read_table(path).to_pylist()
    return [
        {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k not in ("ms", *leave_out)}
        for row in rows
    ]


def test_the_local_engine_names_what_it_saw(wanted: list[dict[str, Any]]) -> None:
    assert [row["label"] for row in wanted[:20]] == [Path(row["path"]).name.split("_")[0] for row in wanted[:20]]
    assert [row["error"] for row in wanted[20:]] == [None, "unusable_media", "unusable_media"]


def test_a_server_gives_the_same_table_though_it_turns_requests_away(
    server: ServerProcess, clips: Path, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "t.parquet"
    engine = ServerEngine(server.url, in_flight=6)
    score_table(engine, list_inputs([str(clips)], {}, None), out)
    assert comparable(out) == wanted
    assert engine.bundle.sha256 is not None


def test_over_grpc_only_the_votes_of_single_modalities_and_the_stretch_are_missing(
    server: ServerProcess, clips: Path, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "t.parquet"
    score_table(ServerEngine(f"grpc://{server.grpc}", in_flight=4), list_inputs([str(clips)], {}, None), out)
    missing = (
        *("start_s", "end_s", "message"),
        *(f"{m}_{what}" for m in ("audio", "visual") for what in ("label", "probability")),
    )
    found = comparable(out, missing)
    assert found == [{k: v for k, v in row.items() if k not in missing} for row in wanted]


def test_a_server_that_is_gone_ends_the_run_and_the_rows_stay(
    repository: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dimml_client.scoring.remote.RETURN_S", 1.0)
    out = tmp_path / "t.parquet"
    with running_server(repository, stop=False) as running:
        engine = ServerEngine(running.url, in_flight=2)
        running.process.terminate()
        running.process.wait(30)
        with pytest.raises(UnavailableError, match="did not come back"):
            score_table(engine, list_inputs([str(clips)], {}, None), out)
    assert not out.exists()
    with pytest.raises(UnavailableError):
        ServerEngine(running.url, in_flight=2)


@contextlib.contextmanager
def web(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_recordings_in_stores(repository: Path, clips: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in clips.iterdir():
        memory.pipe(f"/lake/{path.name}", path.read_bytes())
    out = tmp_path / "t.parquet"
    with web(clips) as address:
        names = ["memory://lake", f"file://{clips}/red_*.mp4", f"{address}/blue_002.mp4", f"{address}/gone.mp4"]
        listing = list_inputs([*names, "memory://lake/gone.mp4"], {}, None)
        score_table(LocalEngine(repository, cores=2), listing, out)
    rows = pq.read_table(out).to_pylist()
    labels = [row["label"] for row in rows]
    assert len(rows) == 23 + 7 + 3
    assert labels[:20] == [Path(row["path"]).name.split("_")[0] for row in rows[:20]]
    assert labels[23:30] == ["red"] * 7
    assert (labels[30], [row["error"] for row in rows[31:]]) == ("blue", ["unreadable"] * 2)


def test_labels_in_a_manifest_are_judged(repository: Path, clips: Path, tmp_path: Path) -> None:
    """Against counts by hand: 20 right ones, a wrong label, an unknown one, and one without an answer."""
    lines = [f"{path.name},{path.name.split('_')[0]}" for path in sorted(clips.glob("[a-w]*.mp4"))]
    lines += ["red_000.mp4,blue", "red_003.mp4,<script>", "z_empty.mp4,red"]
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\n" + "\n".join(lines) + "\n")
    out, page = tmp_path / "t.parquet", tmp_path / "report.html"
    score_table(LocalEngine(repository, cores=2), list_inputs([str(manifest)], {}, str(clips)), out)
    found = judge_table(out)
    assert (found.rows, found.errors, dict(found.unknown)) == (23, 1, {"<script>": 1})
    answer = found.voters["answer"]
    assert (answer.rows, answer.accuracy) == (22, pytest.approx(20 / 22))
    red = next(row for row in answer.per_class() if row[0] == "red")
    assert red[1:4] == (7, 1.0, pytest.approx(7 / 8))
    rows = [row for row in pq.read_table(out).to_pylist() if row["error"] is None]
    confidence = np.array([row["probability"] for row in rows])
    right = np.array([row["label"] == row["truth"] for row in rows])
    bins = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(abs((confidence - right)[bins == k].sum()) for k in range(15)) / len(rows)
    assert answer.ece == pytest.approx(ece)
    write_report(found, out, page)
    text = page.read_text()
    assert "90.9 %" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
