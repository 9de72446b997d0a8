"""Lengths that the header of a container promises, for finding recordings that were cut off.

A duration alone is no proof: headers round it, and some tracks end early. It counts where the container's own structure
says that bytes are missing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

from dimml.media.decoders.packet_index import ContainerIndex
from dimml.media.decoders.time_range import END_TOLERANCE_S
from dimml.media.types import Truncation

_HEAD_BYTES: Final = 4096
#: Boxes of an MP4 that are looked at: a day of fragments of one second.
_MAX_BOXES: Final = 200_000


def is_cut_off(file: BinaryIO, demuxer: str) -> bool:
    """Whether a container's structure says that its end is missing. Call before FFmpeg reads the file."""
    check = _CHECKS.get(demuxer)
    if check is None:
        return False
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return check(file, size)


def truncations(
    container: Any, demuxer: str, index: ContainerIndex, promised_s: float | None = None
) -> dict[int, Truncation]:
    """What each stream of a container that is cut off holds, by index, where it lacks more than rounding explains.

    ``promised_s``: length that a header outside of FFmpeg's sight promises; by default what FFmpeg has read.
    """
    found: dict[int, Truncation] = {}
    for stream in container.streams:
        track = index.tracks.get(stream.index)
        if track is None:
            continue
        own_s = _promised_end_s(container, stream, demuxer) if promised_s is None else index.zero_s + promised_s
        if own_s is None:
            continue
        held_s = max(0.0, track.end_s - index.zero_s)
        missing_s = own_s - index.zero_s - held_s
        if missing_s > max(END_TOLERANCE_S, 2 * track.frame_s):
            found[stream.index] = Truncation(round(held_s, 6), round(own_s - index.zero_s, 6))
    return found


def drop_partial_packet(index: ContainerIndex, demuxer: str, promised_s: float | None) -> None:
    """Take the last frame of a cut FLAC off its length: FFmpeg gives it as whole, though it ends with the file."""
    for track in index.tracks.values():
        if demuxer == "flac" and track.times_s and index.duration_s < (promised_s or 0.0) - END_TOLERANCE_S:
            track.end_s = track.times_s[-1]
            index.duration_s = max(0.0, track.end_s - index.zero_s)


def _promised_end_s(container: Any, stream: Any, demuxer: str) -> float | None:
    """On the container's clock. An MP4 has a duration for each track, other containers one for all of them."""
    whole_s = None if container.duration is None else container.duration / 1e6
    if demuxer != "mov":
        return whole_s
    if stream.duration is None or not stream.time_base:
        return None
    own_s = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    return own_s if whole_s is None else min(own_s, (container.start_time or 0) / 1e6 + whole_s)


def _mov(file: BinaryIO, size: int) -> bool:
    """ISO/IEC 14496-12, 4.2: a box that ends after the file."""
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return False
        length = int.from_bytes(head[:4])
        if length == 1:
            length = int.from_bytes(head[8:16])
        if length < 8:
            # Up to the file's end, or damaged.
            return False
        position += length
        if position > size:
            return True
    return False


def _matroska(file: BinaryIO, size: int) -> bool:
    """RFC 9559, 5.1, and RFC 8794, 4 and 6: a Segment of known size that ends after the file."""
    head = file.read(_HEAD_BYTES)
    header, position = _vint(head, 4)
    if header is None or head[position + header : position + header + 4] != b"\x18\x53\x80\x67":
        return False
    begin = position + header + 4
    segment, position = _vint(head, begin)
    return segment is not None and position + segment > size


def _vint(data: bytes, position: int) -> tuple[int | None, int]:
    """An EBML size and where it ends; None if it is unknown or not there."""
    if position >= len(data) or data[position] == 0:
        return None, position
    length = 9 - data[position].bit_length()
    value = int.from_bytes(data[position : position + length]) & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), position + length


def _avi(file: BinaryIO, size: int) -> bool:
    """The first RIFF chunk ends after the file; writers that cannot seek leave its size at 0 or at the largest."""
    length = struct.unpack("<I", file.read(8)[4:].ljust(4, b"\0"))[0]
    return bool(8 + length > size and length < 0xFFFF_0000)


def avi_promise_s(file: BinaryIO) -> float | None:
    """Pictures that an AVI's main header counts, by the time that it gives each; None without."""
    file.seek(0)
    head = file.read(52)
    if head[24:28] != b"avih" or len(head) < 52:
        return None
    frame_us, frames = struct.unpack_from("<I", head, 32)[0], struct.unpack_from("<I", head, 48)[0]
    return frame_us * frames / 1e6 or None


def _flv(file: BinaryIO, size: int) -> bool:
    """Without a size in its structure, by whether it states a duration at all."""
    del size
    return b"\x00\x08duration\x00" in file.read(_HEAD_BYTES)


_CHECKS: Final[Mapping[str, Callable[[BinaryIO, int], bool]]] = {
    "mov": _mov,
    "matroska": _matroska,
    "avi": _avi,
    "flv": _flv,
}
