"""What a worker says comes out as it went in, and what no sound worker says is never taken for it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dimml.errors import DimmlError, InvalidParameterError, UnreadableError, UnusableMediaError
from dimml.media import replies
from dimml.media.isolation import Isolation
from dimml.media.pool import DecodePool
from dimml.media.ranges import Window
from dimml.media.replies import Broke, MalformedReplyError, OutOfMemory, Ready, Reply, ReplyReader, WindowsReply
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest
from dimml.media.windows import WindowDecoded
from dimml.status import OK, ModalityStatus, Reason
from support.tiny_bundle import AUDIO

SILENT = ModalityStatus.because(Reason.SILENT)


def decoded() -> Decoded:
    # 10 bytes, so that what follows has to be moved to the next multiple of 8; the last is not contiguous.
    picture = np.arange(10, dtype=np.uint8).reshape(1, 2, 5)
    sound = np.array([1.0, 9.0, 2.0, 9.0, np.nan, 9.0], np.float32)[::2]
    tracks = {
        "visual": DecodedTrack(OK, picture, (0.04, 1 / 3)),
        "none": DecodedTrack(SILENT),
        "audio": DecodedTrack(OK, sound),
    }
    return Decoded(tracks, 0.1, None)


def same(one: Decoded, other: Decoded) -> None:
    assert (one.start_s, one.end_s, list(one.tracks)) == (other.start_s, other.end_s, list(other.tracks))
    for name, track in one.tracks.items():
        twin = other.tracks[name]
        assert (track.status, track.times_s) == (twin.status, twin.times_s)
        assert (track.row is None) == (twin.row is None)
        if track.row is not None and twin.row is not None:
            assert track.row.dtype == twin.row.dtype
            np.testing.assert_array_equal(track.row, twin.row)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, ReplyReader]]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        reader = ReplyReader(ours.fileno())
        yield theirs, reader
        reader.close()


def through(ends: tuple[socket.socket, ReplyReader], reply: Reply) -> Reply:
    replies.send_reply(ends[0].fileno(), reply)
    return ends[1].read()


def test_rows_come_out_as_they_went_in_and_can_be_written(ends: tuple[socket.socket, ReplyReader]) -> None:
    got = through(ends, decoded())
    assert isinstance(got, Decoded)
    same(got, decoded())
    row = got.tracks["visual"].row
    assert row is not None
    row[:] = 0


def test_windows_come_out_as_they_went_in(ends: tuple[socket.socket, ReplyReader]) -> None:
    sent = [
        WindowDecoded(3, 9, Window(0.3, 1 / 7), Window(0.0, 1e9), decoded()),
        WindowDecoded(4, 9, None, None, decoded()),
    ]
    got = through(ends, WindowsReply(sent, done=True))
    assert isinstance(got, WindowsReply)
    assert got.done
    for one, other in zip(got.windows, sent, strict=True):
        same(one.decoded, other.decoded)
        assert (one.number, one.count, one.window, one.span) == (other.number, other.count, other.window, other.span)


@pytest.mark.parametrize("reply", [Ready(Isolation(("a",), ("b: why",))), OutOfMemory(), Broke("Traceback …")])
def test_what_has_no_rows(ends: tuple[socket.socket, ReplyReader], reply: Reply) -> None:
    assert through(ends, reply) == reply


@pytest.mark.parametrize(
    "error",
    [
        InvalidParameterError("start_s is past the end", field="start_s"),
        UnusableMediaError("nothing", statuses={"audio": SILENT}),
        UnreadableError("not there", problems=["one"], field="path"),
    ],
)
def test_errors_keep_their_kind(ends: tuple[socket.socket, ReplyReader], error: DimmlError) -> None:
    got = through(ends, error)
    assert isinstance(got, DimmlError)
    assert (type(got), got.message, got.field, got.statuses) == (
        type(error),
        error.message,
        error.field,
        error.statuses,
    )


def test_an_error_that_decoding_does_not_raise_is_a_fault(ends: tuple[socket.socket, ReplyReader]) -> None:
    assert isinstance(through(ends, DimmlError("whatever")), Broke)


def message(document: object, rows: bytes = b"") -> bytes:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<IQ", len(content), len(rows)) + content + rows


def track(**said: object) -> dict[str, object]:
    return {"decoded": {"tracks": {"a": {"status": "ok", "times_s": [], **said}}, "start_s": None, "end_s": None}}


MALFORMED = {
    "a pickle": message(pickle.dumps(OutOfMemory())),
    "no object": message([1]),
    "nothing known": message({"else": 1}),
    "an endless head": struct.pack("<IQ", 2**32 - 1, 0),
    "endless rows": struct.pack("<IQ", 2, 2**63),
    "nesting without end": message(b"[" * 100_000),
    "a row that is not there": message(track(dtype="uint8", shape=[9]), bytes(8)),
    "a row of negative size": message(track(dtype="uint8", shape=[-8, -1]), bytes(8)),
    "a row past all numbers": message(track(dtype="uint8", shape=[2**40, 2**40]), bytes(8)),
    "a row of objects": message(track(dtype="object", shape=[1]), bytes(8)),
    "a status that is none": message(track(status="fine")),
    "an error that is none": message({"error": "SystemExit", "message": "", "field": None, "statuses": {}}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_no_sound_worker_says(ends: tuple[socket.socket, ReplyReader], name: str) -> None:
    ends[0].sendall(MALFORMED[name])
    with pytest.raises(MalformedReplyError):
        ends[1].read()


def test_a_reply_that_stops_half_way_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "_STALL_S", 1)
    theirs, ours = socket.socketpair()
    with theirs, ours:
        reader = ReplyReader(ours.fileno())
        theirs.sendall(message(track(dtype="uint8", shape=[8]), bytes(8))[:-1])
        began = time.monotonic()
        with pytest.raises(BlockingIOError):
            reader.read()
        assert 0.5 < time.monotonic() - began < 5.0
        theirs.close()
        with pytest.raises(EOFError):
            reader.read()
        reader.close()


def usurped(request: DecodeRequest) -> Decoded:
    """A decode function that a hostile file has taken over, and that says what the file wants."""
    (source,) = set(request.sources.values())
    assert isinstance(source, bytes)
    pipe = int(sys.argv[2])  # As a worker is started.
    os.write(pipe, source)
    signal.pause()
    raise AssertionError


class Escape:
    """Does what a pickle may do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_a_worker_that_was_taken_over_runs_nothing_in_its_parent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = tmp_path / "escaped"
    pickled = pickle.dumps(Escape(mark))
    wrong_row = message(track(dtype="uint8", shape=[8]), bytes(8))
    with DecodePool(1, decode_function=usurped) as pool, caplog.at_level(logging.ERROR):
        pool.warm_up()
        for said in (message(pickled), wrong_row):
            request = DecodeRequest((AUDIO,), {AUDIO.name: said}, clip_s=1.0)
            got = pool.decode_blocking(request, timeout_s=20.0)
            assert {track.status.reason for track in got.tracks.values()} == {Reason.DECODER_CRASHED}
    assert not mark.exists()
    assert "makes no sense" in caplog.text
