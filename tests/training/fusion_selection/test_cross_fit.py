"""Learning a reliability with the other heads in view, on votes made up so that only the others give a lie away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from dimml.fusion import ALONE, FusionParameters, FusionSpec, fuse
from dimml.modality import Frames, Series, Waveform
from dimml_training.config import CertaintyConfig
from dimml_training.config.composed_conditions import composed_conditions
from dimml_training.config.corruption_suite import Condition, Corruption, conditions
from dimml_training.corruptions.applying import corrupt
from dimml_training.corruptions.encoding import EncodedModality
from dimml_training.fusion_selection import cross_fit as cross_fit_module
from dimml_training.fusion_selection.condition_rows import ConditionRows, rows_of
from dimml_training.fusion_selection.cross_fit import REGRET_PRICE, cross_fit, head_geometry, regret_prices
from dimml_training.fusion_selection.refit_rows import refit_rows
from dimml_training.fusion_selection.reliability_fit import ReliabilityFits, stored_neighbours
from dimml_training.fusion_selection.search import ChosenFusion, choose_fusion, head_temperatures

CLASSES, WIDTH = 4, 6
MODALITIES = ("audio", "visual", "rear")
QUICK = CertaintyConfig(draws=1, folds=2, temperatures=(0.2,), certainties=("cross_reliability",))


@dataclass(frozen=True)
class Liar:
    """Three heads; a damaged one shows another class just as an intact one would: its own outputs betray nothing."""

    labels_N: np.ndarray
    seed: int = 0

    def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
        found = {}
        for place, name in enumerate(MODALITIES):
            change = condition.by_modality.get(name)
            family = change.name if isinstance(change, Corruption) else "clean"
            rng = np.random.default_rng([self.seed, place, draw, *family.encode()])
            shown_N = (self.labels_N + (1 + place) * isinstance(change, Corruption)) % CLASSES
            features = 3 * np.eye(CLASSES, WIDTH)[shown_N] + 0.5 * rng.standard_normal((len(shown_N), WIDTH))
            logits = (2 * features[:, :CLASSES]).astype(np.float32)
            there_N = np.ones(len(shown_N), np.bool_)
            found[name] = EncodedModality(features.astype(np.float32), logits, there_N)
        return found


def suite() -> list[Condition]:
    found = [Condition("clean", "clean", True, {}, False, 1)]
    of = {name: [Corruption(f"{name}_{f}", "", 1.0, "sound", True, 1) for f in "abc"] for name in MODALITIES}
    for name, own in of.items():
        found += [Condition(f"{name}:{c.name}", "sound", True, {name: c}, True, 1) for c in own]
    pair = {name: of[name][0] for name in MODALITIES[:2]}
    return [*found, Condition("pair", "composed", True, pair, False, 1)]


def labels(clips: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CLASSES, clips)


VALIDATION, TRAIN = Liar(labels(40, 1), seed=1), Liar(labels(300, 2), seed=2)


def rows(clips: Liar = VALIDATION, wanted: list[Condition] | None = None) -> ConditionRows:
    return rows_of(clips, None, wanted or suite(), draws=1)


@pytest.fixture(scope="module")
def chosen() -> ChosenFusion:
    return choose_fusion(VALIDATION, TRAIN, None, suite(), QUICK, seed=0)


@pytest.mark.parametrize("cross", [True, False])
def test_a_lie_that_only_the_others_give_away_is_found_with_them_in_view_alone(cross: bool) -> None:
    some, fresh = rows(), rows(Liar(labels(60, 7), seed=7))
    fits = ReliabilityFits(
        some, head_geometry(rows(TRAIN, suite()[:1])), np.ones((1, len(some.labels_R))), [1.0] * 3, seed=0, cross=cross
    )
    fits.fit_own()
    spec = FusionSpec(certainty="cross_reliability" if cross else "reliability", fused_head=False)
    answer = fuse(fresh.logits_RHC, fresh.present_RH, spec, FusionParameters(fits.parameters()), fresh.features)
    for place, name in enumerate(MODALITIES):
        lying_R = np.array([set(c.by_modality) == {name} for c in fresh.conditions])[fresh.condition_R]
        certain_H = answer.certainty_BH[lying_R].mean(axis=0)
        lead = float(np.delete(certain_H, place).min() - certain_H[place])
        assert lead > 0.5 if cross else abs(lead) < 0.25


def test_a_form_fitted_again_learns_from_composed_rows_and_is_calibrated_on_the_others() -> None:
    geometry = head_geometry(rows(TRAIN, suite()[:1]))
    temperatures = head_temperatures(rows().judged())
    spec = FusionSpec(
        certainty="cross_reliability", fused_head=False, pooling="product", head_temperatures=temperatures
    )
    wanted = cross_fit(rows(), geometry, temperatures, folds=2, seed=0, cross=True, regret_weighted=True)
    for weighted in (True, False):
        again, parameters = refit_rows(rows(), geometry, spec, QUICK, seed=0, regret_weighted=weighted)
        assert again.model_copy(update={"answer_temperature": 1.0}) == spec
        same = [
            np.array_equal(value, FusionParameters(wanted.final).arrays()[name])
            for name, value in parameters.arrays().items()
        ]
        assert all(same) == weighted


def test_reliability_of_a_fit_is_what_the_fusion_computes_from_its_parameters() -> None:
    """Served is what was evaluated: torch's scores against numpy's, with modalities missing."""
    some = rows()
    present_RH = some.present_RH.copy()
    present_RH[::3, 1], present_RH[::4, 2] = False, False
    some = replace(some, present_RH=present_RH)
    fits = ReliabilityFits(
        some, head_geometry(rows(TRAIN, suite()[:1])), np.ones((1, len(some.labels_R))), [1.0] * 3, seed=0, cross=True
    )
    fits.fit_own(20)
    parameters = fits.parameters()
    assert all(head.offset_K[ALONE] == 0 and head.scale_K[ALONE] == 1 for head in parameters)
    spec = FusionSpec(certainty="cross_reliability", fused_head=False)
    from_fusion = fuse(some.logits_RHC, present_RH, spec, FusionParameters(parameters), some.features)
    wanted = np.where(present_RH, fits.reliability()[0], 0)
    np.testing.assert_allclose(from_fusion.certainty_BH, wanted, atol=1e-5)


def test_composed_conditions_are_learned_from_and_not_judged_on(chosen: ChosenFusion) -> None:
    assert chosen.report["conditions"] == [c.name for c in suite()[:-1]]
    assert chosen.report["composed_conditions"] == ["pair"]
    every = rows()
    judged = every.judged()
    assert (every.learned_only().sum(), len(judged.labels_R)) == (40, len(every.labels_R) - 40)
    assert [c.name for c in judged.conditions] == chosen.report["conditions"]


def test_a_row_at_stake_costs_more() -> None:
    every = rows()
    right_RH = every.logits_RHC.argmax(axis=2) == every.labels_R[:, None]
    prices = [1 + REGRET_PRICE * (any(right) and not all(right)) for right in right_RH.tolist()]
    assert regret_prices(every).tolist() == prices
    assert {1.0, 1 + REGRET_PRICE} == set(prices)


def test_stored_neighbours_are_bounded_and_of_every_class() -> None:
    features = np.random.default_rng(0).normal(size=(2000, WIDTH)).astype(np.float32)
    of_N = np.repeat(np.arange(CLASSES), 500)
    stored = stored_neighbours(features, of_N)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
    assert stored.shape == (256, WIDTH)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = (stored @ unit.T).argmax(axis=1)
    assert np.bincount(of_N[found]).tolist() == [64] * CLASSES


def test_chains_are_of_two_seen_families_of_one_target_and_do_both_damages() -> None:
    modalities = (
        Waveform(name="audio", sample_rate_hz=8000, samples=4000),
        Frames(name="visual", frames=3, height=24, width=24),
    )
    found = composed_conditions(modalities)
    seen = {f for c in conditions(modalities, "seen") for f in c.families}
    assert {f for c in found for f in c.families} <= seen
    assert {c.group for c in found} == {"composed"}
    assert not any(c.in_means for c in found)
    assert len({c.name for c in found}) == len(found)
    assert {len(c.families) for c in found} == {2}
    assert {frozenset(c.by_modality) for c in found} == {frozenset({"audio"}), frozenset({"visual"})}
    only = composed_conditions(modalities, ("white", "gaps", "blur"))
    assert {c.name for c in only} == {"audio:white_10db>gaps_60pct"}
    sensor = Series(name="imu", channels=2, sample_rate_hz=50, samples=100)
    three = composed_conditions((*modalities, sensor))
    assert {frozenset(c.by_modality) for c in three} == {frozenset({name}) for name in ("audio", "visual", "imu")}
    first = Corruption("low_pass", "500hz", 500.0, "sound", True, 1)
    second = Corruption("high_pass", "2000hz", 2000.0, "sound", True, 1)
    clips = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4000)).astype(np.float32)
    ids = [0, 1]
    one = corrupt(clips, modalities[0], first, clip_ids=ids, draw=0, seed=0)
    both = corrupt(one, modalities[0], second, clip_ids=ids, draw=0, seed=0)
    chain = corrupt(clips, modalities[0], replace(first, then=second), clip_ids=ids, draw=0, seed=0)
    np.testing.assert_array_equal(chain, both)
    assert not np.allclose(chain, one)


def with_kin() -> list[Condition]:
    """The suite with a kin condition, near to a seen family, before the composed one."""
    like = Corruption("like_audio_a", "", 0.0, "sound", True, 1, near=("audio_a",))
    kin = Condition("audio:like_audio_a", "kin", True, {"audio": like}, False, 1)
    return [*suite()[:-1], kin, suite()[-1]]


def test_kin_is_learned_from_and_not_judged_on(chosen: ChosenFusion) -> None:
    """By the reliability of a head alone, too."""
    one = QUICK.model_copy(update={"certainties": ("reliability",)})
    kin = choose_fusion(VALIDATION, TRAIN, None, with_kin(), one, seed=0)
    assert kin.report["kin_conditions"] == ["audio:like_audio_a"]
    assert chosen.report["kin_conditions"] == []
    assert kin.report["conditions"] == chosen.report["conditions"]
    geometry = head_geometry(rows(TRAIN, suite()[:1]))
    spec = FusionSpec(certainty="reliability", fused_head=False, pooling="product")
    without, found = (
        refit_rows(rows(wanted=wanted), geometry, spec, QUICK, seed=0)[1].arrays() for wanted in (suite(), with_kin())
    )
    assert any(not np.array_equal(without[name], value) for name, value in found.items())


def test_kin_is_left_out_with_the_family_that_it_resembles(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[np.ndarray] = []

    class Watched(ReliabilityFits):
        def __init__(self, of: ConditionRows, geometry: object, weights_FR: np.ndarray, *rest: object, **more: object):
            weights.append(weights_FR)
            super().__init__(of, geometry, weights_FR, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(cross_fit_module, "ReliabilityFits", Watched)
    every = rows(wanted=with_kin())
    geometry = head_geometry(rows(TRAIN, suite()[:1]))
    cross_fit(every, geometry, [1.0] * 3, folds=2, seed=0, cross=True)
    (weights_FR,) = weights
    of = {c.name: every.condition_R == index for index, c in enumerate(every.conditions)}
    learned = {name: (weights_FR[:, which] > 0).any(axis=1) for name, which in of.items()}
    assert (learned["audio:like_audio_a"] == learned["audio:audio_a"]).all()
    assert not learned["audio:like_audio_a"].all()
    assert not (learned["audio:like_audio_a"] == learned["audio:audio_b"]).all()
