"""Intervals, regrets and targets of a comparison, held against plain loops over the clips."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.errors import SetupError
from dimml_training.compare import cells, tables, targets
from dimml_training.compare.bootstrap import Estimate, estimates, mean_estimate, pooled_estimate, resample_weights
from dimml_training.compare.methods import all_methods
from dimml_training.compare.packed_cells import read_cells
from dimml_training.compare.summary import Summary
from support import tiny_training
from support.data import REPOSITORY_ROOT
from support.made_up_cells import CLIPS, CONDITIONS, cell

DEVELOPMENT = ["audio:voices", "visual:patch"]


def test_bits_lines_and_confidences_survive_packing() -> None:
    rng = np.random.default_rng(0)
    bits = rng.random((3, 7)) < 0.5
    assert (cells.unpack_bits(cells.pack_bits(bits), bits.shape) == bits).all()
    made, _ = cell("dimml", 1, 0.5)
    assert made.lines().tolist() == list(range(100, 100 + CLIPS))
    confidences = np.array([0.0, 0.123456, 0.5, 1.0])
    packed = made.model_copy(update={"clean_confidence": cells.pack_confidences(confidences)})
    assert packed.confidences() == pytest.approx(confidences, abs=1e-5)


def test_a_cell_is_read_as_it_was_written(tmp_path: Path) -> None:
    made, _ = cell("single:audio", 0, 0.5, validation={"clean": 0.75})
    path = cells.write_cell(tmp_path, made)
    assert path == tmp_path / "cells" / "made_up" / "single-audio__0.json"
    assert list(read_cells(tmp_path)) == [made]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    path.write_text("{}")
    with pytest.raises(SetupError, match="single-audio__0"):
        cells.read_cell(path)


def test_every_repeat_draws_as_many_clips_as_it_has() -> None:
    weights_SP = resample_weights([np.arange(10), np.arange(20, 27)], resamples=50)
    assert (weights_SP[:, :10].sum(axis=1) == 10).all()
    assert (weights_SP[:, 10:].sum(axis=1) == 7).all()


def test_seeds_that_score_the_same_clips_are_drawn_alike() -> None:
    same = resample_weights([np.arange(10), np.arange(10)], resamples=50)
    assert (same[:, :10] == same[:, 10:]).all()
    other = resample_weights([np.arange(10), np.arange(10, 20)], resamples=50)
    assert (other[:, :10] != other[:, 10:]).any()


def test_intervals_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    values_KP = rng.random((3, 30))
    weights_SP = resample_weights([np.arange(18), np.arange(18, 30)], resamples=200)
    for index, found in enumerate(estimates(values_KP, weights_SP)):
        means = []
        for counts in weights_SP.astype(int):
            drawn = [values_KP[index, clip] for clip, count in enumerate(counts) for _ in range(count)]
            means.append(sum(drawn) / len(drawn))
        assert found.value == pytest.approx(values_KP[index].mean())
        assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))


def test_data_sets_together_count_by_their_conditions() -> None:
    rng = np.random.default_rng(2)
    first_KP, second_KP = rng.random((3, 20)), rng.random((1, 50))
    weights = resample_weights([np.arange(20)], resamples=100), resample_weights([np.arange(50)], resamples=100)
    found = pooled_estimate([(first_KP, weights[0]), (second_KP, weights[1])])
    assert found.value == pytest.approx((3 * first_KP.mean() + second_KP.mean()) / 4)
    means = []
    for counts, others in zip(weights[0], weights[1], strict=True):
        conditions = [counts @ row / 20 for row in first_KP] + [others @ row / 50 for row in second_KP]
        means.append(sum(conditions) / len(conditions))
    assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))


def test_an_interval_is_as_wide_as_the_binomial_says() -> None:
    right = (np.arange(400) < 280).astype(float)
    found = mean_estimate(right[None], resample_weights([np.arange(400)]))
    half = 1.96 * np.sqrt(0.7 * 0.3 / 400)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def regret_by_hand(
    rights: dict[tuple[str, int], dict[str, npt.NDArray[np.bool_]]], better: dict[tuple[int, str], str], condition: str
) -> float:
    gaps = []
    for repeat in (0, 1):
        single = better[repeat, condition]
        for clip in range(CLIPS):
            ours = float(np.mean(rights["dimml", repeat][condition][:, clip]))
            gaps.append(ours - float(np.mean(rights[single, repeat][condition][:, clip])))
    return sum(gaps) / len(gaps)


@pytest.fixture(name="made")
def made_up() -> tuple[Summary, dict[tuple[str, int], dict[str, npt.NDArray[np.bool_]]]]:
    """Two repeats; on validation clips sound is better in the first one, pictures in the second, at voices."""
    validation = {
        ("single:audio", 0): {"clean": 0.9, "audio:voices": 0.8, "visual:patch": 0.9, "audio:white": 0.5},
        ("single:audio", 1): {"clean": 0.9, "audio:voices": 0.2, "visual:patch": 0.9, "audio:white": 0.5},
        ("single:visual", 0): {"clean": 0.7, "audio:voices": 0.7, "visual:patch": 0.1, "audio:white": 0.5},
        ("single:visual", 1): {"clean": 0.7, "audio:voices": 0.7, "visual:patch": 0.1, "audio:white": 0.5},
    }
    shares = {"single:audio": 0.6, "single:visual": 0.5, "late_logits": 0.7, "joint_concat": 0.6, "dimml": 0.9}
    made, rights = [], {}
    for method, share in shares.items():
        for repeat in (0, 1):
            one, right = cell(method, repeat, share, validation=validation.get((method, repeat)))
            made.append(one)
            rights[method, repeat] = right
    return Summary(made), rights


def test_figures_are_those_of_plain_loops(made: tuple[Summary, Any]) -> None:
    summary, rights = made
    assert summary.conditions(seen=False, in_means=True) == DEVELOPMENT
    means = [np.mean([rights["dimml", r][name].mean() for name in DEVELOPMENT]) for r in (0, 1)]
    assert summary.accuracy("dimml", DEVELOPMENT).value == pytest.approx(np.mean(means))
    clean = [rights["dimml", r]["clean"].mean() for r in (0, 1)]
    assert summary.spread("dimml") == pytest.approx(np.std(clean, ddof=1))
    gap = summary.difference("dimml", "late_logits", ["clean"])
    late = [rights["late_logits", r]["clean"].mean() for r in (0, 1)]
    assert gap is not None
    assert gap.value == pytest.approx(np.mean(clean) - np.mean(late))


def test_regret_is_against_the_modality_that_is_better_on_validation(made: tuple[Summary, Any]) -> None:
    summary, rights = made
    better = {
        (0, "audio:voices"): "single:audio",
        (1, "audio:voices"): "single:visual",
        (0, "visual:patch"): "single:audio",
        (1, "visual:patch"): "single:audio",
    }
    by_hand = {name: regret_by_hand(rights, better, name) for name in DEVELOPMENT}
    found = summary.regrets("dimml", DEVELOPMENT)
    assert {name: e.value for name, e in found.items()} == pytest.approx(by_hand)
    mean, worst = summary.mean_regret("dimml", DEVELOPMENT), summary.worst_regret("dimml", DEVELOPMENT)
    assert mean is not None
    assert mean.value == pytest.approx(np.mean(list(by_hand.values())))
    assert worst is not None
    assert worst.condition == min(by_hand, key=by_hand.__getitem__)


def test_there_is_no_regret_before_every_modality_has_been_run_alone(made: tuple[Summary, Any]) -> None:
    summary, _ = made
    del summary.cells["single:visual"]
    assert summary.mean_regret("single:audio", DEVELOPMENT) is None
    assert summary.regrets("dimml", DEVELOPMENT) == {}
    assert summary.worst_regret("dimml", DEVELOPMENT) is None


def test_a_figure_without_an_interval_is_null_in_json_and_bare_in_tables(made: tuple[Summary, Any]) -> None:
    summary, _ = made
    text = json.dumps(tables.metrics_of(summary), allow_nan=False)
    (row,) = (row for row in json.loads(text)["methods"] if row["method"] == "dimml")
    assert row["nll"] == {"value": 0.25, "low": None, "high": None}
    assert "| 0.250 |" in tables.markdown(summary)
    assert "nan" not in tables.markdown(summary) + tables.trust_markdown(summary)


def test_a_tie_on_validation_goes_to_the_modality_better_on_clean_clips(made: tuple[Summary, Any]) -> None:
    assert made[0].better_single(0, "audio:white") == "single:audio"


def test_only_repeats_of_both_sides_are_compared(made: tuple[Summary, Any]) -> None:
    summary, rights = made
    del summary.cells["late_logits"][1]
    gap = summary.difference("dimml", "late_logits", ["clean"])
    assert gap is not None
    expected = rights["dimml", 0]["clean"].mean() - rights["late_logits", 0]["clean"].mean()
    assert gap.value == pytest.approx(expected)
    del summary.cells["late_logits"][0]
    assert summary.difference("dimml", "late_logits", ["clean"]) is None


def test_cells_of_an_older_suite_are_left_out() -> None:
    old, _ = cell("dimml", 0, 0.5, suite="old")
    new, _ = cell("dimml", 1, 0.5)
    summary = Summary([new, old])
    assert list(summary.cells["dimml"]) == [1]
    assert summary.outdated == 1


def test_the_table_shows_every_method_and_the_targets_are_judged(made: tuple[Summary, Any], tmp_path: Path) -> None:
    summary, _ = made
    text = tables.markdown(summary)
    assert [line.split("`")[1] for line in text.splitlines()[2:]] == [
        *("single:audio", "single:visual", "late_logits", "joint_concat", "dimml")
    ]
    accuracy = 100 * summary.accuracy("dimml", ["clean"]).value
    assert f"| `dimml` | {accuracy:.1f} ± " in text
    written = tables.write_tables(summary, tmp_path)
    lines = written[1].read_text().splitlines()
    assert len(lines) == 1 + 5 * len(CONDITIONS)
    gap = summary.difference("dimml", "late_logits", DEVELOPMENT)
    assert f"| `late_logits` | {tables.points(summary.difference('dimml', 'late_logits', ['clean']))} " in (
        tables.differences_markdown(summary)
    )
    assert f" {tables.points(gap)} |" in tables.differences_markdown(summary)
    judged = targets.targets(summary)
    assert [t.met for t in judged[:5]] == [True] * 5
    assert judged[5].met is False  # confidences were drawn at random


def test_every_other_method_is_a_rival_on_clean_clips(made: tuple[Summary, Any]) -> None:
    """An ablation that beats ours is told."""
    summary, _ = made
    better = [cell("dimml_no_duc", repeat, 1.0)[0] for repeat in (0, 1)]
    ours = [cell("dimml", repeat, 0.5)[0] for repeat in (0, 1)]
    judged = targets.targets(Summary([*better, *ours, *(summary.cells["late_logits"].values())]))
    assert judged[0].met is False
    assert "`dimml_no_duc`" in judged[0].found


def test_ours_is_held_against_the_plain_average_that_it_is_furthest_below() -> None:
    """The best one is a single clip above, and so noisy that nothing can be said; the other is surely above."""
    right = {"dimml": np.zeros(CLIPS, np.bool_), "late_logits": np.zeros(CLIPS, np.bool_)}
    right["dimml"][:20] = True
    right["late_logits"][10:] = True  # 30 right, of which 10 are ours too
    steady = right["dimml"].copy()
    steady[20:29] = True  # 29 right, all of ours among them
    right["dimml_logits"] = steady
    made = []
    for method, of_method in right.items():
        one, _ = cell(method, 0, 0.5)
        clean = one.conditions["clean"].model_copy(
            update={"right": cells.pack_bits(of_method[None]), "accuracy": float(of_method.mean())}
        )
        made.append(one.model_copy(update={"conditions": {**one.conditions, "clean": clean}}))
    summary = Summary(made)
    gaps = {m: summary.difference("dimml", m, ["clean"]) for m in ("late_logits", "dimml_logits")}
    assert gaps["late_logits"] is not None
    assert gaps["dimml_logits"] is not None
    assert gaps["late_logits"].value < gaps["dimml_logits"].value
    assert gaps["late_logits"].high > gaps["dimml_logits"].high
    assert "`dimml_logits`" in targets.targets(summary)[1].found


def test_far_above_the_rivals_is_asked_of_grid_and_av_mnist(made: tuple[Summary, Any]) -> None:
    every = [c for of_method in made[0].cells.values() for c in of_method.values()]
    named = {name: Summary([c.model_copy(update={"data": name}) for c in every]) for name in ("grid_digit", "views")}
    verdicts = {name: targets.targets(summary)[4].verdict for name, summary in named.items()}
    assert verdicts == {"grid_digit": "yes", "views": "not asked"}
    alone = targets.above_rivals_together(list(named.values()))
    assert (alone.found, alone.met) == (targets.targets(named["grid_digit"])[4].found, True)
    assert targets.above_rivals_together([named["views"]]).met is None


def test_targets_name_what_was_not_run() -> None:
    alone = Summary([cell("dimml", 0, 0.9)[0]])
    assert [t.met for t in targets.targets(alone)[:5]] == [None] * 5
    assert targets.targets(Summary([cell("late_logits", 0, 0.9)[0]]))[0].met is None


def test_points_are_signed() -> None:
    assert tables.points(Estimate(-0.012, -0.03, 0.01)) == "-1.2 [-3.0, +1.0]"


def test_the_docs_name_every_method(tmp_path: Path) -> None:
    config = tiny_training.configured(tmp_path / "clips.csv")
    text = (REPOSITORY_ROOT / "docs" / "comparing.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w:<>]+)` \| ", text, re.MULTILINE)
    known = [re.sub(r"^single:.*", "single:<modality>", name) for name in all_methods(config)]
    known = [re.sub(r"^dimml:.*", "dimml:<head>", name) for name in known]
    assert len(named) == len(set(named))
    assert set(named) == set(known)


def test_the_page_of_results_says_what_was_not_run(made: tuple[Summary, Any]) -> None:
    spec = importlib.util.spec_from_file_location("make_results", REPOSITORY_ROOT / "scripts" / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    make_results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_results)
    text = make_results.page({"made_up": made[0]})
    assert text.count("\nNot run yet.\n") == len(make_results.WANTED)
    assert "## made_up" in text
    assert "| `joint_concat` |" in text
    for data, _, methods in make_results.WANTED:
        commands = make_results.commands(data)
        assert f"dimml compare training/configs/compare/{data}.yaml --methods {methods}" in commands
        assert "dimml make-manifest " in commands
        assert commands in text
    partly = Summary([c.model_copy(update={"data": "grid_digit"}) for c in made[0].cells["dimml"].values()])
    text = make_results.page({"grid_digit": partly})
    assert "**Not run yet**, by repeat: `single:audio` (0, 1, 2, 3, 4), " in text
    assert "`dimml` (2, 3, 4)" in text
    assert "**Of another state of the config**, by repeat: `dimml` (0, 1)." in text
