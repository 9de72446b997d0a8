"""Chains of whole Ogg streams, one after the other (RFC 3533, section 4), as radio recorders and joining make them.

Each link has clock, rate and channels of its own, and libsndfile reads the first one alone.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
import soundfile
import soxr

from dimml.errors import TooLargeError
from dimml.media.decoders.audio import SoundBuffer
from dimml.media.decoders.mixing import Sound, file_layout
from dimml.media.decoders.time_range import Window

#: A radio recording has one link per song; opening each takes some tenths of a millisecond.
MAX_LINKS: Final = 1000
#: Capture pattern, version 0, and the flag of a stream's first page alone.
_FIRST_PAGE: Final = b"OggS\x00\x02"
_HEADER_BYTES: Final = 27
_CODECS: Final = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_CHUNK_BYTES: Final = 2**20


def link_starts(file: BinaryIO) -> list[int]:
    """Find the bytes at which links of a chain begin.

    Those are the first pages of sound streams; of a group of several, which are tracks beside each other, the first.
    Empty if a stream is there that is no sound known here, such as a picture. Raises TooLargeError for more than
    ``MAX_LINKS``.
    """
    starts: list[int] = []
    group_end = -1
    for position, page in _first_pages(file):
        segments = page[26]
        begin = _HEADER_BYTES + segments
        body = page[begin : begin + 8]
        if page[18:22] != b"\0\0\0\0":
            # A page of number 0 is a stream's first; this is a coincidence in the sound.
            continue
        if not body.startswith(_CODECS):
            return []
        if position != group_end:
            starts.append(position)
        group_end = position + begin + sum(page[_HEADER_BYTES:begin])
        if len(starts) > MAX_LINKS:
            raise TooLargeError(
                f"the Ogg file is a chain of more than {MAX_LINKS} streams; split it, or encode it as one stream"
            )
    return starts


def _first_pages(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Positions of what looks like a first page, with as many bytes as its header and the codec's name take."""
    wanted = _HEADER_BYTES + 255 + 8
    file.seek(0)
    data, base, ended = b"", 0, False
    while not ended:
        read = file.read(_CHUNK_BYTES)
        ended = not read
        data += read
        # One that the next chunk completes is found then.
        last = len(data) if ended else max(0, len(data) - wanted)
        position = data.find(_FIRST_PAGE)
        while 0 <= position < last:
            page = data[position : position + wanted]
            if len(page) > _HEADER_BYTES:
                yield base + position, page
            position = data.find(_FIRST_PAGE, position + 1)
        data, base = data[last:], base + last


class _Part(io.RawIOBase):
    """Bytes ``begin`` to ``end`` of an open file, as a file."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._file, self._begin, self._size = file, begin, end - begin
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        size = max(0, min(len(view), self._size - self._position))
        self._file.seek(self._begin + self._position)
        data = self._file.read(size)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


@dataclass(frozen=True, slots=True)
class _Link:
    begin: int
    end: int
    #: Seconds from the recording's start.
    start_s: float
    end_s: float


class ChainedSound:
    """The sound of a chain, link after link, at the rate of the first one.

    Links of another rate are resampled. Raises soundfile.LibsndfileError if libsndfile cannot read one.
    """

    def __init__(self, file: BinaryIO, starts: list[int]) -> None:
        self._file = file
        size = file.seek(0, os.SEEK_END)
        self._links: list[_Link] = []
        self._rate_hz = 0
        #: The most that a link has.
        self.channels = 0
        at_s = 0.0
        for begin, end in zip(starts, [*starts[1:], size], strict=True):
            with soundfile.SoundFile(_Part(file, begin, end)) as sound:
                self._rate_hz = self._rate_hz or int(sound.samplerate)
                self.channels = max(self.channels, int(sound.channels))
                end_s = at_s + sound.frames / sound.samplerate
            self._links.append(_Link(begin, end, at_s, end_s))
            at_s = end_s
        self.duration_s = at_s

    @property
    def empty(self) -> bool:
        """Whether there is not one sample."""
        return self.duration_s == 0.0

    def read(self, window: Window) -> SoundBuffer:
        """Read the window's sound. Raises ValueError or soundfile.LibsndfileError if it cannot be read."""
        buffer = SoundBuffer(window, self._rate_hz, file_layout(self.channels))
        first_s = buffer.first / buffer.rate_hz
        last_s = first_s + buffer.length / buffer.rate_hz
        read = 0
        due = False
        for link in self._links:
            begin_s, end_s = max(link.start_s, first_s), min(link.end_s, last_s)
            if end_s <= begin_s:
                continue
            due = True
            with soundfile.SoundFile(_Part(self._file, link.begin, link.end)) as sound:
                rate_hz = int(sound.samplerate)
                begin = round((begin_s - link.start_s) * rate_hz)
                sound.seek(min(begin, sound.frames))
                samples = sound.read(round((end_s - link.start_s) * rate_hz) - begin, dtype="float32", always_2d=True)
            layout = file_layout(samples.shape[1])
            read += len(samples)
            if len(samples) and rate_hz != self._rate_hz:
                samples = np.asarray(soxr.resample(samples, rate_hz, self._rate_hz), np.float32)
            buffer.write(Sound(samples.T, layout), begin_s)
        if due and read == 0:
            raise ValueError("no samples where the headers promised some")
        return buffer

    def close(self) -> None:
        """Release nothing: links are opened for each reading."""
