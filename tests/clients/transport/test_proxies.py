"""Where a proxy of the environment is in the way, the message names its variable, and never its password."""

from __future__ import annotations

import pytest

from dimml.errors import UnavailableError
from dimml_client import Client
from dimml_client.transport.proxies import proxy_hint
from support.scripted_servers import ANSWER, FullThenFine, free_port, grpc_server, http_server

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_server((200, {}, ANSWER)) as script:
        for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{free_port()}")
            with Client(script.url, retries=0) as client, pytest.raises(UnavailableError) as caught:
                client.predict(b"x")
            assert f"of {variable}, unless NO_PROXY names 127.0.0.1" in caught.value.message
            assert "secret" not in caught.value.message
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            with Client(script.url, retries=0) as client:
                assert client.predict(b"x").label == "red"
            monkeypatch.delenv("NO_PROXY")
            monkeypatch.delenv(variable)


def test_over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    servicer = FullThenFine(0, None)  # type: ignore[arg-type]  # it refuses nothing
    with grpc_server(servicer) as url:
        for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{free_port()}")
            with Client(url, retries=0) as client, pytest.raises(UnavailableError) as caught:
                client.predict(b"x", model="tiny")
            assert f"of {variable}, unless no_proxy names 127.0.0.1" in caught.value.message
            assert "secret" not in caught.value.message
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            with Client(url, retries=0) as client:
                assert client.predict(b"x", model="tiny").label == "b"
            monkeypatch.delenv("no_proxy")
            monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    ("url", "variables", "named"),
    [
        ("http://h:1", {}, ""),
        ("http://h:1", {"https_proxy": "http://p:2"}, ""),
        ("https://h:1", {"https_proxy": "http://p:2"}, "https_proxy"),
        ("http://h:1", {"grpc_proxy": "http://p:2"}, ""),
        ("http://h:1", {"all_proxy": "http://p:2", "http_proxy": "http://p:2"}, "http_proxy"),
        ("http://a.example.org:1", {"http_proxy": "http://p:2", "no_proxy": ".example.org"}, ""),
        ("grpc://h:1", {"HTTP_PROXY": "http://p:2", "all_proxy": "http://p:2"}, ""),
        ("grpcs://h:1", {"grpc_proxy": "http://p:2", "http_proxy": "http://q:2"}, "grpc_proxy"),
        ("grpc://h:1", {"http_proxy": "http://p:2", "NO_PROXY": "h"}, "http_proxy"),
        ("grpc://h:1", {"http_proxy": "http://p:2", "no_grpc_proxy": "h"}, ""),
    ],
)
def test_which_variable_counts(url: str, variables: dict[str, str], named: str) -> None:
    hint = proxy_hint(url, variables)
    assert f" of {named}, unless" in hint if named else not hint
