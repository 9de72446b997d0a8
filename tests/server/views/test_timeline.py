"""Timelines over a scripted decoder: how far it reads ahead, whose turn it is, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from dimml.bundle import Bundle
from dimml.errors import BusyError, InvalidParameterError, UnavailableError, UnreadableError
from dimml.media.decoders.time_range import Window, WindowDecoded, WindowPlan
from dimml.media.types import Decoded, DecodedTrack, DecodeRequest
from dimml.media.workers.messages import Lost
from dimml.media.workers.pool import DecodePool
from dimml.status import ModalityStatus, Reason
from dimml_server.http.routes.timeline import _lines
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.request_record import RequestRecord
from dimml_server.prediction.call import HeldCall
from dimml_server.prediction.request import MediaPrediction
from dimml_server.prediction.service import PredictionService
from dimml_server.process.wiring import build_service
from dimml_server.settings.settings import load_settings
from dimml_server.views.timeline import Judged, Timelines, window_plan
from support.tiny_bundle import make_tiny_bundle
from support.waiting import wait_until

COUNT = 200


class Scripted:
    """A pool whose streams have as many windows as asked for; counts windows read, streams begun and streams closed."""

    def __init__(self, count: int = COUNT, fails_at: int | None = None) -> None:
        self.count, self.fails_at = count, fails_at
        self.read = self.begun = self.closed = 0
        self.ended = False

    def stream(
        self, request: DecodeRequest, plan: WindowPlan, first: int, *, timeout_s: float
    ) -> Generator[WindowDecoded | Lost]:
        silent = DecodedTrack(ModalityStatus.because(Reason.SILENT))
        self.begun += 1
        try:
            for number in range(first, self.count):
                if number == self.fails_at:
                    raise UnreadableError("the file has gone")
                self.read += 1
                tracks = {modality.name: silent for modality in request.modalities}
                window = Window(float(number), number + 1.0)
                yield WindowDecoded(number, self.count, window, Window(0.0, float(self.count)), Decoded(tracks))
        finally:
            self.closed += 1

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        self.ended = True


class NoDecoder:
    """Predictions' workers, which a timeline must not use."""

    workers_lost = workers_running = 0

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        raise AssertionError("a timeline has a decode worker of its own")

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


def with_timelines(repository: Path, pool: Scripted, scenario: Any, **settings: object) -> None:
    async def run() -> None:
        wanted = load_settings(repository=repository, intra_op_threads=1, **settings)
        service = build_service(wanted, Metrics(), NoDecoder())
        timelines = Timelines(wanted, lambda: cast(DecodePool, pool))
        service.closing.callback(timelines.close)
        await service.start()
        try:
            with service.hold(None, None, None) as call:
                await scenario(timelines, call, service)
        finally:
            await service.close()
        assert pool.ended or not pool.read

    asyncio.run(run())


REQUEST = MediaPrediction(request_id="one", sources={"media": b"media"})
PLAN = WindowPlan(1.0, 1.0)


def test_a_slow_reader_slows_the_decoder_and_leaving_ends_it(repository: Path) -> None:
    pool = Scripted()

    async def scenario(timelines: Timelines, call: HeldCall, service: PredictionService) -> None:
        async with timelines.open(call, REQUEST, PLAN) as windows:
            for asked in range(1, 6):
                one = await anext(windows)
                assert isinstance(one.result, Exception)
                assert one.start_s == asked - 1
                # None is read before it is asked for.
                assert pool.read == asked
        async with timelines.open(call, REQUEST, PLAN):
            pass
        assert pool.closed >= 1

    with_timelines(repository, pool, scenario)
    # The second may have been left before its stream began, and is closed in a thread that the server does not await.
    wait_until(lambda: pool.closed == pool.begun, seen=lambda: (pool.closed, pool.begun))


def test_one_takes_its_turn_after_another(repository: Path) -> None:
    async def scenario(timelines: Timelines, call: HeldCall, service: PredictionService) -> None:
        async with timelines.open(call, REQUEST, PLAN):
            with pytest.raises(BusyError) as refused:
                async with timelines.open(call, REQUEST, PLAN):
                    pass
            assert refused.value.retry_after_s > 0

            async def second() -> int:
                async with timelines.open(call, REQUEST, PLAN) as windows:
                    return len([one async for one in windows])

            waiting = asyncio.ensure_future(second())
            await asyncio.sleep(0)
        assert await waiting == COUNT

    with_timelines(repository, Scripted(), scenario, queue_wait_s=0.2)


def test_a_caller_cancelled_while_it_opens_leaves_the_turn(repository: Path) -> None:
    async def scenario(timelines: Timelines, call: HeldCall, service: PredictionService) -> None:
        async def first() -> None:
            async with timelines.open(call, REQUEST, PLAN):
                await asyncio.Event().wait()

        held = asyncio.ensure_future(first())
        await asyncio.sleep(0)
        held.cancel()
        with suppress(asyncio.CancelledError):
            await held
        async with timelines.open(call, REQUEST, PLAN) as windows:
            assert (await anext(windows)).start_s == 0.0

    with_timelines(repository, Scripted(), scenario)


def test_too_many_windows_are_refused_at_once(repository: Path) -> None:
    pool = Scripted()

    async def scenario(timelines: Timelines, call: HeldCall, service: PredictionService) -> None:
        with pytest.raises(InvalidParameterError, match="200 windows, more than timeline_windows = 199") as refused:
            async with timelines.open(call, REQUEST, PLAN):
                pass
        assert refused.value.field == "hop_s"

    with_timelines(repository, pool, scenario, timeline_windows=COUNT - 1)
    assert pool.read == 1


def texts(lines: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_an_error_on_the_way_is_the_last_line(repository: Path) -> None:
    record = RequestRecord()

    async def scenario(timelines: Timelines, call: HeldCall, service: PredictionService) -> None:
        async with timelines.open(call, REQUEST, PLAN) as windows:
            found = texts([line async for line in _lines(service, windows, record, "one")])
        assert [one["error"]["code"] for one in found] == ["unusable_media"] * 3 + ["unreadable"]
        assert [one["start_s"] for one in found[:-1]] == [0.0, 1.0, 2.0]
        assert found[-1]["error"]["request_id"] == "one"

    with_timelines(repository, Scripted(fails_at=3), scenario)
    assert record.outcome == "unreadable"


@pytest.mark.parametrize(
    ("error", "code"), [(UnavailableError("no worker"), "unavailable"), (RuntimeError("secret"), "internal")]
)
def test_no_internals_are_told_and_a_server_that_stops_says_so(repository: Path, error: Exception, code: str) -> None:
    async def failing() -> AsyncIterator[Judged]:
        yield Judged(0.0, 1.0, UnavailableError("late"))
        raise error

    async def scenario(timelines: Timelines, call: HeldCall, service: PredictionService) -> None:
        found = texts([line async for line in _lines(service, failing(), RequestRecord(), "one")])
        assert found[-1]["error"]["code"] == code
        assert "secret" not in json.dumps(found)
        service.accepting = False
        stopped = texts([line async for line in _lines(service, failing(), RequestRecord(), "one")])
        assert [one["error"]["code"] for one in stopped] == ["unavailable", "unavailable"]
        assert "stopping" in stopped[-1]["error"]["message"]

    with_timelines(repository, Scripted(), scenario)


def test_windows_are_of_the_bundles_length_unless_asked_otherwise(repository: Path) -> None:
    bundle: Bundle = make_tiny_bundle(repository.parent / "other", clip_s=0.5)
    assert window_plan(bundle, None, None) == WindowPlan(0.5, 0.5)
    assert window_plan(bundle, 2.0, None) == WindowPlan(2.0, 2.0)
    assert window_plan(bundle, None, 0.25) == WindowPlan(0.5, 0.25)
    for window_s, hop_s in ((0.0, None), (None, float("inf")), (1e-5, None), (None, 1e9)):
        with pytest.raises(InvalidParameterError):
            window_plan(bundle, window_s, hop_s)
