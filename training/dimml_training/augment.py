"""Corruption of a training batch, vectorised over clips; each modality is corrupted on its own.

Randomness comes from torch's global generator, which training seeds for every step: a resumed run draws the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dimml.modality import Modality, Waveform
from dimml_training.config import PictureAugmentConfig, SoundAugmentConfig

ERASED = 128.0


def augment(modality: Modality, config: SoundAugmentConfig | PictureAugmentConfig, rows: Tensor) -> Tensor:
    """Corrupted rows ``[B, *shape]`` as FP32, in the modality's units."""
    if isinstance(config, SoundAugmentConfig):
        if not isinstance(modality, Waveform):
            raise TypeError("sound augmentation is for waveforms")
        return augment_sound(rows, config, modality.sample_rate_hz)
    return augment_pictures(rows, config)


def augment_sound(waveform_BS: Tensor, config: SoundAugmentConfig, sample_rate_hz: int) -> Tensor:
    """Shift, gain, babble and white noise on FP32 ``[B, samples]``."""
    batch, samples = waveform_BS.shape
    if config.shift_ms > 0.0:
        most = round(config.shift_ms * sample_rate_hz / 1000)
        place_BS = torch.arange(samples) + torch.randint(-most, most + 1, (batch, 1))
        inside = (place_BS >= 0) & (place_BS < samples)
        waveform_BS = waveform_BS.gather(1, place_BS.clamp(0, samples - 1)) * inside
    if config.gain_db > 0.0:
        waveform_BS = waveform_BS * 10.0 ** (_uniform(batch, -config.gain_db, config.gain_db)[:, None] / 20.0)
    if config.babble_probability > 0.0 and batch > 1:
        # Rolling by 1 to batch - 1 gives every clip another one, never itself.
        other = waveform_BS.roll(int(torch.randint(1, batch, ())), dims=0)
        mixed = mix_at_snr(waveform_BS, other, _uniform(batch, *config.babble_snr_db))
        waveform_BS = torch.where(_chosen(batch, config.babble_probability)[:, None], mixed, waveform_BS)
    if config.noise_probability > 0.0:
        noise = torch.randn_like(waveform_BS)
        mixed = mix_at_snr(waveform_BS, noise, _uniform(batch, *config.noise_snr_db))
        waveform_BS = torch.where(_chosen(batch, config.noise_probability)[:, None], mixed, waveform_BS)
    return waveform_BS


def mix_at_snr(signal_BS: Tensor, noise_BS: Tensor, snr_db_B: Tensor) -> Tensor:
    """Signal plus noise scaled to a ratio of mean powers over the row, in dB. Silent noise stays silent."""
    signal_power = signal_BS.square().mean(dim=1, keepdim=True)
    noise_power = noise_BS.square().mean(dim=1, keepdim=True).clamp(min=1e-12)
    scale = (signal_power / noise_power * 10.0 ** (-snr_db_B[:, None] / 10.0)).sqrt()
    return signal_BS + scale * noise_BS


def augment_pictures(rows_BTHWC: Tensor, config: PictureAugmentConfig) -> Tensor:
    """Shift in place and time, mirror, contrast, brightness, pixel noise and erasing on ``[B, T, H, W, channels]``.

    UINT8 or FP32 in 0..255 comes in, FP32 in 0..255 goes out. What moves in from outside is the border repeated.
    """
    batch, frames, height, width = rows_BTHWC.shape[:4]
    if config.shift > 0.0 or config.shift_frames > 0 or config.flip:
        across = _moved(batch, width, round(config.shift * width))
        if config.flip:
            across = torch.where(_chosen(batch, 0.5)[:, None], across.flip(1), across)
        rows_BTHWC = rows_BTHWC[
            torch.arange(batch)[:, None, None, None],
            _moved(batch, frames, config.shift_frames)[:, :, None, None],
            _moved(batch, height, round(config.shift * height))[:, None, :, None],
            across[:, None, None, :],
        ]
    pixels = rows_BTHWC.float()
    if config.contrast > 0.0:
        mean = pixels.mean(dim=(1, 2, 3, 4), keepdim=True)
        pixels = (pixels - mean) * _column(_uniform(batch, 1 - config.contrast, 1 + config.contrast)) + mean
    if config.brightness > 0.0:
        pixels = pixels + _column(_uniform(batch, -config.brightness, config.brightness))
    if config.noise_std > 0.0:
        pixels = pixels + torch.randn_like(pixels) * _column(_uniform(batch, 0.0, config.noise_std))
    if config.erase_probability > 0.0:
        rows = _stretch(batch, height, config.erase_share)[:, None, :, None, None]
        columns = _stretch(batch, width, config.erase_share)[:, None, None, :, None]
        erased = rows & columns & _column(_chosen(batch, config.erase_probability))
        pixels = pixels.masked_fill(erased, ERASED)
    return pixels.clamp(0.0, 255.0)


def _uniform(batch: int, low: float, high: float) -> Tensor:
    return torch.rand(batch) * (high - low) + low


def _chosen(batch: int, probability: float) -> Tensor:
    return torch.rand(batch) < probability


def _column(values_B: Tensor) -> Tensor:
    return values_B.view(-1, 1, 1, 1, 1)


def _moved(batch: int, size: int, most: int) -> Tensor:
    """Indices ``[B, size]`` that move an axis by up to ± ``most``, clamped to its ends."""
    return (torch.arange(size) + torch.randint(-most, most + 1, (batch, 1))).clamp(0, size - 1)


def _stretch(batch: int, size: int, share: float) -> Tensor:
    """Booleans ``[B, size]``: one stretch per clip, of a random length up to ``share`` of the axis."""
    length = torch.rand(batch, 1) * share * size
    start = torch.rand(batch, 1) * (size - length)
    place = torch.arange(size)
    return (place >= start) & (place < start + length)
