"""Recordings with several sound or picture tracks, each with its language."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from support.media_maker import Picture, Sound

RATE_HZ: Final = 16_000
#: A language, or an empty text, and what there is to hear or see (``write_clip``).
SoundTrack = tuple[str, Sound]
PictureTrack = tuple[str, Picture]


def write_tracks(
    path: Path,
    sounds: Sequence[SoundTrack],
    pictures: Sequence[PictureTrack] = (),
    *,
    seconds: float = 3.0,
) -> Path:
    """A recording with these tracks (MPEG-4 video of 25 per second, MP2), packets in order of time."""
    packets: list[Any] = []
    with av.open(str(path), "w") as container:
        for language, picture in pictures:
            video = container.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            video.codec_context.options = {"flags": "+qscale", "global_quality": "236"}
            if language:
                video.metadata["language"] = language
            for number in range(round(25 * seconds)):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                packets += video.encode(frame)
            packets += video.encode(None)
        for language, sound in sounds:
            audio = container.add_stream("mp2", rate=RATE_HZ, layout="mono")
            if language:
                audio.metadata["language"] = language
            samples = sound(np.arange(round(seconds * RATE_HZ)) / RATE_HZ)
            size = audio.codec_context.frame_size or 1152
            for begin in range(0, len(samples), size):
                pcm = (32767 * samples[begin : begin + size]).astype(np.int16)
                block = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = RATE_HZ, begin, Fraction(1, RATE_HZ)
                packets += audio.encode(block)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda one: float((one.dts or 0) * one.time_base)):
            container.mux(packet)
    return path
