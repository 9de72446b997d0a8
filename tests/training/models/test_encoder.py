"""Encoders: shapes, the spectrogram against numpy's FFT, order, and the graph's dynamic batch."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from dimml.errors import ConfigurationError
from dimml.modality import Flow, Frames, Modality, Waveform
from dimml_training.models import (
    EncoderConfig,
    MeanPoolingConfig,
    PictureEncoderConfig,
    ResNetBackboneConfig,
    SoundEncoderConfig,
    SpectrogramConfig,
    TemporalConvPoolingConfig,
)
from dimml_training.models.encoder import Encoder, build_encoder
from dimml_training.models.narrow_convolution import guard_narrow_convolutions
from dimml_training.models.spectrogram import CLIP_POWER_FLOOR, LogSpectrogram, mel_filters

TINY = ResNetBackboneConfig(embedding_size=4, hidden_sizes=(4, 8), depths=(1, 1), stem="strided")
SOUND = Waveform(name="audio", sample_rate_hz=8000, samples=4000)
LIPS = Frames(name="lips", frames=4, height=16, width=20)
MOTION = Flow(name="motion", frames=3, height=16, width=16)


def rows(modality: Modality, batch: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    if isinstance(modality, Waveform):
        return torch.from_numpy(0.1 * rng.standard_normal((batch, modality.samples)).astype(np.float32))
    return torch.from_numpy(rng.integers(0, 256, (batch, *modality.shape), dtype=np.uint8))


def built(modality: Modality, config: EncoderConfig, classes: int = 5) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(modality, config, classes).eval()


@pytest.mark.parametrize(
    ("modality", "config"),
    [
        (SOUND, SoundEncoderConfig(backbone=TINY)),
        (SOUND, SoundEncoderConfig(backbone=TINY, spectrogram=SpectrogramConfig(mels=None, normalise="learned"))),
        (LIPS, PictureEncoderConfig(backbone=TINY)),
        (LIPS, PictureEncoderConfig(backbone=TINY, grey=True, normalise="clip", pooling=TemporalConvPoolingConfig())),
        (MOTION, PictureEncoderConfig(backbone=TINY, pooling=TemporalConvPoolingConfig(kernel=5))),
        (
            LIPS,
            PictureEncoderConfig(
                backbone=ResNetBackboneConfig(
                    layer_type="bottleneck", embedding_size=4, hidden_sizes=(8, 8), depths=(1, 2), stem="plain"
                )
            ),
        ),
    ],
)
def test_a_row_gives_the_same_features_in_any_batch(modality: Modality, config: EncoderConfig) -> None:
    encoder, tensor = built(modality, config), rows(modality, 5)
    with torch.no_grad():
        features, logits = encoder(tensor)
        alone = encoder(tensor[3:4])
    assert (features.shape, logits.shape) == ((5, 8), (5, 5))
    assert features.shape[1] == encoder.features
    torch.testing.assert_close(alone[0][0], features[3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[1][0], logits[3], rtol=1e-4, atol=1e-5)
    # Different inputs must not end in the same features.
    assert (features[0] - features[1]).abs().max() > 1e-4


def test_the_default_backbone_is_resnet_18() -> None:
    encoder = built(LIPS, PictureEncoderConfig())
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1)]
    assert len(convolutions) == 17  # and the linear head makes 18
    parameters = sum(p.numel() for p in encoder.parameters())
    assert parameters == pytest.approx(11_181_642, rel=0.01)  # torchvision's count without its 1000-class head


@pytest.mark.parametrize("mels", [None, 20])
def test_the_spectrogram_is_a_hann_windowed_fft(mels: int | None) -> None:
    config = SpectrogramConfig(window_ms=25, hop_ms=10, mels=mels)
    signal = rows(SOUND, 1)[0].numpy().astype(np.float64)
    loudness = np.sqrt(np.mean(signal**2))
    window, hop = 200, 80
    hann = np.hanning(window + 1)[:-1]
    expected = []
    for start in range(0, len(signal) - window + 1, hop):
        spectrum = np.fft.rfft(signal[start : start + window] / loudness * hann, 256) * 2 / hann.sum()
        power = np.abs(spectrum) ** 2
        expected.append(power if mels is None else mel_filters(129, mels, 8000) @ power)
    picture = np.log(np.array(expected).T + CLIP_POWER_FLOOR)
    picture = (picture - picture.mean()) / (picture.std() + 1e-3)
    found = LogSpectrogram(SOUND, config).eval()(torch.from_numpy(signal[None].astype(np.float32)))
    np.testing.assert_allclose(found[0, 0].numpy(), picture, atol=2e-3)


def test_mel_bands_cover_the_spectrum_even_where_they_are_narrower_than_a_bin() -> None:
    filters = mel_filters(33, 40, 16_000)
    assert filters.shape == (40, 33)
    assert (filters.max(axis=1) > 0).all()
    centres = (filters * np.arange(33)).sum(axis=1) / filters.sum(axis=1)
    assert (np.diff(centres) >= -1e-6).all()


@pytest.mark.parametrize("louder", [0.003, 8.0])
def test_loudness_does_not_matter(louder: float) -> None:
    """0.003 takes the clip from -26 to -76 dB of full scale, just above what counts as silence."""
    encoder, tensor = built(SOUND, SoundEncoderConfig(backbone=TINY)), 0.5 * rows(SOUND, 2)
    tensor[1] *= torch.linspace(0.0, 1.0, SOUND.samples)
    with torch.no_grad():
        features, moved = encoder(tensor)[0], encoder(louder * tensor)[0]
    torch.testing.assert_close(moved, features, rtol=1e-3, atol=1e-3 * float(features.abs().max()))


@pytest.mark.parametrize("normalise", ["clip", "learned"])
def test_silence_and_full_scale_stay_finite(normalise: Literal["clip", "learned"]) -> None:
    config = SoundEncoderConfig(backbone=TINY, spectrogram=SpectrogramConfig(normalise=normalise))
    square = torch.ones(SOUND.samples)
    square[::2] = -1.0
    tensor = torch.stack([torch.zeros(SOUND.samples), torch.full((SOUND.samples,), 1e-9), square])
    features, logits = built(SOUND, config)(tensor)
    assert bool(features.isfinite().all() and logits.isfinite().all())


def test_masking_happens_in_training_alone() -> None:
    config = SpectrogramConfig(mask_bands=0.5, mask_time=0.5)
    spectrogram, tensor = LogSpectrogram(SOUND, config), rows(SOUND, 8)
    whole = spectrogram.eval()(tensor)
    masked = spectrogram.train()(tensor)
    blank = (masked == 0) & (whole != 0)
    assert torch.equal(masked[~blank], whole[~blank])
    assert 0.02 < float(blank.float().mean()) < 0.75


def test_mean_pooling_is_blind_to_order_and_temporal_convolution_is_not() -> None:
    tensor = rows(LIPS, 2)
    turned = tensor.flip(1)
    for pooling, sees in ((MeanPoolingConfig(), False), (TemporalConvPoolingConfig(), True)):
        encoder = built(LIPS, PictureEncoderConfig(backbone=TINY, pooling=pooling))
        difference = (encoder(tensor)[0] - encoder(turned)[0]).abs().max()
        assert bool(difference > 1e-3) is sees


def test_uint8_and_float_pixels_are_the_same_picture() -> None:
    encoder, tensor = built(LIPS, PictureEncoderConfig(backbone=TINY)), rows(LIPS, 2)
    assert torch.equal(encoder(tensor)[1], encoder(tensor.float())[1])


def test_a_config_for_another_kind_of_modality_is_refused() -> None:
    wrong: list[tuple[Any, Any, str]] = [
        (SOUND, PictureEncoderConfig(), "fields for pictures"),
        (LIPS, SoundEncoderConfig(), "fields for sound"),
        (MOTION, PictureEncoderConfig(grey=True), "grey"),
        (
            Waveform(name="click", sample_rate_hz=8000, samples=100),
            SoundEncoderConfig(backbone=TINY),
            "window_ms",
        ),
    ]
    for modality, config, message in wrong:
        with pytest.raises(ConfigurationError, match=message):
            build_encoder(modality, config, 3)


def test_a_narrow_strided_pointwise_convolution_picks_its_pixels_first() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 1, stride=(2, 3))
    guarded = nn.Sequential(nn.Conv2d(4, 6, 1, stride=(2, 3)), nn.Conv2d(6, 6, 3, stride=2))
    guarded[0].load_state_dict(plain.state_dict())
    guard_narrow_convolutions(guarded)
    assert [part.stride for part in guarded if isinstance(part, nn.Conv2d)] == [(1, 1), (2, 2)]
    rows = torch.randn(3, 4, 9, 11)
    found, expected = guarded[0](rows), plain(rows)
    torch.testing.assert_close(found, expected)
    for side in (found, expected):
        side.square().sum().backward()
    torch.testing.assert_close(guarded[0].weight.grad, plain.weight.grad)


@pytest.mark.slow(reason="torch under a checked heap")
def test_a_tiny_encoders_gradient_leaves_the_heap_whole() -> None:
    """By glibc's checker, over our own encoder with its convolutions guarded."""
    config = PictureEncoderConfig(backbone=TINY).model_dump_json()
    code = (
        "import torch; from dimml.modality import Frames\n"
        "from dimml_training.models import PictureEncoderConfig\n"
        "from dimml_training.models.encoder import build_encoder\n"
        "torch.set_num_threads(1); modality = Frames(name='visual', frames=1, height=16, width=16)\n"
        f"config = PictureEncoderConfig.model_validate_json({config!r})\n"
        "encoder = build_encoder(modality, config, 2).train()\n"
        "for _ in range(4):\n"
        "    encoder(torch.zeros(3, *modality.shape, dtype=torch.uint8))[1].square().mean().backward()\n"
    )
    checker = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | checker, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
