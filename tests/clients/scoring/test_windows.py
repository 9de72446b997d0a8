"""``dimml score --window``: a row for every window, one over them, and a picture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dimml.cli import main
from dimml_client.scoring.report.timeline_plot import Timeline, _means, draw, stretches
from support.scoring import SAMPLES, rows_of, score

pytestmark = pytest.mark.timeout(300)


def test_a_timeline_has_a_row_for_every_window_and_one_over_them(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    words = ["--window", "1.2", "--stride", "1.2", "--aggregate", "vote", "--out", str(out), "-q"]
    assert score(SAMPLES / "long.mp4", SAMPLES / "broken.mp4", SAMPLES / "written_nine.png", *words) == 3
    rows = rows_of(out)
    assert [row["kind"] for row in rows] == [
        *(["window"] * 3 + ["aggregate"]),
        *(["recording", "aggregate"] * 2),
    ]
    assert [row["label"] for row in rows[:3]] == ["zero", "eight", "four"]
    assert [(row["start_s"], row["end_s"]) for row in rows[:3]] == [(0.0, 1.2), (1.2, 2.4), (2.4, pytest.approx(3.6))]
    assert [rows[3][f"probability_{label}"] for label in ("zero", "eight", "four")] == [pytest.approx(1 / 3)] * 3
    assert [row["error"] for row in rows[4:6]] == ["unusable_media"] * 2
    assert rows[6]["label"] == rows[7]["label"] == "nine"


def test_what_cannot_be_drawn_is_one_clear_line(
    tiny_repository: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timeline, whole, foreign = tmp_path / "t.parquet", tmp_path / "whole.parquet", tmp_path / "foreign.csv"
    clips = [mixed / "red_000.mp4", mixed / "green_001.mp4"]
    assert score(*clips, "--window", "0.5", "--out", timeline, "-q", repository=tiny_repository) == 0
    assert score(*clips, "--out", whole, "-q", repository=tiny_repository) == 0
    foreign.write_text("a,b\n")
    for words, said in (
        ([timeline], "choose one with --id"),
        ([timeline, "--id", "nobody"], "holds no windows of 'nobody'"),
        ([timeline, "--id", clips[0], "--out", tmp_path / "t.gif"], ".svg, .png, .pdf"),
        ([timeline, "--id", clips[0], "--out", tmp_path / "no" / "t.svg"], "No such file"),
        ([whole], "holds no windows"),
        ([foreign], "is not a table that dimml score wrote"),
        ([tmp_path / "gone.parquet"], "is not a table that dimml score wrote"),
    ):
        assert main(["plot", *map(str, words)]) == 1
        stderr = capsys.readouterr().err
        assert stderr.startswith("error: ")
        assert said in stderr
    assert main(["plot", str(timeline), "--id", str(clips[0]), "--out", str(tmp_path / "t.png")]) == 0
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_lines_of_a_long_timeline_are_means_of_windows_and_gaps_stay(tmp_path: Path) -> None:
    heard = {"a_label": "x", "a_certainty": 0.5, "a_weight": 1.0}
    silent = dict.fromkeys(heard)
    rows = [
        {"start_s": 1.0 * n, "end_s": n + 1.0, "label": "x", "error": None, **(silent if n < 650 else heard)}
        for n in range(1300)
    ]
    draw(Timeline("long.mp4", rows, ["x", "y"], ["a"], fused_head=False), tmp_path / "t.svg")
    assert "certainty, mean of 2" in (tmp_path / "t.svg").read_text()
    times_s, values = _means([1.0, 2.0, 3.0, 6.0, 9.0], [None, None, 0.5, None, 1.0], 2)
    assert times_s == [1.5, 4.5, 9.0]
    assert values == [pytest.approx(math.nan, nan_ok=True), 0.5, 1.0]


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_timeline_is_drawn_from_every_format(tiny_repository: Path, mixed: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"t.{ending}"
    words = ["--window", "0.5", "--stride", "0.1", "--out", str(out), "-q"]
    assert score(mixed / "red_000.mp4", *words, repository=tiny_repository) == 0
    assert main(["plot", str(out)]) == 0
    drawn = (tmp_path / "t.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "red_000.mp4" in drawn


def test_stretches_without_a_modality_meet_half_way_between_windows() -> None:
    """Windows of 1 s every 0.5 s have middles at 0.5, 1.0, 1.5, …; the last stretch ends with the last window."""
    statuses = ["ok", "unusable:silent", "unusable:silent", "ok", "absent:no_track", "absent:track_ended"]
    rows = [{"start_s": n / 2, "end_s": n / 2 + 1.0, "a_status": status} for n, status in enumerate(statuses)]
    assert list(stretches(rows, "a")) == [(0.75, 1.75, "silent"), (2.25, 2.75, "no_track"), (2.75, 3.5, "track_ended")]
    assert list(stretches([{"start_s": 0.0, "end_s": 2.0, "a_status": "failed:non_finite"}], "a")) == [
        (0.0, 2.0, "non_finite")
    ]
