"""uvicorn's private API, which ``BoundedConnection`` overrides, and the bounds that pyproject.toml puts on its version.

To raise the upper bound:

1. Read what changed in ``uvicorn/protocols/http/httptools_impl.py`` and ``uvicorn/protocols/http/flow_control.py``
   since the last version of ``READ``: order and side effects of the methods below, who calls ``transport.close``,
   when reading is paused and resumed, what ``keep_alive`` of a cycle means (before 0.53 an answer with it set to False
   did not say ``connection: close``).
2. Run ``test_connections.py`` and ``test_faults.py`` in ``tests/integration/http``, ``test_lifecycle.py`` above
   them, and ``python benchmarks/harden.py hostile`` with the new version.
3. Add its minor version to ``READ``, and raise the bound and ``constraints.txt``.
"""

from __future__ import annotations

import asyncio
import inspect
import tomllib
from importlib.metadata import requires, version

import pytest
import uvicorn
from packaging.requirements import Requirement
from packaging.version import Version
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from dimml_server.http.connection.protocol import BoundedConnection
from support.data import REPOSITORY_ROOT

#: Minor versions whose protocol was read against ours, and with which the tests above passed.
READ = ((0, 53), (0, 54))

OVERRIDDEN = (
    *("connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing"),
    *("on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body", "on_message_complete"),
    *("on_response_complete", "send_400_response", "timeout_keep_alive_handler"),
)
#: Of the protocol, read or called.
USED = (
    *("client", "connections", "cycle", "flow", "headers", "loop", "parser", "pipeline", "server_state", "transport"),
    *("timeout_keep_alive", "timeout_keep_alive_task", "url", "_unset_keepalive_if_required"),
)
#: Of a cycle.
USED_OF_A_CYCLE = ("keep_alive", "more_body", "response_complete", "response_started", "scope", "send")


def uvicorn_requirement() -> Requirement:
    extras = tomllib.loads((REPOSITORY_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (found,) = (text for text in extras["serve-base"] if text.startswith("uvicorn"))
    return Requirement(found)


def test_the_bounds_are_the_versions_that_were_read() -> None:
    allowed = uvicorn_requirement().specifier
    for minor in range(READ[0][1] - 2, READ[-1][1] + 3):
        assert allowed.contains(f"0.{minor}.0") == ((0, minor) in READ), f"uvicorn 0.{minor}; see {__name__}"
    assert Version(version("uvicorn")).release[:2] in READ, f"see {__name__}"


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_there_and_called_alike(name: str) -> None:
    ours, theirs = (
        list(inspect.signature(getattr(of, name)).parameters) for of in (BoundedConnection, HttpToolsProtocol)
    )
    assert name in vars(BoundedConnection)
    assert ours == theirs


def test_what_is_used_of_it_is_there() -> None:
    async def nothing(scope: object, receive: object, send: object) -> None:
        """An application."""

    async def made() -> HttpToolsProtocol:
        protocol = HttpToolsProtocol(uvicorn.Config(nothing), ServerState(), {}, asyncio.get_running_loop())
        protocol.on_message_begin()
        return protocol

    protocol = asyncio.run(made())
    assert [name for name in USED if not hasattr(protocol, name)] == []
    assert protocol.server_state.default_headers == []
    assert protocol.server_state.total_requests == 0
    source = inspect.getsource(RequestResponseCycle)
    assert [name for name in USED_OF_A_CYCLE if f"self.{name}" not in source and f"def {name}" not in source] == []


def test_extras_do_not_refer_to_extras_once_installed() -> None:
    """``dimml doctor`` reads them from the metadata, where hatchling has put what ``dimml[serve-base]`` stands for."""
    listed = [Requirement(text) for text in requires("dimml") or ()]
    assert "dimml" not in {requirement.name for requirement in listed}
    of_serve, of_serve_gpu = (
        {
            str(one).partition(";")[0]
            for one in listed
            if one.marker is not None and one.marker.evaluate({"extra": extra})
        }
        for extra in ("serve", "serve-gpu")
    )
    assert {name.partition(">")[0] for name in of_serve ^ of_serve_gpu} == {"onnxruntime", "onnxruntime-gpu"}
    assert any(one.startswith("uvicorn") for one in of_serve)
