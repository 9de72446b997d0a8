"""Estimated chance of an answer of being right: the formula by hand, what is observed, and what a manifest may hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dimml import fusion
from dimml.bundle import Bundle
from dimml.digests import historic
from dimml.ensemble import EnsembleResult
from dimml.monitoring.accuracy_estimate import AccuracyEstimate, CertaintyWeight, PatternEstimate
from dimml.monitoring.observation import observations
from dimml.status import OK, ModalityStatus, Reason
from support.tiny_sets import bundle_of_sets

SILENT = ModalityStatus.because(Reason.SILENT)
AUDIO = CertaintyWeight(agrees=1.5, differs=-2.0)
VISUAL = CertaintyWeight(agrees=0.5, differs=-0.25)
WHOLE = PatternEstimate(
    modalities=("audio", "visual"),
    clips=40,
    clean=0.9,
    bias=0.3,
    log_odds=0.7,
    certainty={"audio": AUDIO, "visual": VISUAL},
    disagreement=-1.25,
)
SOUND = PatternEstimate(modalities=("audio",), clips=40, clean=0.6, bias=-1.0, log_odds=0.5, certainty={"audio": AUDIO})


#: No fused head votes.
ALONE = fusion.FusionSpec(fused_head=False)


def bundle(*patterns: PatternEstimate) -> Bundle:
    return bundle_of_sets(accuracy_estimate=AccuracyEstimate(patterns=patterns), fusion=ALONE)


def test_the_chance_is_the_logistic_function_of_the_weighted_inputs() -> None:
    found = WHOLE.chance(0.8, {"audio": 0.9, "visual": 0.4}, {"audio": True, "visual": False}, 0.2)
    logit = 0.3 + 0.7 * math.log(4.0) + 1.5 * 0.9 - 0.25 * 0.4 - 1.25 * 0.2
    assert found == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-12)
    sure = SOUND.chance(1.0, {"audio": 1.0}, {"audio": True}, None)
    assert sure == pytest.approx(1 / (1 + math.exp(-(-1.0 + 0.5 * math.log(9999.0) + 1.5))), abs=1e-9)
    steep = SOUND.model_copy(update={"bias": 1e6})
    assert 0.0 < steep.chance(0.5, {"audio": 0.0}, {"audio": False}, None) < 1.0


def test_what_is_observed_is_the_estimate_of_the_pattern_or_the_probability_of_the_answer() -> None:
    """Both; sound alone; picture alone, of which there is no estimate. Heads, votes and disagreement by hand."""
    statuses = {"audio": [OK, OK, SILENT], "visual": [OK, SILENT, OK]}
    present = np.array([[True, True], [True, False], [False, True]])
    logits = np.array([[[2, 0, 0], [0, 1, 0]], [[0, 2, 1], [0, 0, 0]], [[0, 0, 0], [1, 0, 2]]], np.float32)
    fused = fusion.fuse(logits, present, ALONE)
    own = {name: logits[:, index] for index, name in enumerate(statuses)}
    rows = list(observations(bundle(WHOLE, SOUND), EnsembleResult(fused, own, statuses, {}, 0.0)))

    def softmax(values: list[float]) -> list[float]:
        total = sum(map(math.exp, values))
        return [math.exp(value) / total for value in values]

    sound, picture = softmax([2, 0, 0]), softmax([0, 1, 0])
    # Certainty is the largest probability; the sound is surer, so its label is the answer's.
    assert fused.probabilities_BC[0].argmax() == 0
    disagreement = 1 - sum(one * other for one, other in zip(sound, picture, strict=True))
    p = float(fused.probabilities_BC[0].max())
    logit = 0.3 + 0.7 * math.log(p / (1 - p)) + 1.5 * max(sound) - 0.25 * max(picture) - 1.25 * disagreement
    assert rows[0].chance == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
    p = float(fused.probabilities_BC[1].max())
    logit = -1.0 + 0.5 * math.log(p / (1 - p)) + 1.5 * max(softmax([0, 2, 1]))
    assert rows[1].chance == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
    assert rows[2].chance == rows[2].probability == pytest.approx(float(fused.probabilities_BC[2].max()))
    plain = list(observations(bundle_of_sets(fusion=ALONE), EnsembleResult(fused, own, statuses, {}, 0.0)))
    assert [row.chance for row in plain] == [row.probability for row in rows]


def test_a_bundle_of_before_has_no_estimate_and_keeps_its_digest() -> None:
    before = bundle_of_sets(fusion=ALONE)
    assert before.accuracy_estimate is None
    assert historic(before)["accuracy_estimate"] is True
    assert "accuracy_estimate" not in historic(bundle(SOUND))
    assert bundle(SOUND).sha256 != before.sha256
    assert Bundle.model_validate_json(bundle(WHOLE, SOUND).model_dump_json()) == bundle(WHOLE, SOUND)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ((SOUND, SOUND), "a pattern of modalities has two estimates"),
        ((WHOLE.model_copy(update={"modalities": ("visual", "audio")}),), "names visual and audio"),
        ((WHOLE.model_copy(update={"certainty": {"audio": AUDIO}}),), "the heads that vote are"),
        ((SOUND.model_copy(update={"certainty": {"audio": AUDIO, "fused": AUDIO}}),), "the heads that vote are"),
    ],
)
def test_a_manifest_s_estimates_must_be_of_its_heads(patterns: tuple[PatternEstimate, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        bundle(*patterns)


def test_the_fused_head_has_a_weight_where_it_votes() -> None:
    changes: dict[str, Any] = {"fusion": fusion.FusionSpec(fused_head=True)}
    with pytest.raises(ValidationError, match="'audio', 'fused', 'visual'"):
        bundle_of_sets(accuracy_estimate=AccuracyEstimate(patterns=(WHOLE,)), **changes)
    fused = WHOLE.model_copy(update={"certainty": {**WHOLE.certainty, "fused": CertaintyWeight(agrees=1, differs=1)}})
    whole = bundle_of_sets(accuracy_estimate=AccuracyEstimate(patterns=(fused, SOUND)), **changes)
    assert whole.accuracy_estimate is not None
