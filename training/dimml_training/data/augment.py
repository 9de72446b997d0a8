"""Corruption of a training batch, vectorised over clips, each modality independently of the others.

Randomness comes from torch's global generator of the rows' device, which training seeds for every step: a resumed run
draws the same numbers. Only families that training may see are here (``config.corruption_suite``), at severities of
their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from dimml.modality import Kind, Modality
from dimml_training.config import PictureAugmentConfig, SeriesAugmentConfig, SoundAugmentConfig
from dimml_training.data.augment_series import augment_series

AugmentConfig = SoundAugmentConfig | PictureAugmentConfig | SeriesAugmentConfig
#: Grey of an erased picture, and flow at rest.
ERASED = 128.0


def augment(modality: Modality, config: AugmentConfig, rows: Tensor) -> Tensor:
    """Return corrupted rows ``[B, *shape]`` as FP32, in the modality's units."""
    own = AUGMENTS[modality.kind]
    if not isinstance(config, own.config):
        raise TypeError(f"a {modality.kind} modality is not augmented by {type(config).__name__}")
    return own.augment(modality, config, rows)


def augment_sound(waveform_BS: Tensor, config: SoundAugmentConfig, sample_rate_hz: int) -> Tensor:
    """Apply shift, gain, gaps, band limit, babble and white noise, in this order, to FP32 ``[B, samples]``."""
    batch, samples = waveform_BS.shape
    device = waveform_BS.device
    if config.shift_ms > 0.0:
        most = round(config.shift_ms * sample_rate_hz / 1000)
        place_BS = torch.arange(samples, device=device) + torch.randint(-most, most + 1, (batch, 1), device=device)
        inside = (place_BS >= 0) & (place_BS < samples)
        waveform_BS = waveform_BS.gather(1, place_BS.clamp(0, samples - 1)) * inside
    if config.gain_db > 0.0:
        gain_db_B = _uniform(batch, -config.gain_db, config.gain_db, device)
        waveform_BS = waveform_BS * 10.0 ** (gain_db_B[:, None] / 20.0)
    if config.gap_probability > 0.0:
        silent = _stretch(batch, samples, config.gap_share, device)
        silent &= _chosen(batch, config.gap_probability, device)[:, None]
        waveform_BS = waveform_BS.masked_fill(silent, 0.0)
    if config.band_probability > 0.0:
        chosen = _chosen(batch, config.band_probability, device)
        if chosen.any():
            limited = band_limited(waveform_BS[chosen], config.band_cut_hz, sample_rate_hz)
            waveform_BS = waveform_BS.index_put((chosen,), limited)
    if config.babble_probability > 0.0 and batch > 1:
        # Rolling by 1 to batch - 1 gives every clip another one, never itself.
        other = waveform_BS.roll(int(torch.randint(1, batch, ())), dims=0)
        mixed = mix_at_snr(waveform_BS, other, _uniform(batch, *config.babble_snr_db, device))
        waveform_BS = torch.where(_chosen(batch, config.babble_probability, device)[:, None], mixed, waveform_BS)
    if config.noise_probability > 0.0:
        noise = torch.randn_like(waveform_BS)
        mixed = mix_at_snr(waveform_BS, noise, _uniform(batch, *config.noise_snr_db, device))
        waveform_BS = torch.where(_chosen(batch, config.noise_probability, device)[:, None], mixed, waveform_BS)
    return waveform_BS


def mix_at_snr(signal_BS: Tensor, noise_BS: Tensor, snr_db_B: Tensor) -> Tensor:
    """Add noise, scaled to a ratio of mean powers over the row in dB. Silent noise stays silent."""
    signal_power = signal_BS.square().mean(dim=1, keepdim=True)
    noise_power = noise_BS.square().mean(dim=1, keepdim=True).clamp(min=1e-12)
    scale = (signal_power / noise_power * 10.0 ** (-snr_db_B[:, None] / 10.0)).sqrt()
    return signal_BS + scale * noise_BS


def band_limited(waveform_BS: Tensor, cut_hz: tuple[float, float], sample_rate_hz: int) -> Tensor:
    """Low-pass or high-pass each clip, with equal chance; the cut-off is log-uniform between the two of ``cut_hz``.

    The filter's edge is half an octave wide, as in the corruption suite.
    """
    batch, samples = waveform_BS.shape
    device = waveform_BS.device
    low_hz, high_hz = cut_hz
    cut_B = torch.exp(_uniform(batch, math.log(low_hz), math.log(high_hz), device))
    hertz_F = torch.fft.rfftfreq(samples, 1.0 / sample_rate_hz, device=device).clamp(min=1e-3)
    octaves_BF = torch.log2(hertz_F / cut_B[:, None])
    below_BF = 0.5 - 0.5 * torch.sin(math.pi * (2.0 * octaves_BF).clamp(-0.5, 0.5))
    gain_BF = torch.where(_chosen(batch, 0.5, device)[:, None], below_BF, 1.0 - below_BF)
    limited: Tensor = torch.fft.irfft(torch.fft.rfft(waveform_BS) * gain_BF, n=samples)
    return limited


def augment_pictures(rows_BTHWC: Tensor, config: PictureAugmentConfig, *, dropped: float = 0.0) -> Tensor:
    """Augment pictures or flow ``[B, T, H, W, channels]``, UINT8 or FP32 in 0..255, to FP32 in 0..255.

    Order: shift in place and time, mirror, contrast, brightness, blur, down-sampling, pixel noise, erasing, dropped
    frames, a run of grey ones. A shift repeats the border; ``dropped`` fills a dropped frame.
    """
    batch, frames, height, width = rows_BTHWC.shape[:4]
    device = rows_BTHWC.device
    if config.shift > 0.0 or config.shift_frames > 0 or config.flip:
        across = _moved(batch, width, round(config.shift * width), device)
        if config.flip:
            across = torch.where(_chosen(batch, 0.5, device)[:, None], across.flip(1), across)
        back = _moved(batch, frames, config.shift_frames, device)
        down = _moved(batch, height, round(config.shift * height), device)
        rows_BTHWC = _picked(rows_BTHWC, back, down, across)
    # A copy, changed in place from here on: fresh memory for every step costs more than the step.
    pixels = rows_BTHWC.to(torch.float32, copy=True)
    if config.contrast > 0.0:
        mean = pixels.mean(dim=(1, 2, 3, 4), keepdim=True)
        scale = _column(_uniform(batch, 1 - config.contrast, 1 + config.contrast, device))
        pixels.sub_(mean).mul_(scale).add_(mean)
    if config.brightness > 0.0:
        pixels.add_(_column(_uniform(batch, -config.brightness, config.brightness, device)))
    if config.blur_probability > 0.0:
        chosen = _chosen(batch, config.blur_probability, device)
        sigma_B = _uniform(int(chosen.sum()), 0.0, config.blur_share * height, device).clamp(min=1e-2)
        pixels[chosen] = _mixed_along_both(pixels[chosen], lambda size: _gaussian(size, sigma_B))
    if config.down_sampling_probability > 0.0:
        chosen = _chosen(batch, config.down_sampling_probability, device)
        factor_B = _uniform(int(chosen.sum()), 1.0, config.down_sampling_factor, device)
        pixels[chosen] = _mixed_along_both(pixels[chosen], lambda size: _blocks(size, factor_B))
    if config.noise_std > 0.0:
        noise = torch.randn_like(pixels)
        pixels.add_(noise.mul_(_column(_uniform(batch, 0.0, config.noise_std, device))))
    if config.erase_probability > 0.0:
        rows = _stretch(batch, height, config.erase_share, device)[:, None, :, None, None]
        columns = _stretch(batch, width, config.erase_share, device)[:, None, None, :, None]
        erased = rows & columns & _column(_chosen(batch, config.erase_probability, device))
        pixels.masked_fill_(erased, ERASED)
    if config.drop_probability > 0.0 and frames > 1:
        lost_BT = torch.rand(batch, frames, device=device) < _uniform(batch, 0.0, config.drop_share, device)[:, None]
        # The first frame stays, so that at least one picture is left.
        lost_BT[:, 0] = False
        lost_BT &= _chosen(batch, config.drop_probability, device)[:, None]
        pixels.masked_fill_(lost_BT[:, :, None, None, None], dropped)
    if config.gap_probability > 0.0 and frames > 1:
        masked_BT = _stretch(batch, frames, config.gap_share, device)
        masked_BT &= _chosen(batch, config.gap_probability, device)[:, None]
        pixels.masked_fill_(masked_BT[:, :, None, None, None], ERASED)
    return pixels.clamp_(0.0, 255.0)


def _picked(rows_BTHWC: Tensor, frames_BT: Tensor, lines_BH: Tensor, columns_BW: Tensor) -> Tensor:
    """Gather frames, lines and columns of every clip by index.

    Whole lines are gathered first: one gather of pixels takes six times as long.
    """
    batch, frames, height, width, channels = rows_BTHWC.shape
    first_B = torch.arange(batch, device=rows_BTHWC.device) * frames
    lines = ((first_B[:, None] + frames_BT)[:, :, None] * height + lines_BH[:, None, :]).reshape(-1)
    moved = rows_BTHWC.reshape(-1, width * channels).index_select(0, lines).view(batch, -1, width * channels)
    values = columns_BW[:, :, None] * channels + torch.arange(channels, device=rows_BTHWC.device)
    across = values.reshape(batch, 1, -1).expand(-1, frames * height, -1)
    return moved.gather(2, across).view(rows_BTHWC.shape)


def _mixed_along_both(pixels_BTHWC: Tensor, weights: Callable[[int], Tensor]) -> Tensor:
    """Replace every pixel by a weighted mean of its column, then of its row; ``weights(size)``: ``[B, size, size]``."""
    height, width = pixels_BTHWC.shape[2:4]
    down = torch.einsum("bij,btjwc->btiwc", weights(height), pixels_BTHWC)
    return torch.einsum("bij,bthjc->bthic", weights(width), down)


def _gaussian(size: int, sigma_B: Tensor) -> Tensor:
    """Weights of a Gaussian blur, cut at the border: ``[B, size, size]``."""
    place = torch.arange(size, device=sigma_B.device, dtype=torch.float32)
    distance = place[:, None] - place[None, :]
    return torch.softmax(-0.5 * (distance / sigma_B[:, None, None]).square(), dim=2)


def _blocks(size: int, factor_B: Tensor) -> Tensor:
    """Weights that replace every block of ``factor`` pixels by its mean: ``[B, size, size]``."""
    block_BS = (torch.arange(size, device=factor_B.device) / factor_B[:, None]).floor()
    same = (block_BS[:, :, None] == block_BS[:, None, :]).float()
    return same / same.sum(dim=2, keepdim=True)


@dataclass(frozen=True)
class Augment:
    """How a kind of modality is augmented, by which config."""

    config: type[AugmentConfig]
    augment: Callable[[Any, Any, Tensor], Tensor]


AUGMENTS: Final[Mapping[Kind, Augment]] = {
    "waveform": Augment(SoundAugmentConfig, lambda m, config, rows: augment_sound(rows, config, m.sample_rate_hz)),
    "frames": Augment(PictureAugmentConfig, lambda m, config, rows: augment_pictures(rows, config, dropped=0.0)),
    "flow": Augment(PictureAugmentConfig, lambda m, config, rows: augment_pictures(rows, config, dropped=ERASED)),
    "series": Augment(SeriesAugmentConfig, lambda m, config, rows: augment_series(rows, config, m.sample_rate_hz)),
}


def _uniform(batch: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.rand(batch, device=device) * (high - low) + low


def _chosen(batch: int, probability: float, device: torch.device) -> Tensor:
    return torch.rand(batch, device=device) < probability


def _column(values_B: Tensor) -> Tensor:
    return values_B.view(-1, 1, 1, 1, 1)


def _moved(batch: int, size: int, most: int, device: torch.device) -> Tensor:
    """Indices ``[B, size]`` that move an axis by up to ± ``most``, clamped to its ends."""
    by_B1 = torch.randint(-most, most + 1, (batch, 1), device=device)
    return (torch.arange(size, device=device) + by_B1).clamp(0, size - 1)


def _stretch(batch: int, size: int, share: float, device: torch.device) -> Tensor:
    """Booleans ``[B, size]``: one random run per clip, up to ``share`` of the axis long."""
    length = torch.rand(batch, 1, device=device) * share * size
    start = torch.rand(batch, 1, device=device) * (size - length)
    place = torch.arange(size, device=device)
    return (place >= start) & (place < start + length)
