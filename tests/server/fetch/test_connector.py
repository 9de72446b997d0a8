"""What a fetch connects to when a resolver says one thing, another, or something else the second time."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from dimml.errors import ConfigurationError, FetchError
from dimml.system.installation import install_command
from dimml_server.fetch.connector import CheckedResolver, NotGlobalError
from dimml_server.fetch.fetcher import Fetcher
from dimml_server.fetch.prediction import MediaUrls
from dimml_server.fetch.targets import Targets
from dimml_server.observability.fetch_metrics import FetchMetrics
from dimml_server.observability.tracer import NO_TRACER
from dimml_server.settings.settings import load_settings
from support.certificates import Authority
from support.recording_host import Page, RecordingHost, recording_host


class Names:
    """The answers of a resolver, one look-up after the other, the last one for ever."""

    def __init__(self, *answers: tuple[str, ...]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        addresses = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        (("1.1.1.1",), True),
        (("1.1.1.1", "2606:4700::1111"), True),
        (("1.1.1.1", "10.0.0.1"), False),
        (("1.1.1.1", "::1"), False),
        (("169.254.169.254",), False),
        (("::ffff:127.0.0.1",), False),
    ],
)
def test_every_address_of_a_host_must_be_on_the_internet(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...], allowed: bool
) -> None:
    async def resolved() -> list[str]:
        Names(addresses).use(monkeypatch)
        return [found["host"] for found in await CheckedResolver().resolve("media.example", 443)]

    if allowed:
        assert asyncio.run(resolved()) == list(addresses)
    else:
        with pytest.raises(NotGlobalError):
            asyncio.run(resolved())


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingHost]:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    with recording_host(authority.sign("host", host="media.example")) as it:
        it.pages["/clip"] = Page(b"clip")
        yield it


def fetched(host: RecordingHost, names: Names, monkeypatch: pytest.MonkeyPatch, **settings: object) -> bytes:
    """Fetch a page of the host as media.example, from a resolver with these answers."""

    async def scenario() -> bytes:
        names.use(monkeypatch)
        given = load_settings(media_url_hosts=f"media.example:{host.port}", **settings)
        targets = Targets(given.media_url_hosts, {})
        fetcher = Fetcher(given, targets, FetchMetrics(CollectorRegistry()), NO_TRACER, None)
        async with fetcher.fetch(targets.parse(f"https://media.example:{host.port}/clip"), 30.0) as source:
            assert isinstance(source, bytes)
            return source

    return asyncio.run(scenario())


def test_a_name_is_looked_up_once_and_that_address_connected_to(
    host: RecordingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(("127.0.0.1",), ("127.0.0.9",))
    assert fetched(host, names, monkeypatch, media_url_allow_private=True) == b"clip"
    assert names.asked == ["media.example"]
    # Asked for by its name, in TLS and in HTTP.
    assert host.names == ["media.example"]
    assert host.asked[0][1]["host"] == f"media.example:{host.port}"


@pytest.mark.parametrize("answers", [(), ("127.0.0.1",), ("1.1.1.1", "127.0.0.1")])
def test_where_nothing_may_be_connected_to_nothing_is(
    host: RecordingHost, monkeypatch: pytest.MonkeyPatch, answers: tuple[str, ...]
) -> None:
    with pytest.raises(FetchError):
        fetched(host, Names(answers), monkeypatch)
    assert host.connections == 0


@pytest.mark.parametrize(
    ("library", "settings", "extra"),
    [
        ("aiohttp", {"media_url_hosts": "media.example"}, "fetch"),
        (
            "awscrt",
            {"media_url_buckets": {"clips": {"endpoint": "https://s3.example", "access_key": "a", "secret_key": "b"}}},
            "fetch-s3",
        ),
    ],
)
def test_a_library_that_is_not_there_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, library: str, settings: dict[str, Any], extra: str
) -> None:
    for name in list(sys.modules):
        if name.startswith("dimml_server.fetch.") and name.rpartition(".")[2] in ("connector", "fetcher", "s3"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    given = load_settings(**settings)
    with pytest.raises(ConfigurationError, match=library) as raised:
        MediaUrls(given, FetchMetrics(CollectorRegistry()), NO_TRACER, folder=None, queue_refusal=lambda: None)
    assert install_command(extra) in raised.value.message
