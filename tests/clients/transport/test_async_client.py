"""The asyncio client's retries, time limits and cancellation, against small real servers."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from dimml.errors import (
    CapacityError,
    ConfigurationError,
    DeadlineExceededError,
    DimmlError,
    InvalidParameterError,
    NotFoundError,
    QueueFullError,
    TooLargeError,
    UnavailableError,
)
from dimml_client import AsyncClient, Client
from dimml_client.transport.request import PredictOptions
from support.scripted_servers import ANSWER, FullThenFine, free_port, grpc_server, http_server, refusal


def test_it_has_the_methods_and_arguments_of_the_blocking_client() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(AsyncClient) == public(Client) == {"predict", "describe", "ready", "close"}
    assert all(inspect.iscoroutinefunction(getattr(AsyncClient, name)) for name in public(AsyncClient))
    assert inspect.signature(AsyncClient) == inspect.signature(Client)
    options = set(inspect.signature(Client.predict).parameters) - {"self", "media", "parts"}
    assert options == set(PredictOptions.__annotations__)
    assert inspect.signature(AsyncClient.describe).parameters.keys() == (
        inspect.signature(Client.describe).parameters.keys()
    )


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("ftp://host", {}),
        ("grpc://host", {}),
        ("http://host", {"retries": -1}),
        ("grpcs://host:1", {"ca": "/dev/null"}),
    ],
)
def test_what_cannot_be_made_is_refused_before_there_is_a_loop(url: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AsyncClient(url, **arguments)


async def predict(url: str, media: bytes = b"x", **arguments: Any) -> Any:
    async with AsyncClient(url, **arguments) as client:
        return await client.predict(media, model="tiny")


def test_a_full_server_is_asked_again_with_the_whole_recording(tmp_path: Path) -> None:
    media = np.random.default_rng(0).bytes(300_000)
    (tmp_path / "clip").write_bytes(media)

    async def by_path(url: str) -> Any:
        async with AsyncClient(url) as client:
            return await client.predict(tmp_path / "clip", top_k=3, modalities=["audio"])

    with http_server((429, {"Retry-After": "0"}, refusal("queue_full")), (200, {}, ANSWER)) as script:
        assert asyncio.run(by_path(script.url)).label == "red"
    assert len(script.bodies) == 2
    for body in script.bodies:
        assert media in body
        assert b'name="top_k"\r\n\r\n3\r\n' in body
    servicer = FullThenFine(1, grpc.StatusCode.RESOURCE_EXHAUSTED, (("retry-after", "0"),))
    with grpc_server(servicer) as url:
        answer = asyncio.run(predict(url))
    assert (servicer.calls, answer.label, str(answer.modalities["audio"].modality_status)) == (
        2,
        "b",
        "unusable:silent",
    )


def test_waits_do_not_hold_up_other_calls() -> None:
    async def five(url: str) -> list[DimmlError]:
        async with AsyncClient(url, retries=1) as client:
            calls = [client.predict(b"x") for _ in range(5)]
            return [one for one in await asyncio.gather(*calls, return_exceptions=True) if isinstance(one, DimmlError)]

    with http_server((429, {"Retry-After": "0.4"}, refusal("queue_full"))) as script:
        began = time.monotonic()
        errors = asyncio.run(five(script.url))
        assert 0.4 <= time.monotonic() - began < 1.6
    assert [type(error) for error in errors] == [QueueFullError] * 5
    assert len(script.bodies) == 10


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (422, refusal("invalid_parameter", field="top_k"), InvalidParameterError),
        (404, refusal("not_found"), NotFoundError),
        (413, "<html>proxy says too large</html>", TooLargeError),
        (500, refusal("internal"), CapacityError),
        (200, "<html>hello</html>", UnavailableError),
    ],
)
def test_nothing_else_is_repeated(status: int, body: Any, kind: type[DimmlError]) -> None:
    with http_server((status, {}, body)) as script:
        with pytest.raises(DimmlError) as caught:
            asyncio.run(predict(script.url))
        assert len(script.bodies) == 1
    assert type(caught.value) is kind
    with Client(script.url) as blocking, http_server((status, {}, body)) as other, Client(other.url) as blocking:
        with pytest.raises(DimmlError) as expected:
            blocking.predict(b"x")
        assert caught.value.message.replace(script.url, other.url) == expected.value.message


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL])
def test_errors_over_grpc(code: grpc.StatusCode) -> None:
    servicer = FullThenFine(9, code)
    with grpc_server(servicer) as url, pytest.raises(DimmlError, match="refused for now") as caught:
        asyncio.run(predict(url))
    assert type(caught.value) is {grpc.StatusCode.NOT_FOUND: NotFoundError}.get(code, CapacityError)
    assert servicer.calls == 1


@pytest.mark.parametrize("slow", [{"hang_s": 20.0}, {"byte_every_s": 0.05}])
def test_a_slow_server_costs_the_timeout_and_no_more(slow: dict[str, float]) -> None:
    with http_server((200, {}, ANSWER), **slow) as script:
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=r"no answer .* within 0\.4 s"):
            asyncio.run(predict(script.url, timeout_s=0.4))
        assert time.monotonic() - began < 2.0
        assert len(script.bodies) == 1


def test_an_answer_that_a_proxy_has_compressed_is_read() -> None:
    packed = gzip.compress(json.dumps(ANSWER).encode())
    with http_server((200, {"Content-Encoding": "gzip"}, packed)) as script:
        assert asyncio.run(predict(script.url)).label == "red"


@pytest.mark.parametrize("make", [predict, lambda url: asyncio.to_thread(lambda: Client(url).predict(b"x"))])
def test_one_that_says_so_and_does_not_unpack_is_an_error_of_ours(
    make: Callable[[str], Coroutine[Any, Any, Any]],
) -> None:
    with http_server((200, {"Content-Encoding": "gzip"}, b"not gzip")) as script:  # noqa: SIM117
        with pytest.raises(UnavailableError, match="broke"):
            asyncio.run(make(script.url))


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_where_nobody_listens_the_message_says_so_at_once(scheme: str) -> None:
    async def ask() -> bool:
        async with AsyncClient(f"{scheme}://127.0.0.1:{free_port()}") as client:
            with pytest.raises(UnavailableError, match=r"cannot connect to .*dimml serve"):
                await client.predict(b"x", model="tiny")
            return await client.ready()

    began = time.monotonic()
    assert not asyncio.run(ask())
    assert time.monotonic() - began < 5.0


@dataclass
class Silent:
    """Takes requests and answers none: how many are there, and how many of them have ended."""

    url: str = ""
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    ended: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))


@asynccontextmanager
async def silent_http() -> AsyncIterator[Silent]:
    silent = Silent()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        silent.begun.release()
        await reader.read()  # Until the client closes.
        silent.ended.release()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        silent.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield silent


@asynccontextmanager
async def silent_grpc() -> AsyncIterator[Silent]:
    silent = Silent()

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped stubs
        async def ModelInfer(self, request: Any, context: Any) -> None:  # noqa: N802 - the protocol's name
            silent.begun.release()
            try:
                await asyncio.Event().wait()
            finally:
                silent.ended.release()

    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    silent.url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield silent
    finally:
        await server.stop(None)


@pytest.mark.parametrize("make", [silent_http, silent_grpc])
def test_a_cancelled_call_ends_on_the_wire_and_the_client_goes_on(make: Any) -> None:
    async def cancel() -> None:
        async with make() as silent, AsyncClient(silent.url) as client:
            for _ in range(2):
                calls = [asyncio.create_task(client.predict(bytes(100_000), model="tiny")) for _ in range(3)]
                async with asyncio.timeout(10.0):
                    for _ in calls:
                        await silent.begun.acquire()
                    for call in calls:
                        call.cancel()
                    assert all(
                        isinstance(one, asyncio.CancelledError)
                        for one in await asyncio.gather(*calls, return_exceptions=True)
                    )
                    for _ in calls:
                        await silent.ended.acquire()

    asyncio.run(cancel())


@pytest.mark.parametrize("make", [silent_http, silent_grpc])
def test_a_call_in_flight_ends_with_the_client(make: Any) -> None:
    async def leave() -> None:
        async with make() as silent, asyncio.timeout(10.0):
            client = AsyncClient(silent.url)
            call = asyncio.create_task(client.predict(b"x", model="tiny"))
            await silent.begun.acquire()
            await client.close()
            await silent.ended.acquire()
            with pytest.raises(UnavailableError):
                await call

    asyncio.run(leave())
