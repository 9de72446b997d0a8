"""The report: self-contained, whole, escaped; its diagrams against counting clip by clip."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dimml.cli import main
from dimml.errors import ConfigurationError, SetupError
from dimml.fusion import Fused, FusionSpec, fuse, softmax
from dimml.look.charts import Series, confusion_chart, line_chart, nice_ticks
from dimml.metrics.classification import BINS, ece
from dimml_training.compare import cells
from dimml_training.compare.cells import Cell, ConditionRecord
from dimml_training.evaluation.heads import HeadLogits
from dimml_training.loop.train import train
from dimml_training.report.diagrams import diagrams, reliability
from dimml_training.report.page import write_report
from dimml_training.run import votes as votes_file
from dimml_training.run.votes import VOTES_FILE, Votes, read_votes, write_votes
from support.tiny_training import configured

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "br"}


class Tags(HTMLParser):
    """Checks that every tag is closed, and collects attributes that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]
        assert not any(k.startswith("on") for k, _ in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed where it was opened."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(page: Path) -> str:
    """The page's text, once it is known to be whole and to need nothing else."""
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert tags.fetched == []
    assert "<script" not in text
    assert "url(" not in text
    assert "@import" not in text
    for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(chart)  # noqa: S314  # our own
    return text


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def conditions(heads: list[str]) -> dict[str, Any]:
    def figures(accuracy: float, *, seen: bool) -> dict[str, Any]:
        return {
            "seen": seen,
            "in_means": True,
            "accuracy": accuracy,
            "heads": {head: {"accuracy": accuracy / 2} for head in heads},
            "better": heads[0],
            "regret": -0.0125,
        }

    return {
        "clean": figures(1.0, seen=True),
        "audio:white_10db": figures(0.9, seen=True),
        "audio:white_0db": figures(0.66, seen=True),
        "visual:patch_60pct": figures(0.7, seen=False),
    }


def test_training_leaves_a_report_that_needs_nothing_else(finished: Path) -> None:
    text = checked(write_report(finished))
    test = json.loads((finished / "metrics.json").read_text())["test"]
    assert f"<b>{test['accuracy']:.1%}</b>" in text
    for title in ("Heads", "Calibration", "Confusion", "Learning curves", "Effective dimensions", "Config"):
        assert f">{title}</h2>" in text
    assert text.count("<svg") >= 4 + 2 * len(test["heads"])
    assert "has not finished" not in text


def test_labels_and_warnings_are_text_and_never_markup(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["labels"] = [EVIL, 'b" onload="x']
    record["training"]["warnings"] = [EVIL]
    (run / "run.json").write_text(json.dumps(record))
    (run / "corruptions.json").write_text(json.dumps({"conditions": {f"audio:{EVIL}": conditions([EVIL])["clean"]}}))
    text = checked(write_report(run))
    assert text.count("&lt;script&gt;") >= 3


def test_corruptions_and_the_choice_of_a_fusion_are_shown_where_they_are(run: Path) -> None:
    assert "Under corruption" not in checked(write_report(run))
    (run / "corruptions.json").write_text(json.dumps({"conditions": conditions(["audio", "visual", "fused"])}))
    spec = FusionSpec(fused_head=True, certainty="max_prob", pooling="product", temperature=0.2)
    figures = {
        "spec": spec.model_dump(mode="json"),
        "clean_accuracy": 0.971,
        "mean_accuracy": 0.832,
        "mean_regret": -0.01,
        "worst_regret": -0.123,
        "clean_ece": 0.0456,
    }
    chosen = {
        "schema_version": 1,
        "spec": figures["spec"],
        "parameters_sha256": None,
        "report": {"chosen": figures, "instead_of": {"paper": figures}},
    }
    (run / "fusion.json").write_text(json.dumps(chosen))
    text = checked(write_report(run))
    assert "of the answer, test clips, seen and development families" in text
    for shown in (
        "Under corruption",
        "patch_60pct",
        "development",
        "-1.2",
        "66.0%",
        "97.1%",
        "-12.3",
        "0.046",
        "product",
    ):
        assert shown in text
    # The test clips were answered with another fusion than the one that fusion.json names now.
    assert "chosen anew" in text


def test_a_run_that_has_not_finished_shows_what_there_is(run: Path) -> None:
    for name in ("run.json", "metrics.json", VOTES_FILE):
        (run / name).unlink()
    text = checked(write_report(run))
    assert "has not finished" in text
    assert "Learning curves" in text
    assert ">Confusion</h2>" not in text


def test_a_joint_training_has_an_answer_and_no_fusion(clips: Path, cache: Path, tmp_path: Path) -> None:
    metrics = train(configured(clips, objective="joint", epochs=1), tmp_path / "run", cache_dir=cache)
    text = checked(write_report(tmp_path / "run"))
    assert f"<b>{metrics['test']['accuracy']:.1%}</b>" in text
    assert ">Confusion</h2>" in text
    assert ">Fusion</h2>" not in text
    assert "best modality alone" not in text


@pytest.mark.parametrize("name", ["run.json", "metrics.csv", "corruptions.json", VOTES_FILE])
def test_a_damaged_file_is_named(run: Path, name: str) -> None:
    (run / name).write_bytes(b'epoch\n"a' if name.endswith("csv") else b"[1")
    with pytest.raises(SetupError, match=f"{name} is damaged"):
        write_report(run)


def test_the_command_writes_it_anew(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    checked(run / "report.html")
    with pytest.raises(SetupError, match="no training run"):
        write_report(tmp_path)
    with pytest.raises(ConfigurationError, match="no comparison of data named 'stripes'"):
        write_report(run, tmp_path)


def made_up_cell(data: str, method: str, right: Sequence[bool]) -> Cell:
    bits = np.array([right])
    clean = ConditionRecord(
        group="clean",
        seen=True,
        in_means=False,
        draws=1,
        accuracy=float(bits.mean()),
        macro_f1=0.5,
        nll=0.25,
        ece=0.1,
        confidence=0.8,
        auroc=None,
        right=cells.pack_bits(bits),
    )
    return Cell(
        **{
            "data": data,
            "method": method,
            "description": method,
            "repeat": 0,
            "fields": {},
            "seed": 0,
            "training": "t",
        },
        **{"answer": "a", "suite": "s", "config_hash": "c", "data_digest": "d", "commit": None, "dirty": None},
        **{"trained_commit": None, "date": "2026-01-01T00:00:00Z", "seconds_training": 1.0, "seconds_scoring": 1.0},
        **{"modalities": ("audio", "visual"), "classes": 2, "clips_train": 9, "clips_validation": 9, "versions": {}},
        clips=len(right),
        clip_lines=cells.pack_lines(np.arange(len(right))),
        conditions={"clean": clean},
        clean_confidence=cells.pack_confidences(np.full(len(right), 0.75)),
        replicates={},
    )


def test_methods_compared_on_the_same_data_stand_beside_the_run(run: Path, tmp_path: Path) -> None:
    for data, method, right in (
        ("stripes", "dimml", [True] * 7 + [False]),
        ("stripes", "joint_concat", [True] * 5 + [False] * 3),
        ("another", "late_logits", [True] * 8),
    ):
        cells.write_cell(tmp_path / "results", made_up_cell(data, method, right))
    text = checked(write_report(run, tmp_path / "results"))
    assert re.search(r"<td>dimml</td><td>87\.5 \[", text)
    assert re.search(r"<td>joint_concat</td><td>62\.5 \[", text)
    assert "late_logits" not in text
    assert "other clips, labels or splits" in text
    assert re.search(r"<td>dimml</td><td>87\.5 \[", checked(write_report(run))), "it stays when drawn anew"
    (run / "data.sha256").write_text("d")
    assert "this run&#39;s training is not among them" in checked(write_report(run, tmp_path / "results"))
    (run / "data.sha256").unlink()
    assert "It is unknown whether" in checked(write_report(run, tmp_path / "results"))
    for damaged in (
        "{",
        "{}",
        '{"columns": ["a"], "rows": 5, "note": ""}',
        '{"columns": ["a"], "rows": [[]], "note": ""}',
    ):
        (run / "comparison.json").write_text(damaged)
        with pytest.raises(SetupError, match=r"comparison\.json is damaged"):
            write_report(run)
    write_report(run, tmp_path / "results")
    write_report(run)


def test_reliability_is_what_counting_clip_by_clip_gives() -> None:
    rng = np.random.default_rng(0)
    probabilities = softmax(2 * rng.standard_normal((200, 4)).astype(np.float32))
    labels = rng.integers(0, 4, 200)
    found = reliability(probabilities, labels)
    error = 0.0
    for index in range(BINS):
        inside = [
            i
            for i in range(200)
            if index / BINS <= probabilities[i].max() < (index + 1) / BINS
            or (index == BINS - 1 and probabilities[i].max() == 1)
        ]
        assert found.rows[index] == len(inside)
        if inside:
            right = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            sure = np.mean([probabilities[i].max() for i in inside])
            assert (found.accuracy[index], found.confidence[index]) == pytest.approx((right, sure), abs=1e-6)
            error += len(inside) / 200 * abs(right - sure)
    assert found.ece == pytest.approx(error, abs=1e-6)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    assert found.ece == pytest.approx(ece(confidence, right), abs=1e-6)
    certain = reliability(np.eye(4, dtype=np.float32)[labels], labels)
    assert (certain.ece, certain.rows[-1]) == (0.0, 200)


def answered(spec: FusionSpec) -> tuple[HeadLogits, Fused]:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((50, 2, 3)).astype(np.float32)
    present = rng.random((50, 2)) < 0.8
    present[:, 0] |= ~present[:, 1]
    votes = HeadLogits(("audio", "visual"), logits, present, rng.integers(0, 3, 50), ())
    return votes, fuse(logits, present, spec)


def test_before_and_after_calibration(tmp_path: Path) -> None:
    plain = FusionSpec(fused_head=False)
    spec = FusionSpec(fused_head=False, head_temperatures=(3.0, 0.5), answer_temperature=2.5)
    votes, fused = answered(spec)
    write_votes(tmp_path, {"test": (votes, fused)}, spec)
    kept = read_votes(tmp_path)["test"]
    np.testing.assert_array_equal(kept.logits_NHC, votes.logits_NHC)
    assert (kept.heads, kept.fusion) == (votes.heads, spec)
    audio, visual, answer = diagrams(kept, 3)
    there = votes.present_NH[:, 0]
    assert (audio.clips, visual.clips) == (there.sum(), votes.present_NH[:, 1].sum())
    own = votes.logits_NHC[there, 0]
    assert audio.before.ece == pytest.approx(reliability(softmax(own), votes.labels_N[there]).ece)
    assert audio.after is not None
    assert audio.after.ece == pytest.approx(reliability(softmax(own / np.float32(3)), votes.labels_N[there]).ece)
    said = own.argmax(axis=1)
    for truth, guess in np.ndindex(3, 3):
        assert audio.confusion_CC[truth, guess] == ((votes.labels_N[there] == truth) & (said == guess)).sum()
    # Before the answer's own calibration: what the same fusion gives without it.
    uncalibrated = fuse(votes.logits_NHC, votes.present_NH, spec.model_copy(update={"answer_temperature": 1.0}))
    assert answer.before.ece == pytest.approx(reliability(uncalibrated.probabilities_BC, votes.labels_N).ece, abs=1e-5)
    assert answer.ece == pytest.approx(reliability(fused.probabilities_BC, votes.labels_N).ece)
    untouched = Votes(votes.heads, votes.logits_NHC, votes.present_NH, votes.labels_N, fused.probabilities_BC, plain)
    assert [head.after for head in diagrams(untouched, 3)] == [None, None, None]


def test_a_large_split_is_kept_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(votes_file, "CLIPS", 5)
    spec = FusionSpec(fused_head=False)
    votes, fused = answered(spec)
    write_votes(tmp_path, {"test": (votes, fused)}, spec)
    np.testing.assert_array_equal(read_votes(tmp_path)["test"].labels_N, votes.labels_N[[0, 12, 24, 37, 49]])


def test_charts_take_one_point_and_gaps() -> None:
    assert line_chart([Series("a", "c0", [0.0], [float("nan")])], x_label="x", y_label="y") == ""
    chart = line_chart(
        [Series("a", "c0", [0, 1, 2, 3], [1.0, float("nan"), 3.0, 2.0])], x_label="x", y_label="y", marks=[(2, "here")]
    )
    path = ElementTree.fromstring(chart).find("svg/path")  # noqa: S314  # our own
    assert path is not None
    assert path.attrib["d"].count("M") == 2
    ElementTree.fromstring(line_chart([Series("a", "c0", [3.0], [0.0])], x_label="x", y_label="y"))  # noqa: S314


def test_hundreds_of_classes_stay_a_small_page() -> None:
    """Only cells with clips are drawn; all of them would be 160,000 elements."""
    counts = np.diag(np.full(400, 3))
    counts[7, 300] = 2
    chart = confusion_chart(counts, [f"class {index}" for index in range(400)])
    assert len(chart) < 300_000
    titles = [title.text for title in ElementTree.fromstring(chart).iter("title")]  # noqa: S314  # our own
    assert len(titles) == 401
    assert "class 7 taken for class 300: 2 of 5" in titles


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.0), (-2.3, 7.9), (0.0, 123456.0), (0.0, 3e-5)])
def test_ticks_are_few_and_reach_round_the_figures(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
