"""Corruption of training batches: what it does, and that it does no more."""

from __future__ import annotations

import numpy as np
import torch

from dimml_training.config import PictureAugmentConfig, SoundAugmentConfig
from dimml_training.config.corruption_suite import FAMILIES
from dimml_training.data.augment import augment_pictures, augment_sound, mix_at_snr
from dimml_training.evaluation.heads import with_white_noise

SOUND = 0.1 * torch.randn(16, 2000, generator=torch.Generator().manual_seed(0))
PICTURES = torch.randint(0, 256, (8, 4, 12, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_nothing_is_on_by_default() -> None:
    assert torch.equal(augment_sound(SOUND, SoundAugmentConfig(), 8000), SOUND)
    assert torch.equal(augment_pictures(PICTURES, PictureAugmentConfig()), PICTURES.float())


def test_noise_has_the_ratio_that_was_asked_for() -> None:
    for snr_db in (-10.0, 0.0, 20.0):
        noise = mix_at_snr(SOUND, torch.randn_like(SOUND), torch.full((16,), snr_db)) - SOUND
        found = 10 * torch.log10(SOUND.square().mean(dim=1) / noise.square().mean(dim=1))
        torch.testing.assert_close(found, torch.full((16,), snr_db), atol=1e-3, rtol=0)


def test_evaluation_noise_depends_on_the_clip_and_the_seed_alone() -> None:
    whole = with_white_noise(SOUND, 0.0, seed=1)
    assert torch.equal(whole[5:7], with_white_noise(SOUND[5:7], 0.0, seed=1, first=5))
    assert not torch.equal(whole, with_white_noise(SOUND, 0.0, seed=2))


def test_sound_is_moved_and_zeros_move_in() -> None:
    moved = augment_sound(SOUND, SoundAugmentConfig(shift_ms=10.0), 8000)
    for before, after in zip(SOUND.numpy(), moved.numpy(), strict=True):
        shifts = [s for s in range(-80, 81) if np.array_equal(np.roll(before, s)[80:-80], after[80:-80])]
        assert len(shifts) == 1
        expected = np.roll(before, shifts[0])
        if shifts[0] > 0:
            expected[: shifts[0]] = 0.0
        elif shifts[0] < 0:
            expected[shifts[0] :] = 0.0
        np.testing.assert_array_equal(after, expected)


def test_gain_and_babble() -> None:
    ratio = augment_sound(SOUND, SoundAugmentConfig(gain_db=6.0), 8000) / SOUND
    assert (ratio.std(dim=1) < 1e-5).all()
    assert 0.49 < float(ratio.min()) < 0.9
    assert 1.1 < float(ratio.max()) < 2.01
    mixed = augment_sound(SOUND, SoundAugmentConfig(babble_probability=1.0, babble_snr_db=(0.0, 0.0)), 8000)
    other = mixed - SOUND
    similarity = torch.corrcoef(torch.cat([other, SOUND]))[:16, 16:]
    assert (similarity.max(dim=1).values > 0.999).all()
    assert (similarity.diagonal() < 0.2).all(), "a clip was mixed with itself"


def test_pictures_move_alike_in_all_frames() -> None:
    moved = augment_pictures(PICTURES, PictureAugmentConfig(shift=0.25, flip=True))
    assert moved.shape == PICTURES.shape
    for before, after in zip(PICTURES.numpy(), moved.numpy(), strict=True):
        found = []
        for flip in (False, True):
            source = before[:, :, ::-1] if flip else before
            for down in range(-3, 4):
                for across in range(-4, 5):
                    rows = np.clip(np.arange(12) + down, 0, 11)
                    columns = np.clip(np.arange(16) + across, 0, 15)
                    if np.array_equal(source[:, rows][:, :, columns], after):
                        found.append((flip, down, across))
        assert len(found) == 1


def test_light_noise_and_erasing_stay_within_bytes() -> None:
    config = PictureAugmentConfig(brightness=60, contrast=0.5, noise_std=30, erase_probability=1.0, erase_share=1.0)
    changed = augment_pictures(PICTURES, config)
    assert changed.dtype == torch.float32
    assert changed.min() >= 0.0
    assert changed.max() <= 255.0
    erased = augment_pictures(PICTURES, PictureAugmentConfig(erase_probability=1.0, erase_share=1.0))
    grey = (erased == 128.0).all(dim=-1)
    untouched = (erased == PICTURES).all(dim=-1)
    assert bool((grey | untouched).all())
    assert 0.05 < float(grey.float().mean()) < 0.6
    assert torch.equal(grey[:, 0], grey[:, -1]), "the same place in every frame"


def test_time_shift_repeats_the_border() -> None:
    moved = augment_pictures(PICTURES, PictureAugmentConfig(shift_frames=1))
    for before, after in zip(PICTURES.float(), moved, strict=True):
        candidates = [before, before[[0, 0, 1, 2]], before[[1, 2, 3, 3]]]
        assert sum(torch.equal(after, candidate) for candidate in candidates) == 1


def test_a_gap_is_silent_and_no_longer_than_was_asked_for() -> None:
    out = augment_sound(SOUND, SoundAugmentConfig(gap_probability=1.0, gap_share=0.3), 8000)
    silent = out == 0.0
    assert bool((silent | (out == SOUND)).all())
    assert 0 < int(silent.sum(dim=1).max()) <= 600
    starts = (silent[:, 1:] & ~silent[:, :-1]).sum(dim=1) + silent[:, 0]
    assert int(starts.max()) == 1, "one stretch"


def test_a_band_limit_takes_the_high_tones_or_the_low_ones() -> None:
    time_s = torch.arange(8000) / 8000
    low, high = torch.sin(2 * torch.pi * 200 * time_s), torch.sin(2 * torch.pi * 3000 * time_s)
    config = SoundAugmentConfig(band_probability=1.0, band_cut_hz=(800.0, 800.0))
    out = augment_sound((low + high).expand(32, -1).contiguous(), config, 8000)
    without_high = (out - low).abs().amax(dim=1) < 1e-3
    without_low = (out - high).abs().amax(dim=1) < 1e-3
    assert bool((without_high ^ without_low).all())
    assert without_high.any()
    assert without_low.any()


def test_blur_and_down_sampling_keep_what_is_even_and_even_out_what_is_not() -> None:
    even = torch.full((4, 2, 12, 16, 3), 90, dtype=torch.uint8)
    for config in (
        PictureAugmentConfig(blur_probability=1.0, blur_share=0.2),
        PictureAugmentConfig(down_sampling_probability=1.0, down_sampling_factor=4.0),
    ):
        torch.testing.assert_close(augment_pictures(even, config), even.float())
        out = augment_pictures(PICTURES, config)
        assert (out.std(dim=(1, 2, 3, 4)) < PICTURES.float().std(dim=(1, 2, 3, 4)) - 1.0).sum() >= 6
    blocks = augment_pictures(PICTURES, PictureAugmentConfig(down_sampling_probability=1.0, down_sampling_factor=8.0))
    assert min(len(clip[0, :, :, 0].unique()) for clip in blocks) < 60, "fewer values than the 192 pixels"


def test_dropped_frames_are_whole_and_never_the_first() -> None:
    config = PictureAugmentConfig(drop_probability=1.0, drop_share=1.0)
    for dropped in (0.0, 128.0):
        out = augment_pictures(PICTURES, config, dropped=dropped)
        gone = (out == dropped).all(dim=(2, 3, 4))
        kept = (out == PICTURES).all(dim=(2, 3, 4))
        assert bool((gone ^ kept).all())
        assert not gone[:, 0].any()
        assert gone.any()


def test_rows_that_come_in_stay_as_they_are() -> None:
    given = PICTURES.float()
    before = given.clone()
    config = PictureAugmentConfig(
        blur_probability=1.0, down_sampling_probability=1.0, drop_probability=1.0, erase_probability=1.0
    )
    augment_pictures(given, config)
    assert torch.equal(given, before)


def test_no_family_of_the_final_table_is_trained_on() -> None:
    development = {family.name for family in FAMILIES if not family.seen}
    fields = {*SoundAugmentConfig.model_fields, *PictureAugmentConfig.model_fields}
    assert not [f for f in fields if f.removesuffix("_probability") in development]
