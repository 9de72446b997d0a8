"""A held call over a real engine: what it keeps in memory, whom it lets wait, and which version answers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dimml.bundle import Bundle
from dimml.engine import Encoded
from dimml.errors import NotFoundError, QueueFullError, UnavailableError
from dimml.media.types import Decoded, DecodeRequest
from dimml_server.engines.onnxruntime import OnnxRuntimeEngine
from dimml_server.observability.metrics import Metrics
from dimml_server.prediction.call import HeldCall
from dimml_server.prediction.request import MediaPrediction
from dimml_server.prediction.service import PredictionService
from dimml_server.settings.settings import load_settings
from dimml_server.shadow.shadow import EngineRunner
from support.tiny_bundle import AUDIO, VISUAL, make_tiny_bundle, tiny_row

LABEL = 1


class GatedEngine(OnnxRuntimeEngine):
    """A local engine whose encoders wait until they are let through; at first they are."""

    def __init__(self) -> None:
        super().__init__(concurrency=1, intra_op_threads=1)
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    #: Every encoder is called by itself, so that it can be held up.
    together = None  # type: ignore[assignment]

    async def encode(self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any]) -> Encoded:
        self.asked.set()
        await self.open.wait()
        return await super().encode(bundle, modality, tensor)


class NoDecoder:
    """No test here gets as far as a recording's bytes."""

    workers_lost = 0
    workers_running = 0

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        raise AssertionError("a call without a permit has media decoded")

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of ``tiny``."""
    folder = tmp_path_factory.mktemp("repository")
    for _ in range(2):
        make_tiny_bundle(folder)
    return folder


def made(repository: Path, engine: GatedEngine) -> PredictionService:
    settings = load_settings(repository=repository, concurrency=1, queue_length=0, splits={"tiny": {1: 50.0, 2: 50.0}})
    return PredictionService(
        engine, NoDecoder(), Metrics(), settings, shadow_runner=lambda bundle: EngineRunner(engine, bundle)
    )


@asynccontextmanager
async def started(repository: Path) -> AsyncIterator[tuple[PredictionService, GatedEngine]]:
    engine = GatedEngine()
    service = made(repository, engine)
    await service.start()
    try:
        yield service, engine
    finally:
        await service.close()


def rows() -> Mapping[str, npt.NDArray[Any]]:
    return {modality.name: tiny_row(modality, LABEL)[None] for modality in (AUDIO, VISUAL)}


async def answer(call: HeldCall) -> int:
    return int((await call.infer(rows())).result.fused.probabilities_BC[0].argmax())


def test_a_version_that_is_unloaded_meanwhile_answers_whom_it_has_taken(repository: Path) -> None:
    async def scenario() -> None:
        async with started(repository) as (service, engine):
            with service.hold("tiny", 2, None) as call:
                held, other = call.bundle, service.registry.bundle("tiny", 1)
                await service.control.unload("tiny")
                assert (engine.ready(held), engine.ready(other)) == (True, False)
                with pytest.raises(NotFoundError), service.hold("tiny", 2, None):
                    pytest.fail("nothing of it is served")
                call.choose("key")
                assert call.bundle is held
                assert await answer(call) == LABEL
                assert engine.ready(held)
            assert not engine.ready(held)

    asyncio.run(scenario())


def test_a_version_chosen_after_the_body_is_kept_beside_the_one_that_was_held(repository: Path) -> None:
    async def scenario() -> None:
        async with started(repository) as (service, engine):
            chosen = set()
            for key in "abcdefgh":
                with service.hold("tiny", 2, None) as call, service.hold("tiny", None, key) as routed:
                    call.choose(key)
                    assert call.bundle is routed.bundle
                    chosen.add(call.bundle.version)
            assert chosen == {1, 2}

            key = next(k for k in "abcdefgh" if service.registry.route("tiny", None, k).bundle.version == 1)
            with service.hold("tiny", 2, None) as call:
                call.choose(key)
                versions = [service.registry.bundle("tiny", version) for version in (1, 2)]
                await service.control.unload("tiny")
                assert [engine.ready(bundle) for bundle in versions] == [True, True]
                assert await answer(call) == LABEL
            assert [engine.ready(bundle) for bundle in versions] == [False, False]

    asyncio.run(scenario())


def test_a_request_that_is_not_traced_is_one_piece_of_work_for_the_engine(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(GatedEngine, "together")
    for one_by_one in ("encode", "fuse"):
        monkeypatch.setattr(OnnxRuntimeEngine, one_by_one, None)

    async def scenario() -> None:
        async with started(repository) as (service, _):
            with service.hold("tiny", 2, None) as call:
                assert await answer(call) == LABEL

    asyncio.run(scenario())


CALLS: dict[str, Callable[[HeldCall], Awaitable[object]]] = {
    "predict": lambda call: call.predict(MediaPrediction("id", {"media": b"a recording"})),
    "predict_rows": lambda call: call.predict_rows(MediaPrediction("id", {"media": b"a recording"})),
    "infer": lambda call: call.infer(rows()),
    "encode": lambda call: call.encode("audio", rows()["audio"]),
    "fuse": lambda call: call.fuse({}, {}, np.ones((1, 2), np.bool_)),
}


@pytest.mark.parametrize("kind", CALLS)
def test_every_kind_of_call_waits_for_its_turn(repository: Path, kind: str) -> None:
    async def scenario() -> None:
        async with started(repository) as (service, engine):
            engine.open.clear()
            assert service.queue_refusal() is None
            with service.hold("tiny", 1, None) as call:
                first = asyncio.ensure_future(answer(call))
                await engine.asked.wait()
                try:
                    with service.hold("tiny", 1, None) as second, pytest.raises(QueueFullError):
                        async with asyncio.timeout(2.0):
                            await CALLS[kind](second)
                finally:
                    engine.open.set()
                    assert await first == LABEL
            assert service.queue_refusal() is None

    asyncio.run(scenario())


def test_that_no_requests_are_taken_comes_before_a_full_queue(repository: Path) -> None:
    async def scenario() -> None:
        engine = GatedEngine()
        service = made(repository, engine)
        with pytest.raises(UnavailableError, match="starting or stopping"):
            service.check_accepting()
        with pytest.raises(UnavailableError, match="not loaded all"), service.hold("tiny", None, None):
            pytest.fail("it may be yet to come")
        await service.start()
        service.check_accepting()
        engine.open.clear()
        with service.hold("tiny", None, None) as call:
            running = asyncio.ensure_future(answer(call))
            await engine.asked.wait()
            assert service.early_refusal() is not None
            service.accepting = False
            assert service.early_refusal() is None
            assert service.queue_refusal() is not None
            engine.open.set()
            assert await running == LABEL
        await service.close()
        with pytest.raises(UnavailableError, match="starting or stopping"):
            service.check_accepting()

    asyncio.run(scenario())
