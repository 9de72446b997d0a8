"""Sizes that suit the data and this machine: clip, sound, pictures, encoders, and epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Final

from dimml_training.first_config.media_sample import PICTURES, SOUND, ColumnSample

#: Longest clip: more sound and frames cost time, and most classes differ in less.
MOST_CLIP_S: Final = 4.0
LEAST_CLIP_S: Final = 0.2
#: Speech has little above 8 kHz; sound of a lower rate keeps its own.
MOST_RATE_HZ: Final = 16_000
MOST_FRAMES: Final = 16
#: Rows of a picture: of an encoder from chance on a CPU, and on a GPU.
HEIGHT_CPU, HEIGHT_GPU = 64, 112
#: Training clips from which wider encoders learn more than they overfit.
MANY_CLIPS: Final = 2000
#: Steps after which encoders of this size have settled, in the configs of this repository.
STEPS: Final = 1500
LEAST_EPOCHS, MOST_EPOCHS = 20, 80
SMALL: Final = (16, (16, 32, 64, 128), (1, 1, 1, 1))
MIDDLE: Final = (32, (32, 64, 128, 256), (1, 1, 1, 1))
LARGE: Final = (64, (64, 128, 256, 512), (2, 2, 2, 2))

#: What names of columns with sound, and with pictures, have in them.
_SOUND_NAMES: Final = ("audio", "sound", "speech", "voice", "wav")
_PICTURE_NAMES: Final = ("video", "visual", "frames", "face", "lips")


@dataclass(frozen=True)
class SoundSize:
    """A waveform modality: its column, and its rate."""

    column: str
    rate_hz: int


@dataclass(frozen=True)
class PictureSize:
    """A frames modality: its column, and how many pictures of what size."""

    column: str
    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Sizes:
    """What a first config sets. ``clip_s`` is None for single pictures; ``native`` says what the media have."""

    clip_s: float | None
    margin_s: float
    sound: SoundSize | None
    pictures: PictureSize | None
    backbone: tuple[int, tuple[int, ...], tuple[int, ...]]
    batch_size: int
    epochs: int
    warmup_epochs: int
    threads: int | None
    native: Mapping[str, str]

    def with_epochs(self, epochs: int) -> Sizes:
        """The same with fewer epochs, a quarter of them without DUC."""
        return replace(self, epochs=epochs, warmup_epochs=_warmup(epochs))

    @property
    def samples(self) -> int:
        """Length of a row of sound."""
        if self.sound is None or self.clip_s is None:
            return 0
        return round(self.clip_s * self.sound.rate_hz)


def choose_sizes(
    columns: Mapping[str, ColumnSample], *, train_clips: int, ranged: bool, gpu: bool, cores: int
) -> Sizes:
    """Choose sizes from a sample of the media, the number of training clips, and the machine.

    ``ranged``: the table gives time ranges. Of several columns whose files have a track, one that is named after it
    is taken, or else the first; of sound before that, one without pictures.
    """
    sound_only = [name for name, sample in columns.items() if not sample.has(PICTURES)]
    sound_column = _column_of({name: columns[name] for name in (*sound_only, *columns)}, SOUND, _SOUND_NAMES)
    picture_column = _column_of(columns, PICTURES, _PICTURE_NAMES)
    lengths = [length for sample in columns.values() for length in sample.lengths_s]
    clip_s, margin_s = _clip(lengths, ranged=ranged)
    sound = pictures = None
    native = {}
    if sound_column is not None and clip_s is not None:
        rate = columns[sound_column].typical("rate_hz")
        sound = SoundSize(sound_column, int(min(MOST_RATE_HZ, max(1000, rate or MOST_RATE_HZ))))
        native[SOUND] = f"{rate:g} Hz" if rate else "unknown"
    if picture_column is not None:
        sample = columns[picture_column]
        pictures = _pictures(picture_column, sample, clip_s, HEIGHT_GPU if gpu else HEIGHT_CPU)
        fps = sample.typical("fps")
        native[PICTURES] = f"{sample.typical('height') or 0:g}x{sample.typical('width') or 0:g}" + (
            f" at {fps:.4g} a second" if fps and clip_s is not None else ""
        )
    many = train_clips >= MANY_CLIPS
    backbone = (LARGE if gpu else MIDDLE) if many else SMALL
    batch_size = 16 if train_clips >= 64 else 8 if train_clips >= 16 else max(2, train_clips // 2)
    epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(STEPS * batch_size / train_clips)))
    # With encoders this small a second thread gains little, and costs much where others compute too.
    threads = 1 if not gpu and not many else None
    return Sizes(
        clip_s if sound is not None or (pictures is not None and pictures.frames > 1) else None,
        margin_s,
        sound,
        pictures,
        backbone,
        batch_size,
        epochs,
        _warmup(epochs),
        threads if cores > 1 else None,
        native,
    )


def _column_of(columns: Mapping[str, ColumnSample], track: str, words: Sequence[str]) -> str | None:
    having = [name for name, sample in columns.items() if sample.has(track)]
    named = (name for name in having if any(word in name.lower() for word in words))
    return next(named, having[0] if having else None)


def _warmup(epochs: int) -> int:
    return min(epochs - 1, max(1, epochs // 4))


def _clip(lengths: Sequence[float], *, ranged: bool) -> tuple[float | None, float]:
    """Seconds of a clip, and the margin with which every range reaches it; None where media have no time."""
    if not lengths:
        return None, 0.0
    most = quantiles(lengths, n=10)[-1] if len(lengths) > 1 else lengths[0]
    if not ranged:
        # All recordings reach it, or nearly all: time then runs equally fast in all clips.
        least = quantiles(lengths, n=10)[0] if len(lengths) > 1 else lengths[0]
        return round(min(MOST_CLIP_S, max(LEAST_CLIP_S, math.floor(least * 20) / 20)), 2), 0.0
    clip_s = round(min(MOST_CLIP_S, max(LEAST_CLIP_S, math.ceil(min(most, max(lengths)) * 20) / 20)), 2)
    return clip_s, round(max(0.0, math.ceil((clip_s - min(lengths)) * 50) / 100), 2)


def _pictures(column: str, sample: ColumnSample, clip_s: float | None, height: int) -> PictureSize:
    native_height, native_width = sample.typical("height") or height, sample.typical("width") or height
    fps = sample.typical("fps")
    frames = 1
    if clip_s is not None and sample.lengths_s and fps:
        frames = int(min(MOST_FRAMES, max(1, round(clip_s * fps))))
    height = min(height, int(native_height))
    width = height * native_width / native_height
    return PictureSize(column, frames, _eighths(height), _eighths(width))


def _eighths(pixels: float) -> int:
    return max(16, round(pixels / 8) * 8)
