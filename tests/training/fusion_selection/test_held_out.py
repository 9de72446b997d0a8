"""Scores for prediction sets: no clip is answered by a fusion that it helped to fit, and absence is simulated."""

from __future__ import annotations

import numpy as np
import pytest

from dimml.bundle import FUSED_HEAD
from dimml.fusion import FusionParameters, FusionSpec, fuse, heads_present
from dimml.modality import patterns_of
from dimml_training.evaluation.heads import HeadLogits
from dimml_training.fusion_selection.held_out import HeldOutFusions, held_out_folds, pattern_answers

NAMES = ("audio", "visual")
CLIPS = 12


def votes(lacking: tuple[int, ...] = ()) -> HeadLogits:
    """Random votes of sound, picture and fused head; the clips that are ``lacking`` have no picture."""
    rng = np.random.default_rng(0)
    present_NM = np.ones((CLIPS, 2), np.bool_)
    present_NM[list(lacking), 1] = False
    return HeadLogits(
        heads=(*NAMES, FUSED_HEAD),
        logits_NHC=rng.standard_normal((CLIPS, 3, 4)).astype(np.float32),
        present_NH=heads_present(present_NM, True),
        labels_N=rng.integers(0, 4, CLIPS),
        features=tuple(rng.standard_normal((CLIPS, width)).astype(np.float32) for width in (2, 2, 4)),
    )


def spec(temperature: float) -> tuple[FusionSpec, FusionParameters]:
    return FusionSpec(fused_head=True, answer_temperature=temperature), FusionParameters()


def test_folds_part_the_clips_that_fitted_and_leave_the_others_out() -> None:
    fold_N = held_out_folds(20, np.arange(0, 20, 2), 5, seed=3)
    assert (fold_N[1::2] == -1).all()
    assert np.bincount(fold_N[::2]).tolist() == [2] * 5


@pytest.mark.parametrize("pattern", list(patterns_of(NAMES)))
def test_each_clip_is_answered_by_the_fusion_of_its_fold_without_the_other_modalities(pattern: tuple[str, ...]) -> None:
    given = votes()
    fold_N = held_out_folds(CLIPS, np.arange(9), 3, seed=0)
    fusions = HeldOutFusions(fold_N, [spec(1.0), spec(2.0), spec(3.0)], spec(5.0))
    found = pattern_answers(given, NAMES, pattern, fusions)
    for clip, fold in enumerate(fold_N):
        present = np.array([["audio" in pattern, "visual" in pattern]])
        temperature = {-1: 5.0, 0: 1.0, 1: 2.0, 2: 3.0}[int(fold)]
        alone = fuse(given.logits_NHC[[clip]], heads_present(present, True), spec(temperature)[0])
        assert found.probabilities_KC[clip] == pytest.approx(alone.probabilities_BC[0], abs=1e-6)
    assert found.labels_K.tolist() == given.labels_N.tolist()


def test_a_clip_counts_for_the_patterns_that_it_has() -> None:
    given = votes(lacking=(0, 5))
    fusions = HeldOutFusions(np.full(CLIPS, -1), [], spec(1.0))
    clips = {pattern: pattern_answers(given, NAMES, pattern, fusions).labels_K for pattern in patterns_of(NAMES)}
    rest = np.delete(given.labels_N, [0, 5])
    assert clips["audio", "visual"].tolist() == clips["visual",].tolist() == rest.tolist()
    assert clips["audio",].tolist() == given.labels_N.tolist()
