"""Bootstrap replicates of a cell, held against figures of the clips that were drawn, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.metrics.classification import auroc, ece, macro_f1, weighted_ece
from dimml_training.compare import replicates
from dimml_training.compare.bootstrap import ece_estimate, resample_weights, sampled_estimate
from dimml_training.compare.packed_cells import read_cells
from dimml_training.compare.replicated_metrics import MACRO_F1, NLL, rise_metric
from dimml_training.compare.work import Comparison, planned, work_off
from support import tiny_training

CLIPS = 60


def drawn(weights_N: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Places of the clips, each as often as it was drawn."""
    return np.repeat(np.arange(len(weights_N)), weights_N.astype(int))


def test_the_same_clips_are_drawn_alike_and_others_independently() -> None:
    same = [replicates.clip_weights(np.arange(30), 20) for _ in range(2)]
    assert (same[0] == same[1]).all()
    assert (same[0].sum(axis=1) == 30).all()
    assert (replicates.clip_weights(np.arange(30, 60), 20) != same[0]).any()


def test_means_are_of_the_clips_drawn_that_count() -> None:
    rng = np.random.default_rng(0)
    values_N = rng.random(CLIPS)
    values_N[::4] = np.nan
    weights_SN = replicates.clip_weights(np.arange(CLIPS), 15)
    expected = [np.nanmean(values_N[drawn(weights_N)]) for weights_N in weights_SN]
    assert replicates.means(values_N, weights_SN) == pytest.approx(expected)
    assert np.isnan(replicates.means(np.full(CLIPS, np.nan), weights_SN)).all()


def test_macro_f1_is_that_of_the_clips_drawn() -> None:
    rng = np.random.default_rng(1)
    labels_N, guesses_N = rng.integers(0, 12, CLIPS), rng.integers(0, 12, CLIPS)
    labels_N[labels_N == 5] = 4  # a class that never occurs, in truth or guess
    guesses_N[guesses_N == 5] = 4
    weights_SN = replicates.clip_weights(np.arange(CLIPS), 15)
    expected = [macro_f1(labels_N[drawn(w)], guesses_N[drawn(w)], 12) for w in weights_SN]
    assert replicates.macro_f1s(labels_N, guesses_N, 12, weights_SN) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [None, 4])
def test_auroc_is_that_of_the_clips_drawn_with_all_their_answers(steps: int | None) -> None:
    rng = np.random.default_rng(2)
    positive_AN = rng.random((3, CLIPS)) < 0.6
    scores_AN = 0.5 * rng.random((3, CLIPS)) + 0.3 * positive_AN
    if steps is not None:  # many ties
        scores_AN = np.round(scores_AN * steps)
    there_AN = rng.random((3, CLIPS)) < 0.8
    weights_SN = replicates.clip_weights(np.arange(CLIPS), 15)
    expected = []
    for weights_N in weights_SN:
        places = drawn(weights_N)
        there = there_AN[:, places]
        expected.append(auroc(scores_AN[:, places][there], positive_AN[:, places][there]))
    found = replicates.aurocs(scores_AN, positive_AN, there_AN, weights_SN)
    assert found == pytest.approx(expected, abs=2e-3)
    assert np.isnan(replicates.aurocs(scores_AN, np.ones_like(positive_AN), there_AN, weights_SN)).all()


def test_ece_is_that_of_the_clips_drawn() -> None:
    rng = np.random.default_rng(3)
    confidence_N, right_N = rng.random(CLIPS), rng.random(CLIPS) < 0.5
    weights_SN = resample_weights([np.arange(CLIPS)], resamples=40)
    expected = [ece(confidence_N[drawn(w)], right_N[drawn(w)]) for w in weights_SN]
    assert weighted_ece(confidence_N, right_N, weights_SN) == pytest.approx(expected)
    found = ece_estimate(confidence_N, right_N, weights_SN)
    assert (found.value, found.low) == pytest.approx((ece(confidence_N, right_N), np.quantile(expected, 0.025)))


def test_repeats_of_other_clips_make_the_interval_narrower_those_of_the_same_do_not() -> None:
    rng = np.random.default_rng(4)
    values_N = rng.random(400)
    alike = replicates.means(values_N, replicates.clip_weights(np.arange(400)))
    apart = replicates.means(values_N, replicates.clip_weights(np.arange(400) + 1000))
    widths = []
    for second in (alike, apart):
        found = sampled_estimate(float(values_N.mean()), np.stack([alike, second]))
        assert found.low < values_N.mean() < found.high
        widths.append(found.high - found.low)
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(0.5), rel=0.15)


@pytest.mark.slow(reason="trains three runs and evaluates each")
def test_a_cell_keeps_replicates_of_its_figures(tmp_path: Path) -> None:
    config = tiny_training.configured(tiny_training.write_clips(tmp_path), epochs=2)
    methods = ("single:audio", "dimml_clw", "joint_concat")
    comparison = Comparison(config, methods, 1, tmp_path / "out", tmp_path / "work", tmp_path / "cache")
    jobs = planned(comparison, tell=lambda _: None)
    assert work_off(jobs, comparison, tell=lambda _: None) == []
    found = {cell.method: cell for cell in read_cells(tmp_path / "out")}
    for method, cell in found.items():
        figures: dict[str, Any] = {MACRO_F1: cell.conditions["clean"].macro_f1, NLL: cell.conditions["clean"].nll}
        if method == "single:audio":
            assert cell.samples(rise_metric("audio:absent")) is None, "nothing is answered without it"
        figures |= {rise_metric(n): share for n, share in cell.confidence_rise.items() if n != "audio:absent"}
        for figure, value in figures.items():
            samples_S = cell.samples(figure)
            assert samples_S is not None, (method, figure)
            assert samples_S.min() - 0.06 <= value <= samples_S.max() + 0.06, (method, figure)
    assert found["joint_concat"].samples("certainty_auroc") is None
    assert found["single:audio"].samples("disagreement_auroc") is None
    assert found["dimml_clw"].samples("disagreement_auroc") is not None
