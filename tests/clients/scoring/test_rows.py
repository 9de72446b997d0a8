"""``dimml score``: one row for every input, in order, whatever the input, as `LocalPredictor` answers; formats."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from dimml.errors import UnusableMediaError
from dimml.repository import load_bundle
from dimml_client.scoring.run.checkpoint import folder_of
from dimml_client.scoring.table.schema import ScoredBundle, table_schema
from dimml_server.local import LocalPredictor
from support.data import REPOSITORY_ROOT
from support.scoring import BAD, GOOD, REPOSITORY, SAMPLES, rows_of, score
from support.tiny_bundle import tone_hz
from support.tiny_media import LABELS, two_voices

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def scored(tiny_repository: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "table.parquet"
    assert score(mixed, "--cores", "2", "--out", out, "-q", repository=tiny_repository) == 3
    return out


def test_a_mixed_folder_has_a_row_for_every_file_in_order(mixed: Path, scored: Path) -> None:
    rows = rows_of(scored)
    assert [row["id"] for row in rows] == [
        *sorted(map(str, mixed.glob("[a-z]*.mp4"))),
        *(str(mixed / "bad" / name) for name in sorted(BAD)),
    ]
    for row in rows[: GOOD + 1]:
        assert row["label"] == Path(row["path"]).name.split("_")[0]
        assert row["error"] is None
        assert sum(row[f"probability_{label}"] for label in LABELS) == pytest.approx(1.0, abs=1e-5)
    without_sound = next(row for row in rows if row["path"].endswith("without_sound.mp4"))
    assert (without_sound["audio_status"], without_sound["degraded"]) == ("absent:no_track", True)
    assert {Path(row["path"]).name: row["error"] for row in rows[GOOD + 1 :]} == BAD
    assert all(row["message"] and row["label"] is None for row in rows[GOOD + 1 :])
    assert list(scored.parent.iterdir()) == [scored]


@pytest.mark.parametrize(("fail_on", "code"), [("error", 3), ("degraded", 3), ("never", 0)])
def test_a_whole_table_is_left_alone_and_told_again(
    *,
    tiny_repository: Path,
    mixed: Path,
    scored: Path,
    capsys: pytest.CaptureFixture[str],
    fail_on: str,
    code: int,
) -> None:
    before = scored.stat().st_mtime_ns
    # As after a kill between the table's last step and this one.
    folder_of(scored).mkdir()
    assert score(mixed, "--out", scored, "--json", "--fail-on", fail_on, repository=tiny_repository) == code
    assert not folder_of(scored).exists()
    assert scored.stat().st_mtime_ns == before
    told = json.loads(capsys.readouterr().out)
    rows = GOOD + 1 + len(BAD)
    assert (told["complete"], told["rows"], told["answered"], told["done_before"]) == (True, rows, GOOD + 1, rows)
    assert told["errors"] == {"unusable_media": 5, "unreadable": 4, "too_large": 1}
    assert told["degraded"] == 1
    assert told["exit_code"] == code
    assert score(mixed, "--out", scored, "--fail-on", fail_on, repository=tiny_repository) == code
    said = capsys.readouterr().err
    assert "whole already" in said
    assert "error unreadable" in said


def test_rows_say_what_the_local_predictor_says(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    assert score(SAMPLES, "--out", out, "-q") == 3
    rows = {Path(row["path"]).name: row for row in rows_of(out)}
    with LocalPredictor(REPOSITORY) as predictor:
        for name in ("clean_three.mp4", "no_sound.mp4", "silent_sound.mp4", "written_nine.png", "noisy_sound.mp4"):
            answer, row = predictor.predict(SAMPLES / name, top_k=10), rows[name]
            assert (row["label"], row["degraded"]) == (answer.label, answer.degraded)
            assert (row["start_s"], row["end_s"]) == (answer.start_s, answer.end_s)
            for one in answer.predictions:
                assert row[f"probability_{one.label}"] == pytest.approx(one.probability, abs=1e-5)
            for modality, own in answer.modalities.items():
                assert row[f"{modality}_status"] == str(own.modality_status)
                assert row[f"{modality}_label"] == own.label
                assert row[f"{modality}_weight"] == pytest.approx(own.weight, abs=1e-5)
                assert row[f"{modality}_certainty"] == (
                    None if own.certainty is None else pytest.approx(own.certainty, abs=1e-5)
                )
        row = rows["broken.mp4"]
        with pytest.raises(UnusableMediaError) as caught:
            predictor.predict(SAMPLES / "broken.mp4")
        assert row["message"] == caught.value.message
        for name, status in caught.value.statuses.items():
            assert row[f"{name}_status"] == str(status)


def test_the_file_names_the_schema_the_bundle_and_the_settings(tiny_repository: Path, scored: Path) -> None:
    schema = pq.read_schema(scored)
    bundle = load_bundle(tiny_repository, "tiny")
    assert schema.equals(table_schema(ScoredBundle.of(bundle)))
    about = json.loads(schema.metadata[b"dimml"])
    assert about["schema_version"] == 1
    assert about["bundle"]["name"] == "tiny"
    assert about["bundle"]["sha256"] == bundle.sha256
    assert about["settings"]["max_seconds"] == 120.0
    assert about["settings"]["window"] is None
    assert about["summary"]["rows"] == GOOD + 1 + len(BAD)


def test_every_column_stands_in_the_docs() -> None:
    page = (REPOSITORY_ROOT / "docs" / "scoring.md").read_text()
    names = table_schema(ScoredBundle("b", 1, ("L",), ("M",), True, "0"), ["M"], truth=True).names
    for name in names:
        assert f"`{name.replace('_L', '_<label>').replace('M', '<modality>')}`" in page, name


def test_degraded_alone_fails_where_that_was_asked_and_formats_say_the_same(
    tiny_repository: Path, mixed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clips = [mixed / "red_000.mp4", mixed / "blue_without_sound.mp4", mixed / "red_000.mp4"]
    codes = [
        score(*clips, "--out", tmp_path / f"t.{end}", "-q", "--fail-on", fail_on, repository=tiny_repository)
        for end, fail_on in (("parquet", "error"), ("jsonl", "degraded"), ("csv", "never"))
    ]
    assert codes == [0, 3, 0]
    assert capfd.readouterr() == ("", "")
    parquet = rows_of(tmp_path / "t.parquet")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    with (tmp_path / "t.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    assert len(parquet) == len(lines) == len(texts) == 3
    for row, line, text in zip(parquet, lines, texts, strict=True):
        assert list(row) == list(line) == list(text)
        for name in row.keys() - {"ms"}:
            assert_same_value(row[name], line[name], text[name])
    for ending in ("jsonl", "csv"):
        metadata = json.loads((tmp_path / f"t.{ending}.meta.json").read_text())
        assert metadata["bundle"]["sha256"] == load_bundle(tiny_repository, "tiny").sha256


def assert_same_value(value: Any, line: Any, text: str) -> None:
    """Of one cell in Parquet, JSON lines and CSV."""
    if isinstance(value, float):
        assert line == pytest.approx(value, abs=1e-5)
        assert float(text) == pytest.approx(value, abs=2e-5)
    else:
        assert line == value
        assert text == ("" if value is None else str(value).lower() if isinstance(value, bool) else str(value))


def test_a_large_table_is_a_folder_of_files(
    tiny_repository: Path, mixed: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty rows to a file instead of a million."""
    from dimml_client.scoring.run import score_table

    monkeypatch.setitem(score_table.score_table.__kwdefaults__, "rows_per_file", 20)
    out = tmp_path / "t.parquet"
    assert score(mixed, "--out", out, "-q", repository=tiny_repository) == 3
    assert [path.name for path in sorted(out.iterdir())] == [f"part-{n:05d}.parquet" for n in range(3)]
    assert [row["id"] for row in rows_of(out)] == [row["id"] for row in rows_of(scored)]
    assert score(mixed, "--out", out, "-q", repository=tiny_repository) == 3


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
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
    tiny_repository: Path, mixed: Path, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.parquet"
    assert score(manifest, "--root", mixed, "--out", out, "-q", repository=tiny_repository) == 3
    rows = {row["id"]: row for row in rows_of(out)}
    assert list(rows) == ["a", "b", "c", "d", "e", "f"]
    a = rows["a"]
    assert (a["label"], a["truth"], a["start_s"], a["end_s"]) == ("red", "red", 0.1, 0.9)
    assert (rows["b"]["audio_label"], rows["b"]["visual_label"]) == ("blue", "green")
    assert rows["b"]["path_audio"].endswith("blue_002.mp4")
    for name, word in (("c", "must be after"), ("d", "'soon'"), ("e", "names no file"), ("f", "past the end")):
        assert rows[name]["error"] == "invalid_parameter"
        assert word in rows[name]["message"]


def test_tracks_by_option_and_by_manifest(tiny_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "voices.mkv").write_bytes(two_voices(tmp_path))
    (tmp_path / "list.csv").write_text(
        "path,audio_track\nvoices.mkv,fra\nvoices.mkv,\nvoices.mkv,first\nvoices.mkv,deu\n"
    )
    for option, label in (("0", "red"), ("1", "green")):
        out = tmp_path / f"{option}.parquet"
        words = (tmp_path / "list.csv", "--audio-track", option, "--out", out, "-q")
        assert score(*words, repository=tiny_repository) == 3
        named, by_option, wrong, absent = rows_of(out)
        assert (named["label"], by_option["label"]) == ("green", label)
        assert (wrong["error"], absent["error"]) == ("invalid_parameter", "unusable_media")
        assert wrong["message"].startswith("line 4: audio_track must be a number from 0")
        assert "there is 0 (eng), 1 (fra)" in absent["message"]
        assert [row["id"][-4:] for row in (named, wrong)] == ["@fra", "irst"]
    other = (tmp_path / "list.csv", "--audio-track", "1", "--out", tmp_path / "0.parquet", "-q")
    assert score(*other, repository=tiny_repository) == 1
    windows = (
        tmp_path / "voices.mkv",
        "--audio-track",
        "fra",
        "--window",
        "0.5",
        "--out",
        tmp_path / "w.parquet",
        "-q",
    )
    assert score(*windows, repository=tiny_repository) == 0
    assert {row["label"] for row in rows_of(tmp_path / "w.parquet")} == {"green"}
    assert score(tmp_path / "voices.mkv", "--audio-track", "loud", "--out", tmp_path / "x.parquet") == 2


def test_a_manifest_with_names_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    assert score(SAMPLES / "samples.csv", "--column", "path=file", "--out", out, "-q") == 3
    with (SAMPLES / "samples.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    rows = rows_of(out)
    assert len(rows) == len(listed)
    for row, line in zip(rows, listed, strict=True):
        assert (row["label"] or "", row["truth"] or "") == (line["label"], line["label"])
        assert (row["audio_status"], row["visual_status"]) == (line["audio"], line["visual"])
    assert len({row["id"] for row in rows}) == len(rows)


def test_a_path_that_stands_twice_has_two_rows(
    tiny_repository: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = mixed / "red_000.mp4", tmp_path / "t.parquet"
    assert score(clip, clip, "--out", out, repository=tiny_repository) == 0
    assert "named more than once" in capsys.readouterr().err
    assert score(clip, clip, "--out", out, "--json", "-q", repository=tiny_repository) == 0
    assert json.loads(capsys.readouterr().out)["repeated_inputs"] == 1
    assert [row["id"] for row in rows_of(out)] == [str(clip), f"{clip}#2"]


@pytest.mark.parametrize("options", [(), ("--window", "0.5")], ids=["whole", "windows"])
def test_a_cut_off_recording_says_so_in_its_rows(
    tiny_repository: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, end in (("cut.wav", 44 + 16_000), ("whole.wav", None)):
        wave = io.BytesIO()
        soundfile.write(wave, 0.4 * np.sin(2 * np.pi * tone_hz(1) * np.arange(16_000) / 8000), 8000, format="WAV")
        (folder / name).write_bytes(wave.getvalue()[:end])
    out = tmp_path / "table.parquet"
    assert score(folder, "--out", out, "-q", *options, repository=tiny_repository) == 0
    lengths = {
        (Path(row["path"]).name, row["truncated"], row["audio_held_s"], row["audio_promised_s"]) for row in rows_of(out)
    }
    # 16000 bytes of 16 bits at 8 kHz, of two seconds.
    assert lengths == {("cut.wav", True, 1.0, 2.0), ("whole.wav", False, None, None)}
