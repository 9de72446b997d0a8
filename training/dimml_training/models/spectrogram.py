"""Log spectrogram as a convolution with a DFT basis, so that ONNX Runtime and TensorRT take it alike."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dimml.errors import ConfigurationError
from dimml.modality import Waveform
from dimml_training.models.config import SpectrogramConfig

#: Added to a band's power before the logarithm, in powers of a full-scale tone; what is quieter fades into it. Where
#: the bands are normalised by what was learned, loudness may tell classes apart and the floor is absolute: -60 dB.
POWER_FLOOR = 1e-6
#: Where every clip is brought to an RMS of 1 first, the floor lies below the clip's own level: -40 dB, which is where
#: POWER_FLOOR lies for recordings of ordinary level (GRID -18, spoken digits of FSDD -26 dB of full scale).
CLIP_POWER_FLOOR = 1e-4
#: Keeps digital silence finite. -120 dB of full scale: far below the quietest clip that counts as signal (-80 dB).
RMS_FLOOR = 1e-6
STD_FLOOR = 1e-3


def mel_filters(bins: int, bands: int, sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """Triangular filters ``[bands, bins]``, peak 1, equally spaced on the HTK mel scale from 0 Hz to Nyquist.

    A filter narrower than one bin would see nothing; it gets the bin nearest to its centre.
    """
    nyquist_hz = sample_rate_hz / 2
    mel_edges = np.linspace(0.0, 2595.0 * math.log10(1.0 + nyquist_hz / 700.0), bands + 2)
    edges_hz = 700.0 * (10.0 ** (mel_edges / 2595.0) - 1.0)
    bins_hz = np.linspace(0.0, nyquist_hz, bins)
    lower, centre, upper = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - lower) / (centre - lower)
    falling = (upper - bins_hz) / (upper - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    for band in np.flatnonzero(filters.max(axis=1) <= 0.0):
        filters[band, np.abs(bins_hz - edges_hz[band + 1]).argmin()] = 1.0
    return filters.astype(np.float32)


class LogSpectrogram(nn.Module):
    """FP32 waveform ``[B, samples]`` to a normalised log power picture ``[B, 1, bands, windows]``."""

    def __init__(self, waveform: Waveform, config: SpectrogramConfig) -> None:
        super().__init__()
        window = round(config.window_ms * waveform.sample_rate_hz / 1000)
        self.hop = max(1, round(config.hop_ms * waveform.sample_rate_hz / 1000))
        if waveform.samples < window:
            raise ConfigurationError(
                f"spectrogram.window_ms is longer than the {waveform.samples} samples",
                field="spectrogram.window_ms",
            )
        length = 2 ** math.ceil(math.log2(window))
        bins = length // 2 + 1
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        phase = 2 * np.pi * np.outer(np.arange(bins), np.arange(window)) / length
        # Scaled so that a full-scale tone has power 1 in its bin, whatever the window.
        basis = np.concatenate([np.cos(phase), -np.sin(phase)]) * hann * (2.0 / hann.sum())
        self.bins = bins
        self.basis: Tensor
        # Not persistent: they follow from the config, and weights then hold only what was learned.
        self.register_buffer("basis", torch.tensor(basis[:, None], dtype=torch.float32), persistent=False)
        self.mel: Tensor | None
        mel = None if config.mels is None else torch.tensor(mel_filters(bins, config.mels, waveform.sample_rate_hz))
        self.register_buffer("mel", None if mel is None else mel[..., None], persistent=False)
        self.bands = bins if config.mels is None else config.mels
        self.windows = 1 + (waveform.samples - window) // self.hop
        self.mask_bands, self.mask_time = config.mask_bands, config.mask_time
        self.learned = nn.BatchNorm1d(self.bands) if config.normalise == "learned" else None

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """Normalised log power ``[B, 1, bands, windows]``."""
        if torch.is_autocast_enabled(waveform_BS.device.type):
            # 8 bits of a sum over a window drown what is 40 dB below its loudest band.
            with torch.autocast(waveform_BS.device.type, enabled=False):
                return self._picture(waveform_BS)
        return self._picture(waveform_BS)

    def _picture(self, waveform_BS: Tensor) -> Tensor:
        floor = POWER_FLOOR
        if self.learned is None:
            # Before the floor is added: after it, no normalisation could bring back what faded into it.
            power_B1 = waveform_BS.square().mean(dim=1, keepdim=True)
            waveform_BS = waveform_BS / (power_B1 + RMS_FLOOR**2).sqrt()
            floor = CLIP_POWER_FLOOR
        parts = nn.functional.conv1d(waveform_BS.unsqueeze(1), self.basis, stride=self.hop)
        power_BFW = parts[:, : self.bins].square() + parts[:, self.bins :].square()
        if self.mel is not None:
            power_BFW = nn.functional.conv1d(power_BFW, self.mel)
        log_BFW = torch.log(power_BFW + floor)
        if self.learned is not None:
            log_BFW = self.learned(log_BFW)
        else:
            centred = log_BFW - log_BFW.mean(dim=(1, 2), keepdim=True)
            deviation = centred.square().mean(dim=(1, 2), keepdim=True).sqrt()
            log_BFW = centred / (deviation + STD_FLOOR)
        if self.training:
            log_BFW = _blanked(_blanked(log_BFW, 1, self.mask_bands), 2, self.mask_time)
        return log_BFW.unsqueeze(1)


def _blanked(picture_BFW: Tensor, axis: int, share: float) -> Tensor:
    """Zero one random stretch, at most ``share`` of ``axis`` long, in every clip (SpecAugment)."""
    if share == 0.0:
        return picture_BFW
    batch, size = picture_BFW.shape[0], picture_BFW.shape[axis]
    device = picture_BFW.device
    length_B1 = torch.rand(batch, 1, device=device) * share * size
    start_B1 = torch.rand(batch, 1, device=device) * (size - length_B1)
    place = torch.arange(size, device=device)
    hidden = (place >= start_B1) & (place < start_B1 + length_B1)
    return picture_BFW.masked_fill(hidden.unsqueeze(3 - axis), 0.0)
