"""``dimml score``: one row for every input, in order, whatever the input; formats, exit codes, resuming, refusals."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dimml_client.scoring.parts import folder_of
from dimml_server.local import LocalPredictor
from support.data import REPOSITORY_ROOT
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip

SAMPLES = REPOSITORY_ROOT / "samples"
#: How many good clips the folder has; enough for several batches.
GOOD = 40


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good clips whose name begins with their label, and one bad one of every kind."""
    folder, made = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("made")
    by_label = [tiny_clip(made, label) for label in range(3)]
    for number in range(GOOD):
        (folder / f"{LABELS[number % 3]}_{number:03d}.mp4").write_bytes(by_label[number % 3])
    (folder / "blue_without_sound.mp4").write_bytes(tiny_clip(made, 2, sound=None))
    bad = folder / "bad"
    bad.mkdir()
    (bad / "empty.mp4").write_bytes(b"")
    (bad / "text.mp4").write_bytes(b"this is no recording" * 50)
    (bad / "cut.mp4").write_bytes(by_label[0][:400])
    (bad / "long.wav").write_bytes(_silent_wav(seconds=200))
    (bad / "silent.mp4").write_bytes(tiny_clip(made, 1, sound="silence", picture="black"))
    (bad / "gone.mp4").symlink_to("nowhere")
    os.mkfifo(bad / "pipe.mp4")
    (folder / "notes.csv").write_text("not,a,recording\n")
    (folder / ".hidden.mp4").write_bytes(by_label[0])
    return folder


CODES = {
    "empty.mp4": "unusable_media",
    "text.mp4": "unusable_media",
    "cut.mp4": "unusable_media",
    "long.wav": "too_large",
    "silent.mp4": "unusable_media",
    "gone.mp4": "unreadable",
    "pipe.mp4": "unreadable",
}


def _silent_wav(seconds: int) -> bytes:
    size = 8000 * seconds
    head = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    layout = b"\x01\x00\x01\x00" + (8000).to_bytes(4, "little") * 2 + b"\x01\x00\x08\x00"
    return head + layout + b"data" + size.to_bytes(4, "little") + b"\x80" * size


def score(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dimml", "score", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=100,
    )


def table(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def same_but_for_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Numbers to 5 places: the make-up of batches moves the last bits."""
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items() if k != "ms"} for row in rows]


def test_a_mixed_folder_has_a_row_for_every_file_in_order(repository: Path, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    done = score(clips, "--repository", repository, "--out", out, "--json")
    assert done.returncode == 3, done.stderr
    rows = table(out)
    assert len(rows) == GOOD + 1 + len(CODES)
    assert [row["id"] for row in rows[: GOOD + 1]] == sorted(map(str, clips.glob("[a-z]*.mp4")))
    for row in rows[: GOOD + 1]:
        assert row["label"] == Path(row["path"]).name.split("_")[0]
        assert row["error"] is None
        assert sum(row[f"probability_{label}"] for label in LABELS) == pytest.approx(1.0, abs=1e-5)
    without_sound = next(row for row in rows if row["path"].endswith("without_sound.mp4"))
    assert (without_sound["audio_status"], without_sound["degraded"]) == ("absent:no_track", True)
    assert {Path(row["path"]).name: row["error"] for row in rows[GOOD + 1 :]} == CODES
    assert all(row["message"] and row["label"] is None for row in rows[GOOD + 1 :])
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["answered"], summary["degraded"]) == (len(rows), GOOD + 1, 1)
    assert summary["errors"] == {"unusable_media": 4, "unreadable": 2, "too_large": 1}
    assert not folder_of(out).exists()
    again = score(clips, "--repository", repository, "--out", out, "--fail-on", "never")
    assert (again.returncode, "whole already" in again.stderr) == (0, True)


def test_a_row_says_what_a_single_prediction_says(tmp_path: Path) -> None:
    repository, out = REPOSITORY_ROOT / "model_repository", tmp_path / "scores.parquet"
    assert score(SAMPLES, "--repository", repository, "--out", out, "-q").returncode == 3
    rows = {Path(row["path"]).name: row for row in table(out)}
    with LocalPredictor(repository) as predictor:
        for name in ("clean_three.mp4", "no_sound.mp4", "written_nine.png", "noisy_sound.mp4"):
            answer, row = predictor.predict(SAMPLES / name, top_k=10), rows[name]
            assert (row["label"], row["degraded"]) == (answer.label, answer.degraded)
            assert (row["start_s"], row["end_s"]) == (answer.start_s, answer.end_s)
            for one in answer.predictions:
                assert row[f"probability_{one.label}"] == pytest.approx(one.probability, abs=1e-5)
            for modality, own in answer.modalities.items():
                assert row[f"{modality}_status"] == str(own.modality_status)
                assert row[f"{modality}_label"] == own.label
                assert row[f"{modality}_weight"] == pytest.approx(own.weight, abs=1e-5)
                assert row[f"{modality}_certainty"] == pytest.approx(own.certainty, abs=1e-5)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_other_formats_hold_the_same(repository: Path, clips: Path, tmp_path: Path, ending: str) -> None:
    few = [clips / "red_000.mp4", clips / "bad" / "text.mp4"]
    for end in ("parquet", ending):
        assert score(*few, "--repository", repository, "--out", tmp_path / f"t.{end}", "-q").returncode == 3
    wanted = same_but_for_time(table(tmp_path / "t.parquet"))
    text = (tmp_path / f"t.{ending}").read_text()
    if ending == "jsonl":
        assert same_but_for_time([json.loads(line) for line in text.splitlines()]) == wanted
    else:
        for row, cells in zip(wanted, csv.DictReader(text.splitlines()), strict=True):
            assert list(cells) == [*list(row), "ms"]
            for name, value in row.items():
                text_of = {None: "", True: "true", False: "false"}
                if isinstance(value, float):
                    assert float(cells[name]) == pytest.approx(value, abs=2e-5)
                else:
                    assert cells[name] == (text_of[value] if value is None or isinstance(value, bool) else str(value))
    metadata = json.loads((tmp_path / f"t.{ending}.meta.json").read_text())
    assert metadata["bundle"]["sha256"] == _bundle_hash(tmp_path / "t.parquet")


def _bundle_hash(path: Path) -> str:
    return str(json.loads(pq.read_schema(path).metadata[b"dimml"])["bundle"]["sha256"])


def killed_after_a_part(command: list[str], out: Path, parts: int) -> None:
    """Run ``command`` and kill it with SIGKILL once there are so many whole parts."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60.0
    while len(list(folder_of(out).glob("part-*.parquet"))) < parts and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    process.kill()
    process.wait()


#: ``dimml`` with a part for every few rows, so that there is something to be killed between.
SMALL_PARTS = (
    "import sys; import dimml_client.scoring.parts as p; p.ROWS_PER_PART = 3; "
    "from dimml.cli import main; sys.exit(main(sys.argv[1:]))"
)


def test_killed_and_started_again_it_loses_and_repeats_nothing(repository: Path, clips: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    assert score(clips, "--repository", repository, "--out", whole, "-q").returncode == 3
    command = [
        sys.executable,
        "-c",
        SMALL_PARTS,
        "score",
        str(clips),
        "--repository",
        str(repository),
        "--out",
        str(out),
    ]
    for parts in (2, 6):
        killed_after_a_part([*command, "-q"], out, parts)
    assert not out.exists()
    assert folder_of(out).exists()
    changed = score(clips, "--repository", repository, "--out", out, "--column", "path=p", clips / "red_000.mp4")
    assert changed.returncode == 1
    assert "other inputs" in changed.stderr
    done = score(clips, "--repository", repository, "--out", out, "--json")
    assert json.loads(done.stdout)["resumed_at"] >= 18
    assert same_but_for_time(table(out)) == same_but_for_time(table(whole))


def test_another_bundle_is_refused_and_a_vanished_file_has_its_row(clips: Path, tmp_path: Path) -> None:
    repository, out, mine = tmp_path / "models", tmp_path / "scores.parquet", tmp_path / "clips"
    make_tiny_bundle(repository)
    mine.mkdir()
    for path in sorted(clips.glob("[a-z]*.mp4"))[:30]:
        (mine / path.name).write_bytes(path.read_bytes())
    command = [
        sys.executable,
        "-c",
        SMALL_PARTS,
        "score",
        str(mine),
        "--repository",
        str(repository),
        "--out",
        str(out),
    ]
    killed_after_a_part(command, out, 1)
    make_tiny_bundle(repository, temperature=2.0)
    refused = score(mine, "--repository", repository, "--out", out)
    assert refused.returncode == 1
    assert "another run: bundle.version was 1 and is now 2" in refused.stderr
    last = sorted(mine.iterdir())[-1]
    last.unlink()
    assert score(mine, "--repository", repository, "--version", "1", "--out", out, "-q").returncode == 3
    rows = table(out)
    assert len(rows) == 30
    assert [row["error"] for row in rows] == [None] * 29 + ["unreadable"]


def test_ctrl_c_finishes_what_is_under_way(repository: Path, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    many = [str(clips / "*.mp4")] * 30
    command = [sys.executable, "-c", SMALL_PARTS, "score", *many, "--repository", str(repository), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60.0
    while not list(folder_of(out).glob("part-*.parquet")):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    scored = sum(pq.read_metadata(path).num_rows for path in folder_of(out).glob("part-*.parquet"))
    assert 0 < scored < 30 * (GOOD + 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{empty}"], "no recordings in"),
        (["{empty}/*.mp4"], "no recordings in"),
        (["{empty}/none.csv"], "cannot read the manifest"),
        (["s4://bucket/clip.mp4"], "s4"),
        (["{samples}", "--repository", "{empty}"], "holds no bundle"),
        (["{samples}", "--out", "{empty}/scores.txt"], "the ending must be one of"),
        (["{samples}", "--out", "{empty}/nosuch/scores.parquet"], "No such file"),
        (["{samples}", "--out", "/proc/scores.parquet"], "error: "),
        (["{samples}", "--out", "{other}"], "was not written by dimml score"),
        (["{samples}/samples.csv"], "has no column 'path'"),
        (["{samples}/samples.csv", "--column", "path=nosuch"], "has no column 'nosuch'"),
    ],
)
def test_what_cannot_work_is_one_clear_line(repository: Path, tmp_path: Path, words: list[str], said: str) -> None:
    empty, other = tmp_path / "empty", tmp_path / "other.parquet"
    empty.mkdir()
    pq.write_table(pa.table({"a": [1]}), other)
    places = {"empty": empty, "other": other, "samples": SAMPLES}
    given = [word.format(**places) for word in words]
    for option, value in (("--repository", repository), ("--out", empty / "scores.parquet")):
        if option not in given:
            given += [option, str(value)]
    done = score(*given)
    assert done.returncode == 1, done.stdout
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_full_disk_leaves_what_is_whole(repository: Path, clips: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands in for the disk: writing fails in the same place."""
    out = tmp_path / "scores.parquet"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); "
    full = subprocess.run(
        [
            sys.executable,
            "-c",
            limit + SMALL_PARTS,
            "score",
            str(clips),
            "--repository",
            str(repository),
            "--out",
            str(out),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert full.returncode == 1
    assert "the same command goes on from there" in full.stderr
    assert "Traceback" not in full.stderr
    assert not out.exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 9000
    assert score(clips, "--repository", repository, "--out", out, "-q").returncode == 3
    assert len(table(out)) == GOOD + 1 + len(CODES)


@pytest.fixture
def manifest(clips: Path, tmp_path: Path) -> Path:
    path = tmp_path / "list.jsonl"
    lines = [
        {"id": "a", "path": "red_000.mp4", "start_s": 0.1, "end_s": 0.9, "label": "red"},
        {"id": "b", "path_audio": "blue_002.mp4", "path_visual": "green_001.mp4", "label": "blue"},
        {"id": "c", "path": "red_000.mp4", "start_s": 0.9, "end_s": 0.1},
        {"id": "d", "path": "red_000.mp4", "start_s": "soon"},
        {"id": "e"},
        {"id": "f", "path": "red_000.mp4", "start_s": 50},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_manifest_brings_ids_ranges_labels_and_a_file_for_each_modality(
    repository: Path, clips: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.parquet"
    assert score(manifest, "--root", clips, "--repository", repository, "--out", out, "-q").returncode == 3
    rows = {row["id"]: row for row in table(out)}
    assert list(rows) == ["a", "b", "c", "d", "e", "f"]
    assert (rows["a"]["label"], rows["a"]["truth"], rows["a"]["start_s"], rows["a"]["end_s"]) == (
        "red",
        "red",
        0.1,
        0.9,
    )
    assert (rows["b"]["audio_label"], rows["b"]["visual_label"]) == ("blue", "green")
    assert rows["b"]["path_audio"].endswith("blue_002.mp4")
    for name, word in (("c", "must be after"), ("d", "'soon'"), ("e", "names no file"), ("f", "past the end")):
        assert rows[name]["error"] == "invalid_parameter"
        assert word in rows[name]["message"]


def test_an_id_that_stands_twice_is_refused_and_a_path_that_does_is_not(
    repository: Path, clips: Path, tmp_path: Path
) -> None:
    twice = tmp_path / "twice.csv"
    twice.write_text("id,path\na,red_000.mp4\na,blue_002.mp4\n")
    refused = score(twice, "--root", clips, "--repository", repository, "--out", tmp_path / "t.parquet")
    assert refused.returncode == 1
    assert "line 3" in refused.stderr
    assert "'a'" in refused.stderr
    clip = clips / "red_000.mp4"
    done = score(clip, clip, "--repository", repository, "--out", tmp_path / "t.parquet")
    assert done.returncode == 0, done.stderr
    assert "named more than once" in done.stderr
    assert [row["id"] for row in table(tmp_path / "t.parquet")] == [str(clip), f"{clip}#2"]


def test_a_timeline_has_a_row_for_every_window_and_one_over_them(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    words = [
        "--window",
        "1.2",
        "--stride",
        "1.2",
        "--aggregate",
        "vote",
        "--repository",
        REPOSITORY_ROOT / "model_repository",
    ]
    done = score(SAMPLES / "long.mp4", SAMPLES / "broken.mp4", SAMPLES / "written_nine.png", *words, "--out", out)
    assert done.returncode == 3, done.stderr
    rows = table(out)
    assert [row["kind"] for row in rows] == ["window"] * 3 + ["aggregate", "recording", "aggregate"] * 1 + [
        "recording",
        "aggregate",
    ]
    assert [row["label"] for row in rows[:3]] == ["zero", "eight", "four"]
    assert [(row["start_s"], row["end_s"]) for row in rows[:3]] == [(0.0, 1.2), (1.2, 2.4), (2.4, pytest.approx(3.6))]
    assert [rows[3][f"probability_{label}"] for label in ("zero", "eight", "four")] == [pytest.approx(1 / 3)] * 3
    assert [row["error"] for row in rows[4:6]] == ["unusable_media"] * 2
    assert rows[6]["label"] == rows[7]["label"] == "nine"
    picture = tmp_path / "t.svg"
    drawn = subprocess.run(
        [sys.executable, "-m", "dimml", "plot", str(out)], capture_output=True, text=True, check=False, timeout=100
    )
    assert drawn.returncode == 0, drawn.stderr
    assert picture.read_text().startswith("<?xml")
