"""The choice of a fusion on clips of which some lack a modality: every head on its own clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dimml.fusion import FusionSpec
from dimml_training.config import CertaintyConfig
from dimml_training.config.corruption_suite import ABSENT, Condition, Corruption
from dimml_training.corruptions.encoding import EncodedModality
from dimml_training.fusion_selection.candidate_scores import CandidateScorer
from dimml_training.fusion_selection.condition_rows import rows_of
from dimml_training.fusion_selection.search import choose_fusion, head_temperatures

CLASSES, WIDTH, CLIPS = 3, 4, 60
NOISE = Corruption("audio_noise", "", 1.0, "sound", True, 1)
SUITE = [
    Condition("clean", "clean", True, {}, False, 1),
    Condition("audio:noise", "sound", True, {"audio": NOISE}, True, 1),
    Condition("audio:absent", "absent", True, {"audio": ABSENT}, False, 1),
]


@dataclass(frozen=True)
class Holed:
    """Two heads right by chance and a half; what a clip lacks has zeros, or ``filler`` to see who reads it."""

    labels_N: npt.NDArray[np.int64]
    has: Mapping[str, npt.NDArray[np.bool_]]
    filler: float = 0.0

    def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
        found = {}
        for place, name in enumerate(("audio", "visual")):
            change = condition.by_modality.get(name)
            rng = np.random.default_rng([place, draw, isinstance(change, Corruption)])
            features = np.eye(CLASSES, WIDTH)[self.labels_N] + rng.standard_normal((len(self.labels_N), WIDTH))
            features[~self.has[name]] = self.filler
            present = self.has[name] & (change is not ABSENT)
            values = features.astype(np.float32)
            found[name] = EncodedModality(values, values[:, :CLASSES].copy(), present)
        return found


def holed(seed: int = 0, *, filler: float = 0.0) -> Holed:
    rng = np.random.default_rng(seed)
    third = rng.permutation(CLIPS) % 3
    return Holed(rng.integers(0, CLASSES, CLIPS), {"audio": third != 1, "visual": third != 2}, filler)


def fused_head() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(2 * WIDTH, CLASSES).requires_grad_(False)


def test_a_condition_that_leaves_nothing_of_a_clip_has_no_row_of_it() -> None:
    clips = holed()
    rows = rows_of(clips, None, SUITE, draws=1)
    counts = np.bincount(rows.condition_R)
    assert counts.tolist() == [CLIPS, CLIPS, int(clips.has["visual"].sum())]
    assert rows.present_RH.any(axis=1).all()


def test_regret_is_against_a_modality_on_its_own_clips() -> None:
    """By hand: the answer's accuracy minus the head's, both on the head's clips; the head furthest ahead counts."""
    clips = holed()
    rows = rows_of(clips, None, SUITE, draws=1)
    scorer = CandidateScorer(rows, {})
    spec = FusionSpec(fused_head=False, temperature=None)
    right_R = scorer.answers(spec).logits_BC.argmax(axis=1) == rows.labels_R
    noisy = clips.get(SUITE[1], 0)
    regrets, heads = [], {}
    for name, own in noisy.items():
        there = clips.has[name]
        head = float((own.logits_NC.argmax(axis=1) == clips.labels_N)[there].mean())
        heads[name] = head
        regrets.append(float(right_R[CLIPS : 2 * CLIPS][there].mean()) - head)
    scores = scorer.score(spec)
    assert scores.regret == min(regrets)
    assert scores.accuracy == float(right_R[CLIPS : 2 * CLIPS].mean())
    alone = scorer.heads_alone()
    assert {name: found["mean_accuracy"] for name, found in alone.items()} == {n: round(h, 4) for n, h in heads.items()}


def test_what_stands_where_a_clip_lacks_a_modality_chooses_nothing() -> None:
    config = CertaintyConfig(draws=1, folds=2, temperatures=(0.2,))
    chosen = [
        choose_fusion(holed(filler=f), holed(1, filler=f), fused_head(), SUITE, config, seed=0) for f in (0.0, 50.0)
    ]
    first, second = ({k: v for k, v in c.report.items() if k not in ("seconds",)} for c in chosen)
    assert first == second
    assert chosen[0].spec == chosen[1].spec


def test_temperatures_are_those_of_a_heads_own_clips() -> None:
    clips = holed()
    rows = rows_of(clips, None, SUITE[:1], draws=1)
    own = clips.has["audio"]
    alone = replace(clips, labels_N=clips.labels_N)
    kept = rows_of(alone, None, SUITE[:1], draws=1).take(own)
    assert head_temperatures(rows)[0] == head_temperatures(kept)[0]


def test_without_whole_clips_only_the_modalities_own_heads_vote() -> None:
    labels = np.random.default_rng(0).integers(0, CLASSES, CLIPS)
    half = np.arange(CLIPS) % 2 == 0
    clips = Holed(labels, {"audio": half, "visual": ~half})
    config = CertaintyConfig(draws=1, folds=2, temperatures=(0.2,))
    chosen = choose_fusion(clips, clips, None, SUITE, config, seed=0)
    assert not chosen.spec.fused_head
    assert all(np.isfinite(v) for v in chosen.report["chosen"].values() if isinstance(v, float))
