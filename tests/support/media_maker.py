"""Recordings made on the spot, of which a test knows every picture and every sample.

Each picture shows its own number as black and white bars, which survive lossy codecs, resizing and rotation by
half turns; the sound is a tone unless the caller says otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt

#: Pictures carry their number in this many bars, the lowest bit leftmost; a white strip marks the top.
NUMBER_BITS = 8
#: Finest time step of written pictures.
_CLOCK_HZ = 12_800

#: Recordings made before, by what was asked for.
_ENCODED: dict[str | None, bytes] = {}

Picture = Callable[[int], npt.NDArray[np.uint8]]
Sound = Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]]


def write_clip(
    path: Path,
    seconds: float = 1.0,
    *,
    picture: Picture | Literal["numbered", "black", "frozen"] | None = "numbered",
    sound: Sound | Literal["tone", "silence"] | None = "tone",
    fps: int = 25,
    width: int = 96,
    height: int = 64,
    rate_hz: int = 16_000,
    channels: int = 1,
    picture_times_s: Sequence[float] | None = None,
    sound_seconds: float | None = None,
    picture_delay_s: float = 0.0,
    sound_delay_s: float = 0.0,
    video_codec: str = "libx264",
    audio_codec: str = "aac",
    video_tag: str | None = None,
    keyframe_every: int = 12,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a recording in the container that ``path``'s suffix names; ``None`` leaves a track out.

    ``picture`` gives RGB ``[height, width, 3]`` for a picture's number, ``sound`` samples in [-1, 1] for times in
    seconds. ``picture_times_s`` makes the frame rate variable; ``sound_seconds`` gives the sound another length than
    the picture; ``video_tag`` is the codec's four characters in the file; delays shift a track's start. A recording
    whose picture and sound have names is encoded once in a process.
    """
    asked = None if callable(picture) or callable(sound) else repr({**locals(), "path": path.suffix})
    if asked in _ENCODED:
        path.write_bytes(_ENCODED[asked])
        return path
    # AVI and MXF have no time stamps, a picture's time is its number; MPEG-1 and MPEG-2 allow a few rates only.
    by_number = path.suffix in {".avi", ".mxf"} or video_codec in {"mpeg1video", "mpeg2video"}
    clock = Fraction(1, fps if by_number else _CLOCK_HZ)
    with av.open(str(path), "w", options=options or {}) as container:
        packets: list[Any] = []
        video = audio = None
        if picture is not None:
            video = container.add_stream(video_codec, rate=fps)
            video.width, video.height = width, height
            video.pix_fmt = "yuv420p" if video_codec != "ffv1" else "bgr0"
            video.codec_context.time_base = clock
            if video_tag is not None:
                video.codec_context.codec_tag = video_tag
            video.codec_context.gop_size = keyframe_every
            video.codec_context.thread_count = 1
            if video_codec == "libx264":
                video.codec_context.options = {"crf": "12", "preset": "veryfast"}
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate_hz, layout="mono" if channels == 1 else "stereo")
            if audio_codec.startswith("wma"):
                audio.bit_rate = 96_000
        if video is not None:
            times_s = picture_times_s or [index / fps for index in range(round(seconds * fps))]
            for index, time_s in enumerate(times_s):
                frame = av.VideoFrame.from_ndarray(_pixels(picture, index, width, height), format="rgb24")
                frame.pts = round((time_s + picture_delay_s) / clock)
                frame.time_base = clock
                packets += video.encode(frame)
            packets += video.encode(None)
        if audio is not None:
            samples = _samples(sound, np.arange(round((sound_seconds or seconds) * rate_hz)) / rate_hz)
            block = audio.codec_context.frame_size or 1024
            for begin in range(0, len(samples), block):
                mono = samples[begin : begin + block]
                # All encoders used here take one of these two; the encoder's own resampler does the rest.
                frame = av.AudioFrame.from_ndarray(
                    np.tile(mono, (channels, 1)), format="fltp", layout="mono" if channels == 1 else "stereo"
                )
                frame.sample_rate = rate_hz
                frame.pts = begin + round(sound_delay_s * rate_hz)
                frame.time_base = Fraction(1, rate_hz)
                packets += audio.encode(frame)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    if asked is not None:
        _ENCODED[asked] = path.read_bytes()
    return path


def numbered_picture(number: int, width: int = 96, height: int = 64) -> npt.NDArray[np.uint8]:
    """RGB ``[height, width, 3]`` that shows ``number`` as bars beneath a white strip."""
    rgb = np.full((height, width, 3), 16, np.uint8)
    rgb[: height // 4] = 235
    for bit in range(NUMBER_BITS):
        if number >> bit & 1:
            rgb[height // 4 :, bit * width // NUMBER_BITS : (bit + 1) * width // NUMBER_BITS] = 235
    return rgb


def read_number(rgb: npt.NDArray[np.uint8]) -> int:
    """The number that an upright ``numbered_picture`` of any size shows."""
    height, width = rgb.shape[:2]
    row = rgb[height * 5 // 8].mean(axis=1)
    bars = [row[int((bit + 0.5) * width / NUMBER_BITS)] > 127 for bit in range(NUMBER_BITS)]
    return sum(1 << bit for bit, lit in enumerate(bars) if lit)


def tone(frequency_hz: float = 440.0, amplitude: float = 0.4) -> Sound:
    """A sine, for ``write_clip(sound=…)``."""
    return lambda time_s: amplitude * np.sin(2 * np.pi * frequency_hz * time_s)


def click_at(moment_s: float, length_s: float = 0.02) -> Sound:
    """Silence but for one burst of tone, for measuring where sound ends up in time."""
    return lambda time_s: np.where(
        (time_s >= moment_s) & (time_s < moment_s + length_s), np.sin(2 * np.pi * 1000 * time_s), 0.0
    )


def set_display_matrix(data: bytes, matrix: Sequence[int]) -> bytes:
    """The MP4 with ``(a, b, c, d)``, each -1, 0 or 1, as the display matrix of its picture track."""
    patched = bytearray(data)
    position = data.find(b"tkhd")
    while position >= 0:
        # Version 0: 4 version and flags, 20 times and identifiers, 16 reserved and layer, 36 matrix, 8 size.
        start = position + 4 + 40
        (width,) = struct.unpack_from(">I", data, start + 36)
        if width:
            a, b, c, d = (value * 65536 for value in matrix)
            struct.pack_into(">9i", patched, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
        position = data.find(b"tkhd", position + 4)
    return bytes(patched)


def damage_packets(path: Path, kind: Literal["video", "audio"]) -> bytes:
    """The recording's bytes with every packet of one track overwritten by noise; the other track is untouched."""
    data = bytearray(path.read_bytes())
    noise = np.random.default_rng(0)
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        for packet in container.demux(stream):
            # Some demuxers give the position of a packet's header: look for the packet itself.
            position = data.find(bytes(packet), packet.pos or 0) if packet.size else -1
            if position >= 0:
                data[position : position + packet.size] = noise.bytes(packet.size)
    return bytes(data)


def _pixels(picture: Any, index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    if callable(picture):
        pixels: npt.NDArray[np.uint8] = picture(index)
        return pixels
    if picture == "black":
        return np.zeros((height, width, 3), np.uint8)
    return numbered_picture(index if picture == "numbered" else 85, width, height)


def _samples(sound: Any, time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    if sound == "silence":
        return np.zeros(len(time_s), np.float32)
    return np.asarray((tone() if sound == "tone" else sound)(time_s), np.float32)
