"""The engines of ``dimml score`` give the same table: this process, a server over both transports, Ray."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from dimml.errors import UnavailableError
from dimml.media.types import DecodeRequest
from dimml.media.workers.pool import DecodePool
from dimml_client.scoring.engines.local import LocalEngine
from dimml_client.scoring.engines.protocol import Room
from dimml_client.scoring.engines.remote import ServerEngine
from dimml_client.scoring.inputs.listing import Listing, list_inputs
from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.report.html import write_report
from dimml_client.scoring.report.metrics import judge_table
from dimml_client.scoring.run.reorder_buffer import ReorderBuffer
from dimml_client.scoring.run.score_table import score_table
from dimml_client.scoring.table.rows import Row
from support import faulty_decoders
from support.server_process import ServerProcess, running_server
from support.web import web


@pytest.fixture(scope="module")
def wanted(tiny_repository: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The local engine's table."""
    out = tmp_path_factory.mktemp("wanted") / "t.parquet"
    score_table(LocalEngine(tiny_repository, cores=2), list_inputs([str(mixed)], {}, None), out)
    return comparable(out)


@pytest.fixture(scope="module")
def server(tiny_repository: Path) -> Iterator[ServerProcess]:
    # Hardly any room, so that requests are turned away and have to come again.
    with running_server(tiny_repository, concurrency=1, queue_length=1) as running:
        yield running


def comparable(path: Path, leave_out: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows without what may differ; numbers to 5 places: the make-up of batches moves the last bits."""
    rows = pq.read_table(path).to_pylist()
    return [
        {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k not in ("ms", *leave_out)}
        for row in rows
    ]


def test_a_server_gives_the_same_table_though_it_turns_requests_away(
    server: ServerProcess, mixed: Path, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "t.parquet"
    engine = ServerEngine(server.url, in_flight=6)
    score_table(engine, list_inputs([str(mixed)], {}, None), out)
    assert comparable(out) == wanted
    assert engine.bundle.sha256 is not None


def test_over_grpc_only_the_votes_of_single_modalities_and_the_stretch_are_missing(
    server: ServerProcess, mixed: Path, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "t.parquet"
    score_table(ServerEngine(f"grpc://{server.grpc}", in_flight=4), list_inputs([str(mixed)], {}, None), out)
    missing = (
        *("start_s", "end_s", "message"),
        *(f"{m}_{what}" for m in ("audio", "visual") for what in ("label", "probability")),
    )
    found = comparable(out, missing)
    assert found == [{k: v for k, v in row.items() if k not in missing} for row in wanted]


def test_a_server_that_is_gone_ends_the_run_and_the_rows_stay(
    tiny_repository: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dimml_client.scoring.engines.remote.RETURN_S", 1.0)
    out = tmp_path / "t.parquet"
    with running_server(tiny_repository, stop=False) as running:
        engine = ServerEngine(running.url, in_flight=2)
        running.process.terminate()
        running.process.wait(30)
        with pytest.raises(UnavailableError, match="did not come back"):
            score_table(engine, list_inputs([str(mixed)], {}, None), out)
    assert not out.exists()
    with pytest.raises(UnavailableError):
        ServerEngine(running.url, in_flight=2)


class _AllAtOnce:
    """A real engine that has read every recording before its first row, as Ray's does; SIGINT comes after some rows."""

    takes_all_at_once = True

    def __init__(self, engine: LocalEngine, rows: int) -> None:
        self.bundle, self.settings = engine.bundle, engine.settings
        self._engine, self._rows = engine, rows

    def __enter__(self) -> Self:
        self._engine.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._engine.__exit__(*error)

    def score(self, recordings: Iterable[Recording], room: Room) -> Generator[Scored, None, None]:
        taken = list(recordings)
        for number, one in enumerate(sorted(self._engine.score(taken), key=lambda scored: scored.index)):
            if number == self._rows:
                os.kill(os.getpid(), signal.SIGINT)
            yield one


def test_a_stop_gives_up_an_engine_that_has_taken_everything(
    tiny_repository: Path, mixed: Path, wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "t.parquet"
    listing = list_inputs([str(mixed)], {}, None)
    stopped = score_table(_AllAtOnce(LocalEngine(tiny_repository, cores=2), 7), listing, out)
    assert (stopped.complete, stopped.done) == (False, 8)
    assert not out.exists()
    done = score_table(LocalEngine(tiny_repository, cores=2), listing, out)
    assert (done.complete, done.first) == (True, 8)
    assert comparable(out) == wanted


@pytest.fixture
def named(mixed: Path, tmp_path: Path) -> Callable[[list[str]], Listing]:
    """Makes recordings of these names, which are one good clip."""

    def make(names: list[str]) -> Listing:
        (clip,) = mixed.glob("*_000.mp4")
        for name in names:
            (tmp_path / f"{name}.mp4").symlink_to(clip)
        return list_inputs([str(tmp_path)], {}, None)

    return make


def test_recordings_that_are_decoded_together_do_not_cost_one_another(
    tiny_repository: Path, named: Callable[[list[str]], Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kills the worker amid quick ones, others are slow amid them; each has its row and the rest have theirs."""
    names = [f"{number:02d}{'_kills' * (number == 30)}{'_slow' * (number in (12, 45))}" for number in range(60)]
    together: list[list[str]] = []
    several = DecodePool.decode_several

    def noted(pool: DecodePool, requests: Sequence[DecodeRequest], **limits: float) -> Any:
        together.append([str(source) for request in requests for source in request.sources.values()])
        return several(pool, requests, **limits)

    monkeypatch.setattr(DecodePool, "decode_several", noted)
    monkeypatch.setattr(
        "dimml_client.scoring.engines.local.SEVERAL_S", 1.0
    )  # Also on a machine that has much else to do.
    listing = named(names)
    engine = LocalEngine(tiny_repository, cores=2, decode_function=faulty_decoders.killed_by_a_name)
    with engine:
        scored = list(engine.score(listing.recordings()))
    rows = {one.index: dict(one.row) for one in scored}
    assert len(scored) == len(rows) == 60
    assert [Path(str(rows[index]["path"])).stem for index in sorted(rows)] == names
    for index, row in rows.items():
        assert row.get("error") == (None if index != 30 else "unusable_media")
    assert rows[30]["audio_status"] == rows[30]["visual_status"] == "unusable:decoder_crashed"
    assert any("kills" in source for sources in together for source in sources)
    assert float(str(rows[12]["ms"])) > 150.0


def test_what_is_given_back_never_waits_for_what_comes_after_it(
    tiny_repository: Path, named: Callable[[list[str]], Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hardly any room ahead of the first recording that is not done, which is in turn a slow one."""
    monkeypatch.setattr("dimml_client.scoring.engines.local.SEVERAL_S", 1.0)
    listing = named([f"{number:02d}{'_slow' * (number % 7 in (3, 4))}" for number in range(42)])
    order = ReorderBuffer(0, recordings_ahead=2)
    given: list[Row] = []
    with LocalEngine(tiny_repository, cores=3, decode_function=faulty_decoders.killed_by_a_name) as engine:
        for one in engine.score(listing.recordings(), order.room):
            given += [row for row, _ in order.take(one)]
    assert [row["path"] for row in given] == [recording.path for recording in listing.recordings()]


def test_recordings_in_stores(tiny_repository: Path, mixed: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in mixed.glob("[a-z]*.mp4"):
        memory.pipe(f"/lake/{path.name}", path.read_bytes())
    out = tmp_path / "t.parquet"
    with web(mixed) as address:
        names = ["memory://lake", f"file://{mixed}/red_*.mp4", f"{address}/blue_002.mp4", f"{address}/gone.mp4"]
        listing = list_inputs([*names, "memory://lake/gone.mp4"], {}, None)
        score_table(LocalEngine(tiny_repository, cores=2), listing, out)
    rows = pq.read_table(out).to_pylist()
    labels = [row["label"] for row in rows]
    assert len(rows) == 41 + 14 + 3
    assert labels[:41] == [Path(row["path"]).name.split("_")[0] for row in rows[:41]]
    assert labels[41:55] == ["red"] * 14
    assert (labels[55], [row["error"] for row in rows[56:]]) == ("blue", ["unreadable"] * 2)


def test_labels_in_a_manifest_are_judged(tiny_repository: Path, mixed: Path, tmp_path: Path) -> None:
    """Against counts by hand: 41 right ones, a wrong label, an unknown one, and one without an answer."""
    lines = [f"{path.name},{path.name.split('_')[0]}" for path in sorted(mixed.glob("[a-z]*.mp4"))]
    lines += ["red_000.mp4,blue", "red_003.mp4,<script>", "bad/empty.mp4,red"]
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,label\n" + "\n".join(lines) + "\n")
    out, page = tmp_path / "t.parquet", tmp_path / "report.html"
    score_table(LocalEngine(tiny_repository, cores=2), list_inputs([str(manifest)], {}, str(mixed)), out)
    found = judge_table(out)
    assert (found.rows, found.errors, dict(found.unknown)) == (44, 1, {"<script>": 1})
    answer = found.voters["answer"]
    assert (answer.rows, answer.accuracy) == (43, pytest.approx(41 / 43))
    red = next(row for row in answer.per_class() if row[0] == "red")
    assert red[1:4] == (14, 1.0, pytest.approx(14 / 15))
    rows = [row for row in pq.read_table(out).to_pylist() if row["error"] is None]
    confidence = np.array([row["probability"] for row in rows])
    right = np.array([row["label"] == row["truth"] for row in rows])
    bins = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(abs((confidence - right)[bins == k].sum()) for k in range(15)) / len(rows)
    assert answer.ece == pytest.approx(ece)
    csv = tmp_path / "t.csv"
    score_table(LocalEngine(tiny_repository, cores=2), list_inputs([str(manifest)], {}, str(mixed)), csv)
    for name, one in judge_table(csv).voters.items():
        assert (one.rows, one.accuracy) == (found.voters[name].rows, found.voters[name].accuracy)
    write_report(found, out, page)
    text = page.read_text()
    assert "95.3 %" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
