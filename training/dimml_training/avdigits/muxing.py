"""Muxing frames and sound into a small MP4 (H.264 if PyAV's FFmpeg can encode it, else MPEG-4 Part 2; AAC)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt

from dimml.system.files import write_atomically
from dimml_training.avdigits.speech import FloatArray

#: Deterministic: with look-ahead (which zerolatency turns off) this x264 reads uninitialised memory, and the same
#: pictures give another file each time. A crf of 28 keeps a 96x96 clip near 10 kB.
_H264_OPTIONS = {"crf": "28", "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
_MPEG4_OPTIONS = {"q:v": "5"}
_AAC_BITS_PER_S = 48_000


def _has_encoder(name: str) -> bool:
    try:
        av.codec.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def write_mp4(
    path: Path,
    *,
    frames: npt.NDArray[np.uint8] | None,
    frame_rate: Fraction,
    sound: FloatArray | None,
    sample_rate_hz: int,
) -> None:
    """Write RGB ``frames`` ``[T, H, W, 3]`` and mono ``sound`` ``[N]`` in [-1, 1]; either may be None.

    Written beside ``path`` and moved into place, so that ``path`` is always a whole file.
    """
    write_atomically(path, lambda temporary: _mux(temporary, frames, frame_rate, sound, sample_rate_hz))


def _mux(
    path: Path,
    frames: npt.NDArray[np.uint8] | None,
    frame_rate: Fraction,
    sound: FloatArray | None,
    sample_rate_hz: int,
) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        video = audio = None
        if frames is not None:
            name, options = ("libx264", _H264_OPTIONS) if _has_encoder("libx264") else ("mpeg4", _MPEG4_OPTIONS)
            video = cast(av.VideoStream, container.add_stream(name, rate=frame_rate, options=options))
            video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
            video.codec_context.thread_count = 1
        if sound is not None:
            audio = container.add_stream("aac", rate=sample_rate_hz, layout="mono")
            audio.bit_rate = _AAC_BITS_PER_S
        # Sound first: one audio frame holds all samples, which PyAV cuts to the encoder's size; the muxer
        # interleaves by time.
        if audio is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(np.clip(sound, -1.0, 1.0)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, 0, Fraction(1, sample_rate_hz)
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
        if video is not None and frames is not None:
            for index, picture in enumerate(frames):
                image = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                image.pts, image.time_base = index, 1 / frame_rate
                container.mux(video.encode(image))
            container.mux(video.encode(None))
