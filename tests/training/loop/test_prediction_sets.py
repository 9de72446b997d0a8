"""``dimml calibrate --coverage`` on a finished run: its thresholds against the votes that the run kept."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from dimml.cli import main
from dimml.fusion import fuse, heads_present
from dimml_training.run.directory import load_run
from dimml_training.run.prediction_sets import SETS_FILE, fusion_sha256, read_sets
from dimml_training.run.votes import read_votes


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run whose config fixes its fusion; it has six validation clips."""
    return shutil.copytree(finished, tmp_path / "run")


def test_thresholds_are_the_scores_of_the_kept_votes_by_pattern(
    run: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(run), "--coverage", "0.8", "--cache-dir", str(cache), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept, trained = read_sets(run), load_run(run)
    assert kept is not None
    assert printed["sets"] == kept.sets.model_dump(mode="json")
    assert kept.fusion_sha256 == fusion_sha256(trained.fusion, trained.fusion_parameters)
    assert kept.sets.folds == 0, "nothing of a fixed fusion was fitted"
    votes = read_votes(run)["validation"]
    clips = len(votes.labels_N)
    for pattern in kept.sets.patterns:
        present = np.tile([name in pattern.modalities for name in ("audio", "visual")], (clips, 1))
        fused = fuse(votes.logits_NHC, heads_present(present, True), trained.fusion)
        scores = sorted(1 - fused.probabilities_BC.astype(float)[np.arange(clips), votes.labels_N])
        assert (pattern.clips, pattern.rank) == (6, math.ceil(7 * 8 / 10))
        assert pattern.threshold == pytest.approx(scores[pattern.rank - 1], abs=1e-6)
    assert [pattern.modalities for pattern in kept.sets.patterns] == [("audio", "visual"), ("audio",), ("visual",)]


def test_too_few_clips_are_refused_and_nothing_is_written(
    run: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(run), "--coverage", "0.9", "--cache-dir", str(cache)]) != 0
    told = " ".join(capsys.readouterr().err.split())
    assert "needs 9 calibration clips with audio and visual, and there are 6" in told
    assert not (run / SETS_FILE).exists()


def test_a_table_for_people_ends_in_the_promise(run: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run), "--coverage", "0.75", "--cache-dir", str(cache)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "at least 75 % of answers" in shown
    assert "not under drift" in shown


def test_unknown_classes_are_calibrated_on_request(run: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["calibrate", str(run), "--coverage", "0.8", "--cache-dir", str(cache), "--false-alarms"]
    assert main([*words, "0.05"]) != 0
    assert "needs 19 validation clips" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "0.2"]) == 0
    kept, trained = read_sets(run), load_run(run)
    assert kept is not None
    assert kept.sets.unknown is not None
    widths = {name: trained.config.encoders[name].width for name in trained.encoders}
    kept.sets.check_modalities(widths, len(trained.labels))
    assert {pattern.clips for pattern in kept.sets.unknown.patterns} == {6}
    assert main(["calibrate", str(run), "--false-alarms", "0.2"]) == 2, "goes with --coverage"


@pytest.mark.parametrize("text", ["1", "0,9"])
def test_a_coverage_that_is_none_is_refused(run: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run), "--coverage", text]) != 0
    assert "above 0 and below 1" in " ".join(capsys.readouterr().err.split())
