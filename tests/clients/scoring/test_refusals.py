"""What ``dimml score`` cannot do is one clear line, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.scoring import SAMPLES, command, finished, rows_of, score

pytestmark = pytest.mark.timeout(300)
CLIP = str(SAMPLES / "clean_five.mp4")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{empty}"], "no recordings in"),
        (["{empty}/*.mp4"], "no recordings in"),
        (["{tables}"], "no recordings in"),
        (["{empty}/none.csv"], "cannot read the manifest"),
        (["s4://bucket/clip.mp4"], "s4"),
        ([CLIP, "--repository", "{empty}"], "holds no bundle"),
        ([CLIP, "--model", "other"], "other"),
        ([CLIP, "--version", "7"], "7"),
        (
            [CLIP, "--out", "s3://bucket/scores.parquet"],
            "--out s3://bucket/scores.parquet: the table is written on this",
        ),
        ([CLIP, "--out", "{empty}/scores.txt"], ".parquet, .jsonl, .csv"),
        ([CLIP, "--out", "{empty}/nosuch/scores.parquet"], "No such file"),
        ([CLIP, "--out", "/proc/scores.parquet"], "cannot write /proc/scores.parquet"),
        ([CLIP, "--out", "/sys/scores.parquet"], "cannot write /sys/scores.parquet"),
        ([CLIP, "--out", "{other}"], "was not written by dimml score"),
        ([CLIP, "--out", "{empty}.jsonl"], "was not written by dimml score"),
        ([str(SAMPLES / "samples.csv")], "has no column 'path'"),
        ([str(SAMPLES / "samples.csv"), "--column", "path=nosuch"], "has no column 'nosuch'"),
        (["{twice}"], "line 3 of {twice} has the id 'a' of line 2"),
        (["{foreign}"], "'smell' is not a modality of the bundle, which has audio, visual"),
        ([CLIP, "--engine", "server", "--url", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
    ],
)
def test_what_cannot_work_is_one_clear_line(
    *, tiny_repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    places = {name: tmp_path / name for name in ("empty", "tables", "other.parquet", "twice.csv", "foreign.csv")}
    places["empty"].mkdir()
    places["tables"].mkdir()
    (places["tables"] / "a.csv").write_text("path\n")
    (tmp_path / "empty.jsonl").write_text("{}\n")
    pq.write_table(pa.table({"a": [1]}), places["other.parquet"])
    places["twice.csv"].write_text("id,path\na,red_000.mp4\na,blue_002.mp4\n")
    places["foreign.csv"].write_text("path_smell\nx.mp4\n")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    named = {name.partition(".")[0]: path for name, path in places.items()}
    given = [word.format(**named) for word in words]
    repository = tiny_repository
    if "--repository" in given:
        repository = Path(given.pop())
        given.pop()
    if "--out" not in given:
        given += ["--out", str(places["empty"] / "scores.parquet")]
    assert score(*given, repository=repository) == 1
    stderr = capsys.readouterr().err
    assert said.format(**named) in stderr
    assert stderr.startswith("error: ")
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["--fail-on", "sometimes"], "--fail-on"),
        (["--window", "0"], "--window"),
        (["--window", "nan"], "--window"),
        (["--stride", "1"], "--stride"),
        (["--aggregate", "mean"], "--aggregate"),
        (["--window", "1", "--aggregate", "median"], "--aggregate"),
        (["--engine", "spark"], "--engine"),
        (["--engine", "server"], "--url"),
        (["--engine", "local", "--url", "http://127.0.0.1:9"], "--url"),
        (["--report", "page.html"], "--report"),
        (["--cores", "0"], "--cores"),
        (["--url", "http://127.0.0.1:9", "--window", "1"], "--window"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], option: str
) -> None:
    assert score(CLIP, "--out", tmp_path / "t.csv", *words) == 2
    assert option in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_other_inputs_or_of_other_settings_is_not_touched(
    tiny_repository: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, clip = tmp_path / "t.parquet", mixed / "red_000.mp4"
    assert score(clip, "--out", out, "-q", repository=tiny_repository) == 0
    before = out.read_bytes()
    for words, said in (
        ([mixed / "blue_002.mp4"], "other inputs"),
        ([clip, "--window", "1"], "settings.window was None"),
        ([clip, "--column", "path=p", clip], "other inputs"),
    ):
        assert score(*words, "--out", out, repository=tiny_repository) == 1
        assert said in capsys.readouterr().err
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow(reason="scores in a process of its own, then here")
@pytest.mark.parametrize("room", [9_000, 30_000])
def test_a_full_disk_leaves_what_is_whole(tiny_repository: Path, mixed: Path, tmp_path: Path, room: int) -> None:
    """A limit on file sizes stands in for the disk: writing fails in the same place. With the larger one, parts fit,
    and the table does not."""
    out = tmp_path / "scores.parquet"
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); "
    words = command(mixed, "--out", out, repository=tiny_repository, before=limit)
    full = finished(words)
    assert full.returncode == 1
    assert f"cannot write {out}" in full.stderr
    assert "the same command goes on from there" in full.stderr
    assert "Traceback" not in full.stderr
    assert not out.exists()
    assert score(mixed, "--out", out, "-q", repository=tiny_repository) == 3
    assert len(rows_of(out)) == 51
    assert list(tmp_path.iterdir()) == [out]
