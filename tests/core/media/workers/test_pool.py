"""The pool: bad files cost one worker and one track; workers obey their limits and never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from dimml.errors import DataError, DimmlError, InvalidParameterError, TooLargeError, UnavailableError
from dimml.media import MediaLimits, decode
from dimml.media.decoders.windows import WindowPlan
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.messages import DecodeFunction, DecodeResult, Lost
from dimml.media.workers.pool import DecodePool
from dimml.media.workers.process import WorkerProcess
from dimml.media.workers.timeline import decode_timeline
from dimml.modality import Flow, Frames
from dimml.status import Reason
from support import faulty_decoders
from support.decoding import AUDIO, VISUAL, request_for, statuses
from support.media_maker import write_clip
from support.waiting import comes_true

HANGS = pytest.mark.slow(reason="waits until a time limit has passed")
#: For a worker to take a job, of which the pool gives no sign.
TAKEN_S = 0.2
LonePool = Callable[[DecodeFunction], DecodePool]
REAR = Frames(name="rear", tensor="REAR", frames=2, height=16, width=16)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("pool") / "clip.mp4", 1.0).read_bytes()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(2) as pool:
        pool.warm_up()
        yield pool


@pytest.fixture(scope="module")
def lone() -> Iterator[LonePool]:
    """Pools of one worker by what it decodes with, shared by the tests that leave the worker alive."""
    with ExitStack() as stack:

        @cache
        def pool_of(decode_function: DecodeFunction) -> DecodePool:
            pool = stack.enter_context(DecodePool(1, decode_function=decode_function))
            pool.warm_up()
            return pool

        yield pool_of


def process_of(pool: DecodePool) -> int:
    return int(pool.decode_blocking(DecodeRequest((), {}, 1.0), timeout_s=20).start_s or 0)


def gone(process: int, within_s: float = 5.0) -> bool:
    def ended() -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    return comes_true(ended, within_s)


def test_the_same_rows_as_in_this_process(pool: DecodePool, clip: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    flow = Flow(name="flow", frames=3, height=32, width=32)
    for source in (clip, path):
        request = request_for(source, AUDIO, VISUAL, flow)
        here, there = decode(request), pool.decode_blocking(request, timeout_s=20)
        beside = asyncio.run(pool.decode(request, timeout_s=20))
        for decoded in (there, beside):
            assert (decoded.start_s, decoded.end_s) == (here.start_s, here.end_s)
            for name, track in here.tracks.items():
                assert decoded.tracks[name].status == track.status
                assert decoded.tracks[name].times_s == track.times_s
                np.testing.assert_array_equal(decoded.tracks[name].row, track.row)


def test_many_at_once_keep_their_answers_apart(pool: DecodePool, clip: bytes) -> None:
    async def all_of_them() -> list[float | None]:
        requests = [request_for(clip, AUDIO, start_s=i / 100, end_s=i / 100 + 0.2) for i in range(40)]
        decoded = await asyncio.gather(*(pool.decode(request, timeout_s=30) for request in requests))
        return [one.start_s for one in decoded]

    assert asyncio.run(all_of_them()) == pytest.approx([i / 100 for i in range(40)])


def test_errors_come_back_as_they_were(pool: DecodePool, clip: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="past the end") as wrong:
        pool.decode_blocking(request_for(clip, start_s=50.0), timeout_s=20)
    assert wrong.value.field == "start_s"
    with pytest.raises(TooLargeError, match="max_bytes"):
        asyncio.run(pool.decode(request_for(clip, limits=MediaLimits(max_bytes=10)), timeout_s=20))
    with pytest.raises(DataError, match="missing") as missing:
        pool.decode_blocking(request_for(tmp_path / "missing.mp4"), timeout_s=20)
    assert missing.value.problems == []
    assert pool.workers_lost == 0


def test_our_errors_survive_pickling() -> None:
    for error in (
        TooLargeError("a", field="b"),
        InvalidParameterError("a", field="b"),
        DataError("a", problems=["x", "y"], field="b"),
    ):
        back = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(back), str(back), back.__dict__) == (type(error), str(error), error.__dict__)


def test_map_keeps_order_and_gives_errors_as_results(pool: DecodePool, clip: bytes) -> None:
    starts_s = [0.0, 0.1, 9.0, 0.3, 9.0, 0.5]
    requests = (request_for(clip, AUDIO, start_s=start_s) for start_s in starts_s)
    results = list(pool.map(requests, timeout_s=20))
    for start_s, result in zip(starts_s, results, strict=True):
        if start_s > 1:
            assert isinstance(result, InvalidParameterError)
        else:
            assert not isinstance(result, DimmlError)
            assert result.start_s == pytest.approx(start_s)


def test_map_reads_its_requests_lazily(pool: DecodePool, clip: bytes) -> None:
    taken = 0

    def requests() -> Iterator[DecodeRequest]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield request_for(clip, AUDIO)

    results = pool.map(requests(), timeout_s=20)
    next(results)
    assert taken <= 8
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("decode_function", "reason", "lost", "awaited"),
    [
        (faulty_decoders.segfaults_on_pictures, "decoder_crashed", 2, True),
        (faulty_decoders.exits_on_pictures, "decoder_crashed", 2, False),
        pytest.param(faulty_decoders.hangs_on_pictures, "decode_timeout", 2, True, marks=HANGS),
        pytest.param(faulty_decoders.hangs_on_pictures, "decode_timeout", 2, False, marks=HANGS),
        (faulty_decoders.allocates_on_pictures, "decode_memory", 0, True),
        (faulty_decoders.raises_on_pictures, "decoder_crashed", 0, True),
    ],
)
def test_a_picture_that_kills_the_decoder_does_not_cost_the_sound(
    clip: bytes, decode_function: object, reason: str, lost: int, awaited: bool
) -> None:
    # Two, so that the second try need not wait for the first one's successor to start.
    with DecodePool(2, decode_function=decode_function) as pool:  # type: ignore[arg-type]
        pool.warm_up()
        began = time.monotonic()
        if awaited:
            decoded = asyncio.run(pool.decode(request_for(clip), timeout_s=3.0))
        else:
            decoded = pool.decode_blocking(request_for(clip), timeout_s=3.0)
        assert time.monotonic() - began < 3.5
        assert statuses(decoded) == {"audio": "ok", "visual": f"unusable:{reason}"}
        assert decoded.tracks["audio"].row is not None
        assert (decoded.start_s, decoded.end_s) == pytest.approx((0.0, 1.0), abs=0.05)
        assert pool.workers_lost == lost
        assert statuses(pool.decode_blocking(request_for(clip, AUDIO), timeout_s=20)) == {"audio": "ok"}


def test_one_guilty_track_is_tried_once(clip: bytes) -> None:
    with DecodePool(1, decode_function=faulty_decoders.exits_on_pictures) as pool:
        pool.warm_up()
        assert statuses(pool.decode_blocking(request_for(clip, VISUAL, REAR), timeout_s=20)) == {
            "visual": "unusable:decoder_crashed",
            "rear": "unusable:decoder_crashed",
        }
        assert pool.workers_lost == 1


def test_a_lone_worker_is_replaced_for_the_second_try(clip: bytes) -> None:
    with DecodePool(1, decode_function=faulty_decoders.segfaults_on_pictures) as pool:
        pool.warm_up()
        decoded = pool.decode_blocking(request_for(clip), timeout_s=40)
    assert statuses(decoded) == {"audio": "ok", "visual": "unusable:decoder_crashed"}


def test_three_tracks_are_tried_alone_and_the_rest_is_not_sent(clip: bytes) -> None:
    """Two pictures from two files: both are guilty, the sound is not, and nobody sent a third."""
    request = DecodeRequest(
        (VISUAL, AUDIO, REAR, REAR.model_copy(update={"name": "front", "tensor": "FRONT"})),
        {"visual": clip, "audio": clip, "rear": bytes(bytearray(clip))},
        clip_s=1.0,
    )
    with DecodePool(2, decode_function=faulty_decoders.exits_on_pictures) as pool:
        pool.warm_up()
        decoded = pool.decode_blocking(request, timeout_s=30)
        assert pool.workers_lost == 3
    assert statuses(decoded) == {
        "visual": "unusable:decoder_crashed",
        "audio": "ok",
        "rear": "unusable:decoder_crashed",
        "front": "absent:not_sent",
    }


def test_several_at_once_are_answered_each_in_its_place(pool: DecodePool, clip: bytes, tmp_path: Path) -> None:
    asked = [
        request_for(clip, AUDIO),
        request_for(tmp_path / "none.mp4"),
        request_for(clip, VISUAL),
        request_for(clip, AUDIO, start_s=-1.0),
    ]
    answers: list[DecodeResult] = []
    while len(answers) < len(asked):
        answers += pool.decode_several(asked[len(answers) :], limit_s=20, timeout_s=20)
    for answer, request in zip(answers, asked, strict=True):
        assert 0.0 < answer.seconds < 20.0
        if isinstance(answer.outcome, DimmlError):
            with pytest.raises(type(answer.outcome), match=re.escape(answer.outcome.message)):
                pool.decode_blocking(request, timeout_s=20)
            continue
        assert isinstance(answer.outcome, Decoded)
        alone = pool.decode_blocking(request, timeout_s=20)
        assert statuses(answer.outcome) == statuses(alone)
        for name, track in alone.tracks.items():
            np.testing.assert_array_equal(answer.outcome.tracks[name].row, track.row)  # type: ignore[arg-type]
    assert [isinstance(answer.outcome, Decoded) for answer in answers] == [True, False, True, False]


def test_what_is_slow_is_answered_before_the_rest_is_begun(lone: LonePool, clip: bytes) -> None:
    quick, slow = (request_for(clip, AUDIO, clip_s=clip_s) for clip_s in (0.0, 0.2))
    pool = lone(faulty_decoders.sleeps_by_clip_s)
    assert len(pool.decode_several([slow] * 5, limit_s=20, timeout_s=20)) == 1
    assert len(pool.decode_several([quick, slow, quick, quick], limit_s=20, timeout_s=20)) == 2


@pytest.mark.parametrize(
    ("decode_function", "reason", "lost"),
    [
        (faulty_decoders.exits_on_pictures, Reason.DECODER_CRASHED, 1),
        (faulty_decoders.hangs_on_pictures, Reason.DECODE_TIMEOUT, 1),
        (faulty_decoders.raises_on_pictures, Reason.DECODER_CRASHED, 0),
        (faulty_decoders.allocates_on_pictures, Reason.DECODE_MEMORY, 0),
    ],
)
def test_one_of_several_that_loses_the_worker_is_said_of_all(
    clip: bytes, decode_function: object, reason: Reason, lost: int
) -> None:
    """Nobody knows which of them it was; where the worker lives on, the others have their answers."""
    asked = [request_for(clip, AUDIO), request_for(clip, VISUAL), request_for(clip, AUDIO)]
    with DecodePool(1, decode_function=decode_function) as pool:  # type: ignore[arg-type]
        pool.warm_up()
        outcomes = [answer.outcome for answer in pool.decode_several(asked, limit_s=2.0, timeout_s=20)]
        assert outcomes[1] == Lost(reason)
        for one in (outcomes[0], outcomes[2]):
            assert one == Lost(reason) if lost else isinstance(one, Decoded)
        assert len(outcomes) == 3
        assert pool.decode_blocking(asked[0], timeout_s=40).tracks["audio"].status.ok
        assert pool.workers_lost == lost


def test_what_is_to_be_quick_may_wait_for_a_worker_that_starts(clip: bytes) -> None:
    with DecodePool(1) as pool:
        (answer, *_) = pool.decode_several([request_for(clip, AUDIO)] * 2, limit_s=0.3, timeout_s=60)
        assert isinstance(answer.outcome, Decoded | Lost)


@HANGS
def test_everything_hangs_and_the_time_is_kept(clip: bytes) -> None:
    with DecodePool(1, decode_function=faulty_decoders.always_hangs) as pool:
        pool.warm_up()
        began = time.monotonic()
        decoded = pool.decode_blocking(request_for(clip), timeout_s=3.0)
        assert time.monotonic() - began < 3.5
    assert {status.split(":")[0] for status in statuses(decoded).values()} == {"unusable"}


def test_a_worker_that_is_killed_late_is_no_worker_that_was_not_free(
    clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine so busy that the answer has not come when the caller's patience ends."""
    monkeypatch.setattr("dimml.media.workers.pool._GRACE_S", -1.0)
    with DecodePool(2, decode_function=faulty_decoders.hangs_on_pictures) as pool:
        pool.warm_up()
        for decoded in (
            asyncio.run(pool.decode(request_for(clip, VISUAL), timeout_s=2.0)),
            pool.decode_blocking(request_for(clip, VISUAL), timeout_s=2.0),
        ):
            assert statuses(decoded) == {"visual": "unusable:decode_timeout"}


@HANGS
def test_while_one_hangs_the_others_work(clip: bytes) -> None:
    async def both() -> tuple[float, str]:
        hanging = asyncio.create_task(pool.decode(request_for(clip, VISUAL), timeout_s=3.0))
        await asyncio.sleep(TAKEN_S)
        began = time.monotonic()
        for _ in range(10):
            await pool.decode(request_for(clip, AUDIO), timeout_s=3.0)
        took_s = time.monotonic() - began
        return took_s, str((await hanging).tracks["visual"].status)

    with DecodePool(2, decode_function=faulty_decoders.hangs_on_pictures) as pool:
        pool.warm_up()
        took_s, status = asyncio.run(both())
    assert took_s < 1.5
    assert status == "unusable:decode_timeout"


def test_no_worker_in_time_is_unavailable(lone: LonePool, clip: bytes) -> None:
    pool = lone(faulty_decoders.sleeps_by_clip_s)
    busy = threading.Thread(target=lambda: pool.decode_blocking(request_for(clip, AUDIO, clip_s=2.0), timeout_s=10))
    busy.start()
    time.sleep(TAKEN_S)
    with pytest.raises(UnavailableError, match="free in time"):
        pool.decode_blocking(request_for(clip, AUDIO, clip_s=0.1), timeout_s=0.3)
    with pytest.raises(UnavailableError, match="free in time"):
        asyncio.run(pool.decode(request_for(clip, AUDIO, clip_s=0.1), timeout_s=0.3))
    busy.join()
    assert statuses(pool.decode_blocking(request_for(clip, AUDIO, clip_s=0.1), timeout_s=5)) == {"audio": "ok"}


def test_a_cancelled_request_is_not_decoded(lone: LonePool, clip: bytes) -> None:
    async def cancelled() -> None:
        busy = asyncio.create_task(pool.decode(request_for(clip, AUDIO, clip_s=0.5), timeout_s=10))
        waiting = asyncio.create_task(pool.decode(request_for(clip, AUDIO, clip_s=5.0), timeout_s=10))
        await asyncio.sleep(TAKEN_S)
        waiting.cancel()
        await busy
        began = time.monotonic()
        await pool.decode(request_for(clip, AUDIO, clip_s=0.1), timeout_s=10)
        assert time.monotonic() - began < 2.0

    pool = lone(faulty_decoders.sleeps_by_clip_s)
    asyncio.run(cancelled())


def test_a_caller_who_goes_away_does_not_leave_a_hanging_worker_behind(clip: bytes) -> None:
    async def scenario(pool: DecodePool) -> float:
        hanging = asyncio.ensure_future(pool.decode(request_for(clip), timeout_s=20))
        await asyncio.sleep(TAKEN_S)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        began = time.monotonic()
        decoded = await pool.decode(request_for(clip, AUDIO), timeout_s=20)
        assert statuses(decoded) == {"audio": "ok"}
        return time.monotonic() - began

    with DecodePool(1, decode_function=faulty_decoders.hangs_on_pictures) as pool:
        pool.warm_up()
        assert asyncio.run(scenario(pool)) < 5.0  # The hanging one's first try takes 10 s.
        assert pool.workers_lost == 1


def test_a_caller_who_goes_away_from_a_quick_file_costs_no_worker(lone: LonePool, clip: bytes) -> None:
    async def scenario(pool: DecodePool) -> None:
        quick = asyncio.ensure_future(pool.decode(DecodeRequest((AUDIO,), {"audio": clip}, 0.3), timeout_s=20))
        await asyncio.sleep(TAKEN_S)
        quick.cancel()
        # Past the moment at which a worker that were still busy with it would be killed; busy with another by then.
        await pool.decode(DecodeRequest((AUDIO,), {"audio": clip}, 1.0), timeout_s=20)

    pool = lone(faulty_decoders.sleeps_by_clip_s)
    lost = pool.workers_lost
    asyncio.run(scenario(pool))
    assert pool.workers_lost == lost


def test_a_caller_in_a_hurry_costs_no_worker(lone: LonePool, clip: bytes) -> None:
    pool = lone(faulty_decoders.sleeps_by_clip_s)
    lost, began = pool.workers_lost, time.monotonic()
    late = pool.decode_blocking(DecodeRequest((AUDIO,), {"audio": clip}, 0.45), timeout_s=0.05)
    assert time.monotonic() - began < 0.4
    assert statuses(late) == {"audio": "unusable:decode_timeout"}
    # The late reply is not taken for this one's.
    decoded = pool.decode_blocking(DecodeRequest((VISUAL,), {"visual": clip}, 0.1), timeout_s=20)
    assert statuses(decoded) == {"visual": "ok"}
    assert pool.workers_lost == lost


def test_a_short_time_limit_does_not_leave_a_hanging_worker_behind(clip: bytes) -> None:
    with DecodePool(1, decode_function=faulty_decoders.hangs_on_pictures) as pool:
        pool.warm_up()
        late = pool.decode_blocking(request_for(clip, VISUAL), timeout_s=0.05)
        assert statuses(late) == {"visual": "unusable:decode_timeout"}
        assert statuses(pool.decode_blocking(request_for(clip, AUDIO), timeout_s=20)) == {"audio": "ok"}
        assert pool.workers_lost == 1


def test_what_nobody_foresaw_costs_the_worker_alone(clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with DecodePool(1) as pool:
        pool.warm_up()
        with monkeypatch.context() as broken:
            broken.setattr(WorkerProcess, "run", never)
            with pytest.raises(ZeroDivisionError):
                pool.decode_blocking(request_for(clip, AUDIO), timeout_s=20)
            broken.setattr(WorkerProcess, "stream", never)
            lost = list(decode_timeline(pool, request_for(clip, AUDIO), WindowPlan(1.0, 1.0), timeout_s=20))
            assert {t.status.reason for one in lost for t in one.decoded.tracks.values()} == {Reason.DECODER_CRASHED}
        assert statuses(pool.decode_blocking(request_for(clip, AUDIO), timeout_s=20)) == {"audio": "ok"}
        assert pool.workers_lost >= 2


def test_a_worker_killed_while_idle_is_replaced(clip: bytes) -> None:
    with DecodePool(1, decode_function=faulty_decoders.tells_its_process) as pool:
        first = process_of(pool)
        os.kill(first, signal.SIGKILL)
        assert gone(first)
        second = process_of(pool)
        assert second != first
        assert pool.workers_lost == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_leaves_signals_to_its_parent(lone: LonePool, number: signal.Signals) -> None:
    pool = lone(faulty_decoders.tells_its_process)
    process = process_of(pool)
    # Ctrl-C at a terminal goes to a whole process group, and would reach a worker that is still starting.
    assert os.getpgid(process) != os.getpgid(0)
    os.kill(process, number)
    time.sleep(0.1)  # For its death, which must not come.
    assert process_of(pool) == process


def test_memory_is_limited_beyond_what_the_imports_took(clip: bytes) -> None:
    """4 GB are refused under the default limit (see above), and 32 MB are too few for a picture of 1080p."""
    with DecodePool(1, decode_memory_bytes=6 * 2**30, decode_function=faulty_decoders.allocates_on_pictures) as pool:
        pool.warm_up()
        limits = Path(f"/proc/{_only_child()}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert 6 * 2**30 < int(line.split()[3]) < 12 * 2**30
    assert next(line for line in limits.splitlines() if line.startswith("Max core")).split()[4] == "0"


def test_too_little_memory_for_the_picture_leaves_the_sound(tmp_path: Path, clip: bytes) -> None:
    large = cv2.imencode(".png", np.zeros((2300, 4000, 3), np.uint8))[1].tobytes()
    video = write_clip(tmp_path / "clip.mp4", 0.2, width=1920, height=1080)
    with DecodePool(1, decode_memory_bytes=32 * 2**20) as pool:
        image = pool.decode_blocking(
            DecodeRequest((AUDIO, VISUAL), {"audio": clip, "visual": large}, 1.0), timeout_s=20
        )
        recording = pool.decode_blocking(request_for(video), timeout_s=20)
    assert statuses(image) == {"audio": "ok", "visual": "unusable:decode_memory"}
    # FFmpeg's H.264 decoder may take a failed allocation for a broken picture.
    assert statuses(recording)["audio"] == "ok"
    assert statuses(recording)["visual"] in {"unusable:decode_memory", "unusable:undecodable"}


def test_a_request_that_does_not_fit_into_a_worker(clip: bytes) -> None:
    with DecodePool(1, decode_memory_bytes=40 * 2**20) as pool:
        decoded = pool.decode_blocking(request_for(bytes(120 * 2**20), AUDIO), timeout_s=30)
        assert statuses(decoded) == {"audio": "unusable:decode_memory"}
        assert statuses(pool.decode_blocking(request_for(clip, AUDIO), timeout_s=30)) == {"audio": "ok"}


def _only_child() -> int:
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    processes = [int(word) for path in children for word in path.read_text().split()]
    workers = [
        p
        for p in processes
        if b"dimml.media.workers.main" in Path(f"/proc/{p}/cmdline").read_bytes() and not gone(p, 0.01)
    ]
    return workers[-1]


def test_close_is_prompt_even_in_the_middle_of_a_request(clip: bytes) -> None:
    pool = DecodePool(2, decode_function=faulty_decoders.always_hangs)
    pool.warm_up()
    worker = _only_child()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            pool.decode_blocking(request_for(clip, AUDIO), timeout_s=60)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(TAKEN_S)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 1.0
    for thread in threads:
        thread.join(5)
    assert [type(error) for error in failures] == [UnavailableError] * 5
    assert gone(worker)
    pool.close()
    with pytest.raises(UnavailableError, match="closed"):
        pool.decode_blocking(request_for(clip), timeout_s=1)


def test_close_while_workers_start() -> None:
    began = time.monotonic()
    DecodePool(2).close()
    assert time.monotonic() - began < 2.0


def test_a_worker_that_cannot_start_is_said_so(clip: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with DecodePool(1, decode_function=_unimportable) as pool:
        with pytest.raises(UnavailableError, match="could not be started"):
            pool.warm_up()
        with pytest.raises(UnavailableError, match="could be started"):
            pool.decode_blocking(request_for(clip), timeout_s=20)
    assert "ended while it started" in caplog.text


def _unimportable(request: DecodeRequest) -> None:
    """Pickled by a name that no worker can import."""


_unimportable.__module__ = "nowhere_to_be_found"
sys.modules.setdefault("nowhere_to_be_found", sys.modules[__name__])


def test_workers_must_be_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DecodePool(0)


@pytest.mark.parametrize("busy", [False, True])
def test_no_orphans_after_the_parent_is_killed(busy: bool, clip: bytes, tmp_path: Path) -> None:
    """SIGKILL leaves the parent no chance to clean up; a worker stuck in a decoder does not notice a closed pipe."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    code = textwrap.dedent(
        """
        import sys, threading, time
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from dimml.media.workers.pool import DecodePool
        from support import faulty_decoders
        from support.decoding import AUDIO, request_for
        pool = DecodePool(2, decode_function=faulty_decoders.always_hangs)
        pool.warm_up()
        if sys.argv[3] == "True":
            ask = lambda: pool.decode_blocking(request_for(Path(sys.argv[2]), AUDIO), timeout_s=600)
            for _ in range(2):
                threading.Thread(target=ask, daemon=True).start()
            time.sleep(0.5)  # For both to be taken.
        print("ready", flush=True)
        time.sleep(600)
        """
    )
    tests = str(Path(__file__).parents[3])
    parent = subprocess.Popen(
        [sys.executable, "-c", code, tests, str(path), str(busy)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "ready"
        children = [
            int(word)
            for listing in Path(f"/proc/{parent.pid}/task").glob("*/children")
            for word in listing.read_text().split()
        ]
        assert len(children) == 2
    finally:
        parent.kill()
        parent.communicate()
    assert all(gone(child) for child in children)


def test_works_without_a_main_guard(clip: bytes, tmp_path: Path) -> None:
    """A plain script may make a pool at module level: workers do not import the script again."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from dimml.media import DecodeRequest\n"
        "from dimml.media.workers.pool import DecodePool\n"
        "from dimml.modality import Waveform\n"
        "audio = Waveform(name='audio', sample_rate_hz=8000, samples=8000)\n"
        "pool = DecodePool(1)\n"
        "request = DecodeRequest((audio,), {'audio': Path(sys.argv[1])}, 1.0)\n"
        "print(pool.decode_blocking(request, timeout_s=30).tracks['audio'].status)\n"
    )
    done = subprocess.run([sys.executable, script, path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("ok", "", 0)


def test_libraries_stay_quiet_about_bad_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = [
        b"\xff\xfb\x90\x64" + b"\1" * 2000,
        b"\x00\x00\x00\x20ftypisom" + b"\1" * 500,
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x08\2\0\0\0" + b"\1" * 99,
    ]
    with DecodePool(1) as pool:
        for data in bad:
            pool.decode_blocking(request_for(data), timeout_s=20)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
