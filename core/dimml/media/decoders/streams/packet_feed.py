"""Feeding a container's packets to the readers of its tracks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.streams.picture_reader import PictureReader
from dimml.media.decoders.track_buffers import PictureSegment, SoundSegment
from dimml.media.decoders.track_readers import SoundReader
from dimml.media.decoders.video import EPSILON_S

Reader = SoundReader | PictureReader


class SeekMissedError(Exception):
    """A seek has landed after the first packet that is needed."""


def read_windows(
    packets: Iterable[Any], readers: Sequence[Reader], *, verify: bool = False
) -> Iterator[Sequence[SoundSegment | PictureSegment]]:
    """Feed ``packets`` to ``readers``; yield each window's segments, one of each reader.

    Raises ReadAgainError before the first window, and with ``verify`` SeekMissedError if a stream begins too late.
    """
    filled: list[deque[Any]] = [deque() for _ in readers]
    pending = {reader.stream.index: (reader, ready) for reader, ready in zip(readers, filled, strict=True)}
    unseen = set(pending) if verify else set()
    try:
        for packet in packets:
            # Packets that flush a decoder carry index 0, whatever their stream.
            index = packet.stream.index
            if index not in pending:
                continue
            reader, ready = pending[index]
            if index in unseen:
                unseen.discard(index)
                time_s = reader.packet_time_s(packet)
                if time_s is None or time_s > reader.from_s + EPSILON_S:
                    raise SeekMissedError
            reader.feed(packet)
            if reader.waits:
                continue
            ready.extend(reader.ready())
            while all(filled):
                yield [segments.popleft() for segments in filled]
            if reader.done:
                del pending[index]
                if not pending:
                    break
    except MemoryError:
        raise
    except UNREADABLE:
        for reader, _ in pending.values():
            reader.flush()
    rest = [chain(ready, reader.rest()) for reader, ready in zip(readers, filled, strict=True)]
    yield from zip(*rest, strict=True)


def packets_of(container: Any, readers: Sequence[Reader]) -> Iterable[Any]:
    """Packets of the readers' streams, from the container's current position."""
    return container.demux(*(reader.stream for reader in readers))  # type: ignore[no-any-return]


def seek(container: Any, readers: Sequence[Reader]) -> bool:
    """Seek to just before what the readers need, by the picture stream if there is one. False if it cannot."""
    target = next((reader for reader in readers if isinstance(reader, PictureReader)), readers[0])
    from_s = min(reader.seek_s for reader in readers)
    if target.tick_s == 0.0 or from_s == -math.inf or any(reader.spliced for reader in readers):
        return False
    try:
        container.seek(round(from_s / target.tick_s), stream=target.stream)
    except MemoryError:
        raise
    except UNREADABLE:
        return False
    return True
