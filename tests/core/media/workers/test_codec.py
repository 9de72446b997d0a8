"""What a worker says comes out as it went in, and what no sound worker says is never taken for it."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dimml.errors import DimmlError, InvalidParameterError, UnreadableError, UnusableMediaError
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.windows import WindowDecoded
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest, MediaLimits
from dimml.media.workers.channel import MalformedReplyError, ParentEnd, WorkerEnd, make_channel
from dimml.media.workers.codec import encode_reply, read_reply
from dimml.media.workers.messages import (
    CHUNK_ROWS_BYTES,
    DecodeResult,
    Lost,
    Ready,
    Reply,
    WindowsReply,
    check_reply,
    most_together,
    reply_bounds,
)
from dimml.media.workers.pool import DecodePool
from dimml.media.workers.requests import RequestWriter, read_requests
from dimml.signal_check import QualityThresholds
from dimml.status import OK, ModalityStatus, Reason
from support.tiny_bundle import AUDIO, VISUAL

SILENT = ModalityStatus.because(Reason.SILENT)
OUT_OF_MEMORY = Lost(Reason.DECODE_MEMORY)
BROKE = Lost(Reason.DECODER_CRASHED, "why")
TRACEBACK = Lost(Reason.DECODER_CRASHED, "Traceback …")
AUDIO_ROW = DecodedTrack(OK, np.zeros(AUDIO.shape, np.float32))


def decoded() -> Decoded:
    # 10 bytes, so that what follows has to be moved to the next multiple of 8; the last is not contiguous.
    picture = np.arange(10, dtype=np.uint8).reshape(1, 2, 5)
    sound = np.array([1.0, 9.0, 2.0, 9.0, np.nan, 9.0], np.float32)[::2]
    tracks = {
        "visual": DecodedTrack(OK, picture, (0.04, 1 / 3)),
        "none": DecodedTrack(SILENT),
        "audio": DecodedTrack(OK, sound, channel="left"),
    }
    return Decoded(tracks, 0.1, None, 2.5)


def same(one: Decoded, other: Decoded) -> None:
    assert (one.start_s, one.end_s, list(one.tracks)) == (other.start_s, other.end_s, list(other.tracks))
    assert one.duration_s == other.duration_s
    for name, track in one.tracks.items():
        twin = other.tracks[name]
        assert (track.status, track.times_s, track.channel) == (twin.status, twin.times_s, twin.channel)
        assert (track.row is None) == (twin.row is None)
        if track.row is not None and twin.row is not None:
            assert track.row.dtype == twin.row.dtype
            np.testing.assert_array_equal(track.row, twin.row)


@dataclass
class Ends:
    parent: ParentEnd
    theirs: socket.socket

    def send(self, reply: Reply) -> None:
        WorkerEnd(self.theirs.fileno()).send(*encode_reply(reply))

    def read(self, limit_s: float = 5.0) -> Reply:
        return read_reply(*self.parent.receive(most_text=10**6, most_rows=10**6, limit_s=limit_s))

    def through(self, reply: Reply) -> Reply:
        self.send(reply)
        return self.read()


@pytest.fixture
def ends() -> Iterator[Ends]:
    parent, theirs = make_channel()
    with theirs:
        yield Ends(parent, theirs)
        parent.close()


def test_rows_come_out_as_they_went_in_and_can_be_written(ends: Ends) -> None:
    sent = [
        DecodeResult(decoded(), 0.25),
        DecodeResult(OUT_OF_MEMORY, 1 / 3),
        DecodeResult(BROKE, 0.0),
        DecodeResult(decoded(), 2.0),
    ]
    got = ends.through(sent)
    assert isinstance(got, list)
    assert [one.seconds for one in got] == [one.seconds for one in sent]
    assert [one.outcome for one in got[1:3]] == [one.outcome for one in sent[1:3]]
    assert [one.outcome.details for one in got[1:3] if isinstance(one.outcome, Lost)] == ["", "why"]
    for one in (got[0], got[3]):
        assert isinstance(one.outcome, Decoded)
        same(one.outcome, decoded())
    outcome = got[0].outcome
    assert isinstance(outcome, Decoded)
    row = outcome.tracks["visual"].row
    assert row is not None
    row[:] = 0


def test_a_reply_of_numbers_that_are_not_finite_is_refused_where_it_is_written() -> None:
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON compliant"):
            encode_reply([DecodeResult(Decoded({}, number), 0.1)])
    # Words are no numbers; half a character is written as it can be.
    text, _ = encode_reply(Lost(Reason.DECODER_CRASHED, "NaN, Infinity"))
    assert json.loads(text)["details"] == "NaN, Infinity"
    text, _ = encode_reply(UnreadableError("half \ud800"))
    assert json.loads(text)["message"] == "half \ud800"


def test_requests_come_out_as_they_went_in() -> None:
    writer = RequestWriter()
    media = b"a recording"
    first = DecodeRequest((AUDIO, VISUAL), {"audio": media, "visual": media}, 1.5)
    others = [
        replace(first, modalities=(VISUAL,), start_s=0.5, end_s=2.0, margin_s=0.25),
        replace(first, limits=MediaLimits(max_seconds=7.0), audio_track=1, video_track="eng"),
        replace(first, quality=QualityThresholds(silence_dbfs=-40.0)),
        replace(first, modalities=(AUDIO.model_copy(update={"samples": 99}),), sources={"audio": Path("a.wav")}),
    ]
    for requests in ([first], others, [first, *others], [first]):
        read = read_requests(pickle.loads(writer.write(requests)))  # noqa: S301
        assert read == requests
        # One that several modalities share is opened once.
        assert read[0].sources.get("audio", media) is read[0].sources["visual"] or requests[0] is not first


def test_a_detail_comes_out_as_it_went_in(ends: Ends) -> None:
    """It is no part of a status's equality: compared by itself, and in what an error says."""
    midi = ModalityStatus.because(Reason.UNSUPPORTED, "MIDI is not read: render it")
    got = ends.through([DecodeResult(Decoded({"audio": DecodedTrack(midi)}), 0.1)])
    assert isinstance(got, list)
    outcome = got[0].outcome
    assert isinstance(outcome, Decoded)
    assert outcome.tracks["audio"].status.detail == midi.detail
    error = ends.through(UnusableMediaError("nothing", statuses={"audio": midi}))
    assert isinstance(error, UnusableMediaError)
    assert error.statuses["audio"].detail == midi.detail


@pytest.mark.parametrize(
    "fields", [{"detail": "x" * 301}, {"detail": "two\nlines"}, {"status": "ok", "detail": "fine"}]
)
def test_a_detail_that_no_decoder_writes_is_refused(ends: Ends, fields: dict[str, str]) -> None:
    track = {"modality": "a", "status": "unusable:unsupported", "times_s": [], "row": None, **fields}
    document = {"kind": "decoded", "tracks": [track], "start_s": None, "end_s": None}
    text = json.dumps({"kind": "results", "results": [{"outcome": document, "seconds": 0.1}]}).encode()
    with pytest.raises(MalformedReplyError):
        read_reply(text, np.zeros(0, np.uint8))
    track["detail"], track["status"] = "one line", "unusable:unsupported"
    assert read_reply(
        json.dumps({"kind": "results", "results": [{"outcome": document, "seconds": 0.1}]}).encode(),
        np.zeros(0, np.uint8),
    )


def test_windows_come_out_as_they_went_in(ends: Ends) -> None:
    sent = [
        WindowDecoded(3, 9, Window(0.3, 1 / 7), Window(0.0, 1e9), decoded()),
        WindowDecoded(4, 9, None, None, decoded()),
    ]
    got = ends.through(WindowsReply(sent, done=True))
    assert isinstance(got, WindowsReply)
    assert got.done
    for one, other in zip(got.windows, sent, strict=True):
        same(one.decoded, other.decoded)
        assert (one.number, one.count, one.window, one.span) == (other.number, other.count, other.window, other.span)


@pytest.mark.parametrize("reply", [Ready(Isolation(("a",), ("b: why",))), OUT_OF_MEMORY, TRACEBACK])
def test_what_has_no_rows(ends: Ends, reply: Reply) -> None:
    got = ends.through(reply)
    assert got == reply
    if isinstance(reply, Lost):
        assert isinstance(got, Lost)
        assert got.details == reply.details


@pytest.mark.parametrize(
    "error",
    [
        InvalidParameterError("start_s is past the end", field="start_s"),
        UnusableMediaError("nothing", statuses={"audio": SILENT}),
        UnreadableError("not there", problems=["one"], field="path"),
    ],
)
def test_errors_keep_their_kind(ends: Ends, error: DimmlError) -> None:
    whole, within = ends.through(error), ends.through([DecodeResult(error, 0.1)])
    assert isinstance(within, list)
    for got in (whole, within[0].outcome):
        assert isinstance(got, DimmlError)
        assert (type(got), got.message, got.field, got.statuses) == (
            type(error),
            error.message,
            error.field,
            error.statuses,
        )


def test_an_error_that_decoding_does_not_raise_is_a_fault(ends: Ends) -> None:
    got = ends.through(DimmlError("whatever"))
    assert got == Lost(Reason.DECODER_CRASHED)
    assert isinstance(got, Lost)
    assert "DimmlError: whatever" in got.details


def message(document: object, rows: bytes = b"") -> bytes:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<QQ", len(content), len(rows)) + content + rows


LOST = {"kind": "lost", "reason": "decode_memory", "details": ""}
ERROR = {"kind": "error", "error": "TooLargeError", "message": "", "field": None, "statuses": []}


def row(dtype: str, *shape: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape}


def outcome(**fields: object) -> dict[str, object]:
    one = {"modality": "a", "status": "absent:not_sent", "times_s": [], "row": None, **fields}
    return {"kind": "decoded", "tracks": [one], "start_s": None, "end_s": None}


def results(*outcomes: dict[str, object], **fields: object) -> dict[str, object]:
    return {"kind": "results", "results": [{"seconds": 0.1, "outcome": one, **fields} for one in outcomes]}


def track(**fields: object) -> dict[str, object]:
    return results(outcome(status="ok", **fields))


def windows(**fields: object) -> dict[str, object]:
    one = {"number": 0, "count": 9, "window": None, "span": None, "decoded": outcome(), **fields}
    return {"kind": "windows", "windows": [one], "done": True}


def without(field: str, document: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in document.items() if name != field}


WELL_FORMED = {
    "a row": (track(row=row("uint8", 8)), bytes(8)),
    "a row of floats": (track(row=row("float32", 2, 1)), bytes(8)),
    "two rows": (results(*2 * [outcome(status="ok", row=row("uint8", 5))]), bytes(16)),
    "times that are whole numbers": (track(times_s=[0, 1]), b""),
    "a window": (windows(window=[0, 1.5]), b""),
    "lost": (LOST, b""),
    "an error": (ERROR, b""),
}

#: What a worker may not send, and the fault that must be found in it.
MALFORMED = {
    "a pickle": (message(pickle.dumps(Lost(Reason.DECODE_MEMORY))), "JSON"),
    "no object": (message([1]), "object|dictionary"),
    "nothing known": (message({"else": 1}), "kind"),
    "a kind that is none": (message({"kind": "else"}), "kind"),
    "an endless text": (struct.pack("<QQ", 2**63, 0), "bytes of text"),
    "endless rows": (struct.pack("<QQ", 2, 2**63), "of rows"),
    "nesting without end": (message(b"[" * 100_000), "recursion"),
    "a row that is not there": (message(track(row=row("uint8", 9)), bytes(8)), "not there"),
    "a row of negative size": (message(track(row=row("uint8", -8, -1)), bytes(8)), "shape.*greater"),
    "a row past all numbers": (message(track(row=row("uint8", 2**40, 2**40)), bytes(8)), "not there"),
    "a row of too many dimensions": (message(track(row=row("uint8", *[1] * 33)), bytes(8)), "shape.*at most 32"),
    "a row of objects": (message(track(row=row("object", 1)), bytes(8)), "dtype"),
    "a row without a shape": (message(track(row={"dtype": "uint8"}), bytes(8)), "shape.*required"),
    "an extent that is no whole number": (message(track(row=row("uint8", 8.0)), bytes(8)), "shape.*integer"),
    "an extent that is true": (message(track(row=row("uint8", True)), bytes(8)), "shape.*integer"),
    "an extent as text": (message(track(row=row("uint8", "8")), bytes(8)), "shape.*integer"),
    "rows that belong to nothing": (
        message(track(row=row("uint8", 8)), bytes(16)),
        "8 bytes of rows belong to nothing",
    ),
    "rows without a result": (message(LOST, bytes(8)), "8 bytes of rows belong to nothing"),
    "an endless row": (message(track(row=row("uint8", float("inf"))), bytes(8)), "shape"),
    "a time that is none": (message(track(times_s=[float("nan")])), "times_s.*finite"),
    "a time that is true": (message(track(times_s=[True])), "times_s.*number"),
    "a time as text": (message(track(times_s=["0.1"])), "times_s.*number"),
    "times that are none": (message(track(times_s=None)), "times_s"),
    "a channel that is none": (message(track(channel="<b>")), "channel"),
    "a time past all numbers": (
        message(
            b'{"kind": "results", "results": [{"seconds": 1, "outcome": {"kind": "decoded", "tracks": [], "start_s": 1'
            + b"0" * 400
            + b', "end_s": null}}]}'
        ),
        "start_s.*(finite|number)",
    ),
    "a result without seconds": (
        message({"kind": "results", "results": [{"outcome": LOST}]}),
        "seconds.*required",
    ),
    "a result of endless seconds": (message(results(LOST, seconds=float("inf"))), "seconds.*finite"),
    "a result of less than no time": (message(results(LOST, seconds=-5.0)), "seconds.*greater"),
    "a result of true seconds": (message(results(LOST, seconds=True)), "seconds.*number"),
    "a result with a field too many": (message(results(LOST, more=1)), "more.*not permitted"),
    "a result that is a list of results": (message(results(results(LOST))), "outcome"),
    "results that are none": (message({"kind": "results", "results": {"seconds": 0.1}}), "results.*(list|array)"),
    "a row that two results share": (
        message(results(*2 * [outcome(status="ok", row=row("uint8", 8))]), bytes(8)),
        "not there",
    ),
    "a window without ends": (message(windows(window=[])), "window.*required"),
    "a window past the last": (message(windows(number=9)), "window 9 of 9"),
    "a window of none": (message(windows(count=0)), "count.*greater"),
    "a window of a false number": (message(windows(number=True)), "number.*integer"),
    "windows that may be done": (message(windows() | {"done": 1}), "done.*boolean"),
    "half a letter": (message(LOST | {"details": "\ud800"}), "hex escape|surrogate"),
    "bytes that are no letters": (message(json.dumps(LOST).encode().replace(b'""', b'"\xff"')), "unicode|UTF-8"),
    "a status that is none": (message(results(outcome(status="fine"))), "fine"),
    "a status of a false reason": (message(results(outcome(status="ok:silent"))), "is not a modality status"),
    "two tracks of one modality": (message(results(outcome() | {"tracks": 2 * outcome()["tracks"]})), "two tracks"),  # type: ignore[operator]
    "an error that is none": (message(ERROR | {"error": "SystemExit"}), "does not raise 'SystemExit'"),
    "an error without a message": (message(without("message", ERROR)), "message.*required"),
    "an error of a false status": (message(ERROR | {"statuses": [{"modality": "a", "status": "fine"}]}), "fine"),
    "lost for a reason that no worker knows": (message(LOST | {"reason": "silent"}), "reason"),
    "a worker that is ready for nothing": (message({"kind": "ready", "enforced": ["a"]}), "missing.*required"),
    "a field that writes into the log": (message(LOST | {"a\nERROR b": 1}), r"lost\.a\\nERROR b.*not permitted"),
    # Of a list the first fault alone is kept: a million of them would take hundreds of megabytes.
    "results without end": (message({"kind": "results", "results": [0] * 9999}), r"results\.0\W"),
    "windows without end": (message(windows() | {"windows": [0] * 9999}), r"windows\.0\W"),
    "tracks without end": (message(results(outcome() | {"tracks": [{}] * 9999})), r"tracks\.0\W"),
    "times without end": (message(track(times_s=[None] * 9999)), r"times_s\.0\W"),
    "extents without end": (message(track(row=row("uint8", *[-1] * 9999)), bytes(8)), r"shape\W"),
    "statuses without end": (message(ERROR | {"statuses": [0] * 9999}), r"statuses\.0\W"),
    "layers without end": (message({"kind": "ready", "enforced": [0] * 9999, "missing": []}), r"enforced\.0\W"),
    "more faults than are listed": (message(LOST | {str(number): 1 for number in range(5000)}), "^5000 faults"),
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_what_a_sound_worker_may_say(ends: Ends, name: str) -> None:
    """The neighbours of what is malformed, so that each of those is refused for its fault alone."""
    document, rows = WELL_FORMED[name]
    ends.theirs.sendall(message(document, rows))
    ends.read()


@pytest.mark.parametrize("name", MALFORMED)
def test_what_no_sound_worker_says(ends: Ends, name: str) -> None:
    sent, fault = MALFORMED[name]
    ends.theirs.sendall(sent)
    with pytest.raises(MalformedReplyError, match=fault):
        ends.read()


@pytest.mark.parametrize("interval_s", [10.0, 0.05])
def test_a_reply_that_never_ends_is_not_waited_for(ends: Ends, interval_s: float) -> None:
    """Be it that it stops, or that it goes on by a byte at a time."""
    whole = message(track(row=row("uint8", 8)), bytes(8))
    over = threading.Event()

    def drip() -> None:
        for byte in whole[:-1]:
            ends.theirs.sendall(bytes([byte]))
            if over.wait(interval_s):
                return

    with ThreadPoolExecutor(1) as other:
        other.submit(drip)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            ends.read(limit_s=0.4)
        assert 0.3 < time.monotonic() - began < 3.0
        over.set()


def test_a_worker_that_does_not_listen_is_not_waited_for(ends: Ends) -> None:
    with pytest.raises(TimeoutError):
        ends.parent.send(bytes(10**7), 0.2)


@pytest.mark.parametrize(
    ("tracks", "fits"),
    [
        ({"audio": AUDIO_ROW}, True),
        ({"audio": DecodedTrack(SILENT)}, True),
        ({}, False),
        ({"audio": AUDIO_ROW, "other": DecodedTrack(SILENT)}, False),
        ({"audio": DecodedTrack(OK)}, False),
        ({"audio": DecodedTrack(SILENT, AUDIO_ROW.row)}, False),
        ({"audio": DecodedTrack(OK, np.zeros(3, np.float32))}, False),
        ({"audio": DecodedTrack(OK, np.zeros(AUDIO.shape, np.uint8))}, False),
    ],
)
def test_an_answer_is_of_what_was_asked(tracks: dict[str, DecodedTrack], *, fits: bool) -> None:
    plain = Decoded(tracks)
    fine = DecodeResult(Decoded({"audio": AUDIO_ROW}), 0.1)
    reply: Reply
    for reply, asked in (
        ([DecodeResult(plain, 0.1)], 1),
        ([fine, DecodeResult(plain, 0.1)], 3),
        (WindowsReply([WindowDecoded(0, 1, None, None, plain)], done=True), 1),
    ):
        with nullcontext() if fits else pytest.raises(MalformedReplyError):
            check_reply(reply, [(AUDIO,)] * asked)


@pytest.mark.parametrize(("given", "fits"), [(0, False), (1, True), (2, True), (3, False)])
def test_there_are_answers_but_no_more_than_requests(given: int, *, fits: bool) -> None:
    with nullcontext() if fits else pytest.raises(MalformedReplyError):
        check_reply([DecodeResult(BROKE, 0.1)] * given, [(AUDIO,), (AUDIO,)])


def test_an_error_is_of_what_was_asked() -> None:
    other = UnusableMediaError("nothing", statuses={"other": SILENT})
    reply: Reply
    for reply in (other, [DecodeResult(other, 0.1)]):
        with pytest.raises(MalformedReplyError):
            check_reply(reply, [(AUDIO,)])


def test_bounds_let_the_largest_answer_through(ends: Ends) -> None:
    tall = VISUAL.model_copy(update={"frames": 1024, "height": 8, "width": 8})
    times_s = tuple(np.random.default_rng(0).uniform(0, 1e5, 1024).tolist())
    whole = Decoded({"audio": AUDIO_ROW, "visual": DecodedTrack(OK, np.zeros(tall.shape, np.uint8), times_s)})
    reply: Reply
    many = most_together((AUDIO, tall), 10_000)
    assert 1 < many < 100
    for reply, asked, windows in (
        ([DecodeResult(whole, 1 / 3)], 1, False),
        ([DecodeResult(whole, 1 / 3)] * many, many, False),
        (WindowsReply([WindowDecoded(0, 1, None, None, whole)], done=True), 1, True),
    ):
        with ThreadPoolExecutor(1) as other:
            sent = other.submit(ends.send, reply)
            bounds = reply_bounds([(AUDIO, tall)] * asked, windows=windows)
            check_reply(read_reply(*ends.parent.receive(**bounds, limit_s=5.0)), [(AUDIO, tall)] * asked)
            sent.result()


def test_a_reply_to_many_is_bounded_by_what_a_worker_begins() -> None:
    row_bytes = AUDIO.samples * 4
    assert most_together((AUDIO,), 16) == 16
    assert most_together((AUDIO,), 10**6) == math.ceil(CHUNK_ROWS_BYTES / row_bytes)
    assert most_together((AUDIO.model_copy(update={"samples": 10**6}),), 16) == 1
    assert reply_bounds([(AUDIO,)] * 1000)["most_rows"] < CHUNK_ROWS_BYTES + 2 * row_bytes
    assert reply_bounds([(AUDIO,)] * 2)["most_rows"] < 3 * row_bytes


def usurped(request: DecodeRequest) -> Decoded:
    """A decode function that a hostile file has taken over, and that says what the file wants."""
    (source,) = set(request.sources.values())
    assert isinstance(source, bytes)
    pipe = int(sys.argv[3])  # As a worker is started.
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
    wrong_row = message(track(row=row("uint8", 8)), bytes(8))
    with DecodePool(1, decode_function=usurped) as pool, caplog.at_level(logging.ERROR):
        pool.warm_up()
        for said in (message(pickled), wrong_row):
            request = DecodeRequest((AUDIO,), {AUDIO.name: said}, clip_s=1.0)
            got = pool.decode_blocking(request, timeout_s=20.0)
            assert {track.status.reason for track in got.tracks.values()} == {Reason.DECODER_CRASHED}
    assert not mark.exists()
    assert "makes no sense" in caplog.text
