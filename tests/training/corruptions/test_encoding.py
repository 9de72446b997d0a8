"""Conditions through encoders: each damage is encoded once, and every condition finds what it names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dimml.errors import DataError
from dimml.modality import Frames, Modality, Waveform
from dimml.signal_check import QualityThresholds
from dimml_training.config.corruption_suite import Condition, Corruption, conditions
from dimml_training.corruptions.applying import corrupt
from dimml_training.corruptions.encoding import BATCH, Encoded, encode_conditions
from dimml_training.data.loader import ClipRows

SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=800)
PICTURE = Frames(name="visual", frames=2, height=16, width=16)
MODALITIES: list[Modality] = [SOUND, PICTURE]
#: More than a batch, so that what depends on the batch shows.
CLIPS = BATCH + 7
NUMBERS = np.random.default_rng(0)
ROWS = ClipRows(
    arrays={
        "audio": (0.05 * NUMBERS.standard_normal((CLIPS, 800))).astype(np.float32),
        "visual": NUMBERS.integers(0, 256, (CLIPS, *PICTURE.shape)).astype(np.uint8),
    },
    slots=np.arange(CLIPS)[::-1].copy(),
    labels=np.arange(CLIPS) % 3,
)


class Counting(nn.Module):
    """The mean, the deviation and one value of a row as features, and as logits; counts rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.rows += len(rows)
        flat = rows.float().flatten(1)
        features = torch.stack([flat.mean(dim=1), flat.std(dim=1), flat[:, 17]], dim=1)
        return features, -features


SUITE = conditions(MODALITIES, "all")


@pytest.fixture(scope="module")
def encoders() -> dict[str, Counting]:
    return {"audio": Counting(), "visual": Counting()}


@pytest.fixture(scope="module")
def encoded(encoders: dict[str, Counting]) -> Encoded:
    return encode_conditions(encoders, MODALITIES, ROWS, SUITE, QualityThresholds(), seed=5)


def named(name: str) -> Condition:
    return next(c for c in SUITE if c.name == name)


def test_each_damage_is_encoded_once(encoders: dict[str, Counting], encoded: Encoded) -> None:
    for modality in MODALITIES:
        damages = {c.by_modality.get(modality.name) for c in SUITE}
        times = 1 + sum(d.draws for d in damages if isinstance(d, Corruption))
        assert encoders[modality.name].rows == times * CLIPS
    white, both = named("audio:white_0db"), named("audio+visual:white_0db+blur_2pct")
    assert encoded.get(white, 2)["audio"] is encoded.get(both, 2)["audio"]
    assert encoded.get(white, 2)["visual"] is encoded.get(named("clean"), 0)["visual"]


@pytest.mark.parametrize(
    "name", ["audio:white_0db", "audio:another_clip_0db", "visual:patch_40pct", "visual:blur_2pct"]
)
def test_the_encoder_meets_the_clips_in_order_damaged_by_seed_draw_and_number(encoded: Encoded, name: str) -> None:
    condition = named(name)
    modality = next(m for m in MODALITIES if m.name in condition.by_modality)
    rows = ROWS.rows(modality.name, slice(None))
    change = condition.by_modality[modality.name]
    assert isinstance(change, Corruption)
    for draw in range(condition.draws):
        expected = corrupt(rows, modality, change, clip_ids=range(CLIPS), draw=draw, seed=5)
        features, logits = Counting()(torch.from_numpy(expected))
        found = encoded.get(condition, draw)[modality.name]
        np.testing.assert_array_equal(found.features_ND, features.numpy())
        np.testing.assert_array_equal(found.logits_NC, logits.numpy())
        assert found.present_N.all()


def test_absent_and_without_signal(encoded: Encoded) -> None:
    absent = encoded.get(named("audio:absent"), 0)
    assert not absent["audio"].present_N.any()
    assert not absent["audio"].features_ND.any()
    assert absent["visual"].present_N.all()
    assert not encoded.get(named("audio:silence"), 0)["audio"].present_N.any()
    assert not encoded.get(named("visual:black"), 0)["visual"].present_N.any()
    assert encoded.get(named("clean"), 0)["visual"].present_N.all()


def test_conflict_takes_one_modality_from_a_clip_of_another_label(encoded: Encoded) -> None:
    clean = encoded.get(named("clean"), 0)
    assert list(clean) == ["audio", "visual"]
    for draw in range(3):
        found = encoded.get(named("visual:other_clip"), draw)
        assert found["audio"] is clean["audio"]
        places = [
            np.flatnonzero((clean["visual"].features_ND == row).all(axis=1))[0] for row in found["visual"].features_ND
        ]
        assert (ROWS.labels[places] != ROWS.labels).all()


def test_progress_counts_encodings() -> None:
    told: list[tuple[int, int]] = []
    suite = [c for c in SUITE if c.name in {"clean", "audio:white_0db", "audio:absent"}]
    encode_conditions(
        {"audio": Counting(), "visual": Counting()},
        MODALITIES,
        ROWS,
        suite,
        QualityThresholds(),
        seed=0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(i, 5) for i in range(1, 6)]


def test_one_clip_is_told_that_it_needs_another() -> None:
    single = ClipRows(ROWS.arrays, ROWS.slots[:1], ROWS.labels[:1])
    with pytest.raises(DataError, match="needs at least two"):
        encode_conditions(
            {"audio": Counting(), "visual": Counting()}, MODALITIES, single, SUITE, QualityThresholds(), seed=0
        )


class Strict(Counting):
    """An encoder that fails on a row of a clip that lacks the modality."""

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        assert torch.isfinite(rows.float()).all()
        return super().forward(rows)


def test_clips_without_a_modality_are_neither_encoded_nor_another_clip() -> None:
    has = NUMBERS.random(CLIPS) < 0.5
    audio = ROWS.arrays["audio"].copy()
    audio[ROWS.slots[~has]] = np.nan
    holed = ClipRows({**ROWS.arrays, "audio": audio}, ROWS.slots, ROWS.labels, {"audio": has})
    mixed = [c for c in SUITE if any(getattr(d, "family", "") == "another_clip" for d in c.by_modality.values())]
    conflict = [c for c in SUITE if c.group == "conflict"]
    assert mixed
    assert conflict
    suite = [SUITE[0], *mixed, *conflict]
    encoders = {"audio": Strict(), "visual": Strict()}
    found = encode_conditions(encoders, MODALITIES, holed, suite, QualityThresholds(), seed=5)
    assert encoders["audio"].rows % has.sum() == 0
    np.testing.assert_array_equal(found.has(), np.stack([has, np.ones(CLIPS, np.bool_)], axis=1))
    for condition in suite:
        own = found.get(condition, 0)["audio"]
        np.testing.assert_array_equal(own.present_N, has)
        assert not own.features_ND[~has].any()
        assert np.isfinite(own.features_ND).all()
    # In a conflict, sound comes from a clip of another class that has it.
    clean = found.get(SUITE[0], 0)["audio"].features_ND
    for condition in conflict:
        if "audio" in condition.by_modality:
            for clip in np.flatnonzero(has):
                given = found.get(condition, 0)["audio"].features_ND[clip]
                (source,) = np.flatnonzero((clean == given).all(axis=1))
                assert has[source]
                assert ROWS.labels[source] != ROWS.labels[clip]
