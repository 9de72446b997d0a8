"""The asyncio client against a real server, over both transports: what the blocking client gets, it gets too."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dimml.errors import DimmlError, UnauthenticatedError
from dimml_client import AsyncClient, Client
from dimml_server.security.keys import new_key
from support.certificates import Authority
from support.data import REPOSITORY_ROOT
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip

TRANSPORTS = ("http", "grpc")
READER, _LINE = new_key("reader")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("async")
    make_tiny_bundle(folder / "models")
    for number, label in enumerate(LABELS):
        (folder / label).write_bytes(tiny_clip(folder, number))
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with running_server(folder / "models", decode_workers=2) as running:
        yield running


def url_of(server: ServerProcess, transport: str) -> str:
    return f"{transport}://{server.http if transport.startswith('http') else server.grpc}"


def comparable(answer: Any) -> Any:
    if isinstance(answer, DimmlError):
        return type(answer), answer.message, answer.field, answer.statuses
    return answer.model_dump(exclude={"request_id", "timings_ms"})


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_answers_and_errors_of_the_blocking_client(server: ServerProcess, folder: Path, transport: str) -> None:
    calls: list[dict[str, Any]] = [
        {"media": folder / "red"},
        {"media": str(folder / "green"), "top_k": 1, "model": "tiny", "version": 1},
        {"media": (folder / "blue").read_bytes(), "start_s": 0.2, "end_s": 0.6},
        {"parts": {"audio": folder / "red", "visual": folder / "blue"}},
        {"parts": {"audio": folder / "red"}},
        {"media": folder / "blue", "modalities": ["visual"], "timeout_ms": 5000.0, "route_key": "a"},
        {"media": folder / "blue", "audio_track": 0, "video_track": 1},
        {"media": folder / "blue", "damage": "audio:noise:10"},
        {"media": folder / "blue", "audio_track": "first"},
        {"media": b"garbage"},
        {"media": b""},
        {"media": folder / "red", "model": "nosuch"},
        {"media": folder / "red", "version": 9},
        {"media": folder / "red", "top_k": 4},
        {"media": folder / "red", "start_s": 0.5, "end_s": 0.2},
        {"media": folder / "red", "parts": {"smell": b"x"}},
        {"media": folder / "gone"},
        {},
    ]

    async def together(url: str) -> list[Any]:
        async with AsyncClient(url) as client:
            assert await client.ready()
            with Client(url) as blocking:
                assert await client.describe() == blocking.describe()
            return await asyncio.gather(*(client.predict(**call) for call in calls), return_exceptions=True)

    url = url_of(server, transport)
    found = asyncio.run(together(url))
    with Client(url) as blocking:
        for call, answer in zip(calls, found, strict=True):
            try:
                expected: Any = blocking.predict(**call)
            except DimmlError as error:
                expected = error
            assert comparable(answer) == comparable(expected), call
    assert [answer.label for answer in found[:3]] == [*LABELS]
    assert sum(isinstance(answer, DimmlError) for answer in found) == 10


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_cancelled_call_is_cancelled_on_the_server(tmp_path: Path, folder: Path, transport: str) -> None:
    make_tiny_bundle(tmp_path / "models", stall="audio")
    settings: dict[str, Any] = {"decode_workers": 1, "deadlines_ms": {"audio": 30_000.0}, "timeout_s": 40.0}
    with running_server(tmp_path / "models", **settings) as server:

        async def cancel() -> None:
            async with AsyncClient(url_of(server, transport)) as client:
                call = asyncio.create_task(client.predict(folder / "red"))
                await asyncio.to_thread(server.wait_for_load, 1, 0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                # Long before the encoder's deadline.
                await asyncio.to_thread(server.wait_for_load, 0, 0)
                assert (await client.predict(folder / "red", modalities=["visual"])).label == "red"

        asyncio.run(cancel())


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_keys_and_certificates(folder: Path, scheme: str) -> None:
    authority = Authority(folder)
    own, good = authority.sign("server"), authority.sign("client")
    settings = {
        "tls_certificate": str(own.certificate),
        "tls_key": str(own.key),
        "tls_client_ca": str(authority.ca),
        "api_keys": _LINE.line,
        "decode_workers": 1,
    }
    shown: dict[str, Any] = {"ca": authority.ca, "certificate": good.certificate, "certificate_key": good.key}

    async def label(url: str, **credentials: Any) -> str:
        async with AsyncClient(url, **shown, **credentials) as client:
            return (await client.predict(folder / "green")).label

    with running_server(folder / "models", **settings) as server:
        assert asyncio.run(label(url_of(server, scheme), api_key=READER)) == "green"
        with pytest.raises(UnauthenticatedError):
            asyncio.run(label(url_of(server, scheme), api_key="another"))


def test_the_example_of_the_docs(
    server: ServerProcess, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY_ROOT / "docs" / "client.md").read_text()
    example = next(one for one in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "AsyncClient" in one)
    samples = folder / "samples"
    samples.mkdir()
    for label in LABELS:
        (samples / f"{label}.mp4").write_bytes((folder / label).read_bytes())
    (samples / "z.mp4").write_bytes(b"garbage")
    monkeypatch.chdir(folder)
    exec(compile(example.replace("http://127.0.0.1:8000", server.url), "client.md", "exec"), {})  # noqa: S102 - our own
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"samples/{name}.mp4" for name in (*sorted(LABELS), "z")]
    assert [line.split(": ")[1].split(" ")[0] for line in lines[:3]] == sorted(LABELS)
    assert "no requested modality is usable" in lines[3]
