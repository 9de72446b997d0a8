"""Damage on request: what it does by arithmetic, that it repeats itself, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from dimml.errors import InvalidParameterError
from dimml.explanation.damage import GREY, damaged, described, parse_damage
from dimml.modality import Flow, Frames, Waveform

AUDIO = Waveform(name="audio", sample_rate_hz=8000, samples=8000)
VISUAL = Frames(name="visual", frames=3, height=40, width=60)
MOTION = Flow(name="motion", frames=2, height=16, width=16)
MODALITIES = (AUDIO, VISUAL, MOTION)


def tone(level: float) -> np.ndarray:
    return (level * np.sin(np.arange(AUDIO.samples) * 0.3)).astype(np.float32)[None]


def hurt(text: str, **tensors: np.ndarray) -> dict[str, np.ndarray]:
    return damaged(tensors, parse_damage(text, MODALITIES))


@pytest.mark.parametrize("snr_db", [-30.0, -10.0, 0.0, 12.5, 60.0])
def test_noise_has_the_power_that_was_asked_for(snr_db: float) -> None:
    clean = tone(1e-3)
    noise = hurt(f"audio:noise:{snr_db}", audio=clean)["audio"].astype(np.float64) - clean
    ratio = np.mean(clean.astype(np.float64) ** 2) / np.mean(noise**2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.01)
    # White: neighbouring samples, and halves of the band, have nothing in common.
    assert abs(np.corrcoef(noise[0, 1:], noise[0, :-1])[0, 1]) < 0.05


def test_what_passes_full_scale_is_made_quieter_at_the_same_ratio() -> None:
    clean = tone(0.9).astype(np.float64)
    mix = hurt("audio:noise:-10", audio=tone(0.9))["audio"].astype(np.float64)
    assert np.abs(mix).max() == pytest.approx(1.0)
    gain = float(np.vdot(mix, clean) / np.vdot(clean, clean))
    assert gain < 0.5
    # The noise is nearly, not exactly, orthogonal to the tone.
    ratio = gain**2 * np.mean(clean**2) / np.mean((mix - gain * clean) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(-10.0, abs=0.5)


def test_the_same_row_is_damaged_alike_and_what_was_given_stays() -> None:
    clean = tone(0.1)
    before = clean.copy()
    one, other = (hurt("audio:noise:3", audio=clean)["audio"] for _ in range(2))
    assert np.array_equal(one, other)
    assert np.array_equal(clean, before)
    assert not np.array_equal(one, clean)
    both = hurt("audio:noise:3", audio=np.concatenate([clean, clean]))["audio"]
    assert np.array_equal(both, np.concatenate([one, one]))


@pytest.mark.parametrize(("share", "sides"), [(0.0, (0, 0)), (0.25, (20, 30)), (0.5, (28, 42)), (1.0, (40, 60))])
def test_a_cover_has_its_share_of_the_picture_in_the_middle(share: float, sides: tuple[int, int]) -> None:
    clip = np.full((1, *VISUAL.shape), 7, np.uint8)
    grey = hurt(f"visual:cover:{share}", visual=clip)["visual"] == GREY
    assert grey[..., 0].sum(axis=(2, 3)).tolist() == [[sides[0] * sides[1]] * 3]
    assert grey.mean() == pytest.approx(share, abs=0.02)
    assert np.array_equal(grey, grey[:, :, ::-1])
    assert np.array_equal(grey, grey[:, :, :, ::-1])


def test_pixel_noise_has_its_deviation_and_stays_within_bytes() -> None:
    clip = np.full((1, *VISUAL.shape), GREY, np.uint8)
    noisy = hurt("visual:noise:20", visual=clip)["visual"]
    assert noisy.dtype == np.uint8
    assert noisy.std() == pytest.approx(20.0, rel=0.03)
    assert noisy.mean() == pytest.approx(GREY, abs=1.0)
    wild = hurt("visual:noise:255", visual=np.full((1, *VISUAL.shape), 250, np.uint8))["visual"]
    assert (wild.min(), wild.max()) == (0, 255)
    assert np.array_equal(hurt("motion:noise:0", motion=clip)["motion"], clip)


def test_several_are_done_in_order_and_described() -> None:
    damages = parse_damage(" visual:noise:30, visual:cover:1,audio:noise:-10 ", MODALITIES)
    clip = np.full((1, *VISUAL.shape), 7, np.uint8)
    assert (damaged({"visual": clip}, damages)["visual"] == GREY).all()
    assert described(damages, {"visual": clip}) == {"visual": "noise:30,cover:1"}
    assert described(damages, {"visual": clip, "audio": 0})["audio"] == "noise:-10"
    assert parse_damage(None, MODALITIES) == parse_damage("", MODALITIES) == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("audio", "MODALITY:KIND:AMOUNT"),
        ("audio:noise", "MODALITY:KIND:AMOUNT"),
        ("smell:noise:3", "smell"),
        ("audio:cover:0.5", "takes noise"),
        ("visual:blur:3", "cover or noise"),
        ("audio:noise:loud", "from -30 to 60"),
        ("audio:noise:nan", "from -30 to 60"),
        ("audio:noise:-31", "from -30 to 60"),
        ("audio:noise:61", "from -30 to 60"),
        ("visual:cover:1.01", "from 0 to 1"),
        ("visual:noise:256", "from 0 to 255"),
        ("audio:noise:0," + "x" * 2000, "1024 characters"),
        (",".join(["visual:cover:0.1", "visual:noise:1"] * 30), "visual:cover stands there more than once"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(InvalidParameterError, match=named) as caught:
        parse_damage(text, MODALITIES)
    assert caught.value.field == "damage"
    assert len(caught.value.message) < 250
