"""``dimml score`` over good and bad recordings: a row for each, as `LocalPredictor` answers; formats, exit codes."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dimml.errors import UnusableMediaError
from dimml.repository import load_bundle
from dimml_client.scoring.schema import ScoredBundle, table_schema
from dimml_server.local import LocalPredictor
from support.data import REPOSITORY_ROOT
from support.scoring import LIMIT_S, REPOSITORY, SAMPLES, rows_of, score, score_here

pytestmark = pytest.mark.timeout(300)
GOOD = ["clean_five.mp4", "no_sound.mp4", "silent_sound.mp4", "spoken_nine.wav", "written_nine.png"]
BAD = {
    "broken.mp4": "unusable_media",
    "empty.mp4": "unusable_media",
    "text.mp4": "unusable_media",
    "wrong_kind.zip": "unusable_media",
    "gone.mp4": "unreadable",
    "loop.mp4": "unreadable",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad recordings, and what lies beside recordings and is none."""
    made = tmp_path_factory.mktemp("mixed")
    for name in [*GOOD, "broken.mp4"]:
        shutil.copy(SAMPLES / name, made)
    (made / "empty.mp4").touch()
    (made / "text.mp4").write_text("this is no recording\n" * 50)
    (made / "wrong_kind.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (made / "gone.mp4").symlink_to(made / "nowhere")
    (made / "loop.mp4").symlink_to(made / "loop.mp4")
    (made / ".hidden.mp4").touch()
    (made / "notes.csv").write_text("a,b\n")
    return made


@pytest.fixture(scope="module")
def scored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("out") / "table.parquet"
    return out, score(folder, "--out", out, "--json")


def test_a_mixed_folder_gives_a_row_for_each_in_order_and_exit_code_3(folder: Path, scored: tuple[Path, Any]) -> None:
    out, done = scored
    assert done.returncode == 3, done.stderr
    rows = rows_of(out)
    assert [Path(row["path"]).name for row in rows] == sorted([*GOOD, *BAD])
    errors = {Path(row["path"]).name: row["error"] for row in rows}
    assert errors == {**dict.fromkeys(GOOD), **BAD}
    assert all(row["message"] for row in rows if row["error"])
    summary = json.loads(done.stdout)
    assert (summary["complete"], summary["rows"], summary["answered"]) == (True, 11, 5)
    assert summary["errors"] == {"unusable_media": 4, "unreadable": 2}
    assert list(out.parent.iterdir()) == [out]


def test_rows_say_what_the_local_predictor_says(folder: Path, scored: tuple[Path, Any]) -> None:
    labels = load_bundle(REPOSITORY, "avdigits").labels
    with LocalPredictor(REPOSITORY) as predictor:
        for row in rows_of(scored[0]):
            path = Path(row["path"])
            if path.name in GOOD:
                answer = predictor.predict(path, top_k=len(labels))
                assert (row["label"], row["degraded"]) == (answer.label, answer.degraded)
                assert (row["start_s"], row["end_s"]) == (answer.start_s, answer.end_s)
                found = [row[f"probability_{one.label}"] for one in answer.predictions]
                assert found == pytest.approx([one.probability for one in answer.predictions], abs=1e-5)
                for name, own in answer.modalities.items():
                    assert row[f"{name}_status"] == str(own.modality_status)
                    assert row[f"{name}_label"] == own.label
                    assert row[f"{name}_weight"] == pytest.approx(own.weight, abs=1e-5)
                    assert row[f"{name}_certainty"] == (
                        None if own.certainty is None else pytest.approx(own.certainty, abs=1e-5)
                    )
            elif BAD[path.name] == "unusable_media":
                with pytest.raises(UnusableMediaError) as caught:
                    predictor.predict(path)
                assert row["message"] == caught.value.message
                for name, status in caught.value.statuses.items():
                    assert row[f"{name}_status"] == str(status)


def test_the_file_names_the_schema_the_bundle_and_the_settings(scored: tuple[Path, Any]) -> None:
    schema = pq.read_schema(scored[0])
    bundle = load_bundle(REPOSITORY, "avdigits")
    assert schema.equals(table_schema(ScoredBundle.of(bundle)))
    about = json.loads(schema.metadata[b"dimml"])
    assert about["schema_version"] == 1
    assert about["bundle"]["name"] == "avdigits"
    assert about["bundle"]["sha256"] == bundle.sha256
    assert about["settings"]["max_seconds"] == 120.0
    assert about["summary"]["rows"] == 11


def test_every_column_stands_in_the_docs() -> None:
    page = (REPOSITORY_ROOT / "docs" / "scoring.md").read_text()
    names = table_schema(ScoredBundle("b", 1, ("L",), ("M",), True, "0"), ["M"], truth=True).names
    for name in names:
        assert f"`{name.replace('_L', '_<class>').replace('M', '<modality>')}`" in page, name


@pytest.mark.parametrize(("fail_on", "code"), [("error", 3), ("degraded", 3), ("never", 0)])
def test_a_whole_table_is_left_alone_and_told_again(
    folder: Path, scored: tuple[Path, Any], capsys: pytest.CaptureFixture[str], fail_on: str, code: int
) -> None:
    out, first = scored
    before = out.stat()
    assert score_here(folder, "--out", out, "--json", "--fail-on", fail_on) == code
    assert out.stat().st_mtime_ns == before.st_mtime_ns
    again, told = json.loads(capsys.readouterr().out), json.loads(first.stdout)
    assert again["done_before"] == 11
    assert {n: again[n] for n in ("rows", "errors", "statuses")} == {n: told[n] for n in ("rows", "errors", "statuses")}


def test_degraded_alone_fails_where_that_was_asked_and_formats_say_the_same(tmp_path: Path) -> None:
    clips = [SAMPLES / "clean_five.mp4", SAMPLES / "no_sound.mp4"]
    codes = {
        ending: score(*clips, "--out", tmp_path / f"t.{ending}", "--quiet", "--fail-on", fail_on)
        for ending, fail_on in (("parquet", "error"), ("jsonl", "degraded"), ("csv", "never"))
    }
    assert [done.returncode for done in codes.values()] == [0, 3, 0]
    assert all(done.stdout == done.stderr == "" for done in codes.values())
    parquet = rows_of(tmp_path / "t.parquet")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    with (tmp_path / "t.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    assert len(parquet) == len(lines) == len(texts) == 2
    for row, line, text in zip(parquet, lines, texts, strict=True):
        assert list(row) == list(line) == list(text)
        assert row["label"] == line["label"] == text["label"]
        assert row["audio_status"] == line["audio_status"] == text["audio_status"]
        assert float(text["probability"]) == pytest.approx(row["probability"], abs=1e-5)
    for ending in ("jsonl", "csv"):
        assert json.loads((tmp_path / f"t.{ending}.meta.json").read_text())["bundle"]["name"] == "avdigits"


def test_a_manifest_brings_ranges_ids_and_labels(tmp_path: Path) -> None:
    done = score(SAMPLES / "samples.csv", "--column", "path=file", "--out", tmp_path / "t.parquet", "--json")
    assert done.returncode == 3, done.stderr
    rows = rows_of(tmp_path / "t.parquet")
    with (SAMPLES / "samples.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert len(rows) == len(listed)
    for row, line in zip(rows, listed, strict=True):
        assert (row["label"] or "", row["truth"] or "") == (line["label"], line["label"])
        assert (row["audio_status"], row["visual_status"]) == (line["audio"], line["visual"])
    assert len({row["id"] for row in rows}) == len(rows)


def test_refusals_name_what_is_wrong_and_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, mine = SAMPLES / "clean_five.mp4", tmp_path / "mine.parquet"
    mine.write_text("somebody's")
    (tmp_path / "empty").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    for words, named in (
        ((clip, "--out", mine), "was not written by dimml score"),
        ((clip, "--out", tmp_path / "t.xlsx"), ".parquet, .jsonl, .csv"),
        ((clip, "--out", tmp_path / "no" / "t.parquet"), "No such file or directory"),
        ((clip, "--out", "/sys/t.parquet"), "cannot write /sys/t.parquet"),
        ((tmp_path / "empty", "--out", tmp_path / "t.parquet"), "no recordings in"),
        ((clip, "--model", "other", "--out", tmp_path / "t.parquet"), "other"),
    ):
        assert score_here(*words) == 1
        stderr = capsys.readouterr().err
        assert named in stderr, stderr
        assert stderr.startswith("error: "), stderr
    assert mine.read_text() == "somebody's"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_table_of_other_inputs_is_not_touched(scored: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    before = scored[0].read_bytes()
    assert score_here(SAMPLES / "clean_five.mp4", "--out", scored[0]) == 1
    assert scored[0].read_bytes() == before
    assert "other inputs" in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score_here(SAMPLES, "--out", tmp_path / "t.csv", "--fail-on", "sometimes") == 2
    assert "--fail-on" in capsys.readouterr().err


def test_a_disk_that_takes_no_more_is_an_error_with_a_way_on(tmp_path: Path) -> None:
    words = ["score", str(SAMPLES / "clean_five.mp4"), "--out", str(tmp_path / "t.parquet"), "--quiet"]
    command = [sys.executable, "-m", "dimml", *words, "--repository", str(REPOSITORY)]
    # Room for the inputs, not for a part.
    limit = 5_000
    full = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),  # no threads here
    )
    assert full.returncode == 1, full.stderr
    assert "cannot write" in full.stderr
    assert "the same command goes on" in full.stderr
    assert not (tmp_path / "t.parquet").exists()
    assert subprocess.run(command, check=False, timeout=LIMIT_S).returncode == 0
    assert [row["label"] for row in rows_of(tmp_path / "t.parquet")] == ["five"]
