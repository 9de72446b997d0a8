"""What any client of HTTP may ask for: HEAD, the way from ``/``, a path behind a proxy, both families of addresses."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from dimml_server.security.keys import new_key
from support.data import unavailable
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle

PREFIX = "/tools/dimml"
READER, READER_LINE = new_key("reader")
ADMIN, ADMIN_LINE = new_key("boss", admin=True)
#: Every path that answers GET with 200 on a server with the bundle ``tiny``.
PATHS = (
    *("/", "/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json"),
    *("/health/live", "/health/ready", "/metrics", "/v1/models", "/v1/models/tiny", "/v1/models/tiny/routing"),
    *("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/stats", "/v2/models/tiny", "/v2/models/tiny/ready"),
    *("/v2/models/tiny/config", "/v2/models/tiny/stats", "/v2/models/tiny/versions/1/ready"),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository, decode_workers=1, log_format="json") as it:
        yield it


@pytest.fixture(scope="module")
def behind(repository: Path) -> Iterator[ServerProcess]:
    """Behind a proxy's prefix, with keys."""
    keys = f"{READER_LINE.line};{ADMIN_LINE.line}"
    with running_server(repository, root_path=PREFIX, api_keys=keys, model_control="explicit", decode_workers=1) as it:
        yield it


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(server: ServerProcess, path: str) -> None:
    got, head = (httpx.request(method, server.url + path) for method in ("GET", "HEAD"))
    assert (got.status_code, head.status_code) == (200, 200)
    assert head.content == b""
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    if path != "/metrics":  # It grows from one request to the next.
        assert head.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.content))


@pytest.mark.parametrize(("path", "status"), [("/v1/models/none", 404), ("/v1/predict", 405), ("/none", 404)])
def test_head_has_the_errors_of_get(server: ServerProcess, path: str, status: int) -> None:
    got, head = (httpx.request(method, server.url + path) for method in ("GET", "HEAD"))
    assert (got.status_code, head.status_code, head.content) == (status, status, b"")


def test_the_description_says_that_head_works_and_lists_it_nowhere(server: ServerProcess) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert "Every path that answers GET answers HEAD" in document["info"]["description"]
    operations = [own for methods in document["paths"].values() for own in methods.items()]
    assert "head" not in {method for method, _ in operations}
    identities = [operation["operationId"] for _, operation in operations]
    assert len(set(identities)) == len(identities)


def test_head_is_logged_as_head_and_listed_as_allowed(server: ServerProcess) -> None:
    identity = "asked-by-head"
    httpx.head(f"{server.url}/v1/models", headers={"X-Request-Id": identity})
    server.wait_for_log(identity)
    (line,) = [json.loads(line) for line in server.log_lines if identity in line]
    assert line["method"] == "HEAD"
    refused = httpx.delete(f"{server.url}/v1/models")
    assert refused.status_code == 405
    assert {method.strip() for method in refused.headers["Allow"].split(",")} == {"GET", "HEAD"}


def test_a_connection_is_usable_after_head(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.head("/v1/models").status_code == 200
            assert client.get("/health/live").json() == {"status": "live"}


def test_v2_health_has_the_objects_of_the_protocol(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{server.url}/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/tiny_audio/ready", "/v2/models/tiny_audio/versions/1/ready"):
        assert httpx.get(server.url + path).json() == {"name": "tiny_audio", "ready": True}


def test_the_root_points_on(server: ServerProcess) -> None:
    answer = httpx.get(server.url)
    assert answer.json()["name"] == "dimml"
    for name, path in answer.json()["links"].items():
        assert httpx.get(f"{server.url}/{path}").status_code == (405 if name == "predict" else 200), path
    assert answer.headers["Vary"] == "Accept"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("*/*", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("text/html;q=0", "application/json"),
        ("text/html;q=x", "application/json"),
    ],
)
def test_the_root_is_html_for_who_prefers_it(server: ServerProcess, accept: str, kind: str) -> None:
    answer = httpx.get(server.url, headers={"Accept": accept})
    assert answer.headers["Content-Type"].partition(";")[0] == kind


class Links(HTMLParser):
    """Every address that a page names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value and value != "data:,"]


@pytest.mark.parametrize("page", ["/", "/docs"])
@pytest.mark.parametrize("stripped", [False, True], ids=["kept", "stripped"])
def test_pages_behind_a_prefix_find_their_files(behind: ServerProcess, page: str, stripped: bool) -> None:
    """As a browser sees them through a proxy, which may take the prefix off or leave it."""

    def fetch(address: str) -> httpx.Response:
        assert address.startswith(f"http://proxy{PREFIX}/"), address
        path = address.removeprefix("http://proxy")
        return httpx.get(behind.url + (path.removeprefix(PREFIX) if stripped else path), headers=headers)

    headers = {"Accept": "text/html", "X-API-Key": READER}
    at = f"http://proxy{PREFIX}{page}"
    html = fetch(at)
    assert html.status_code == 200
    found = Links(html.text).found
    assert len(found) > 1
    for link in found:
        assert fetch(urljoin(at, link)).status_code == 200, link
    description = re.search(r"url: '([^']+)'", html.text)
    if page == "/docs":
        assert description is not None
        document = fetch(urljoin(at, description[1])).json()
        assert document["servers"] == [{"url": PREFIX}]


def test_docs_without_scripts_list_every_call(server: ServerProcess) -> None:
    page = httpx.get(f"{server.url}/docs").text
    fallback = page.partition("<noscript>")[2].partition("</noscript>")[0]
    for path, methods in httpx.get(f"{server.url}/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in fallback


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_a_prefix_changes_nothing_of_who_may_do_what(behind: ServerProcess, prefix: str) -> None:
    def status(method: str, path: str, key: str | None) -> int:
        headers = {} if key is None else {"X-API-Key": key}
        return httpx.request(method, behind.url + prefix + path, headers=headers).status_code

    assert [status("GET", path, None) for path in ("/", "/docs", "/health/live", "/v2/health/ready")] == [200] * 4
    assert [status("GET", path, None) for path in ("/v1/models", "/metrics", "/v2/models/tiny")] == [401] * 3
    load = "/v2/repository/models/tiny/load"
    assert [status("POST", load, key) for key in (None, READER, ADMIN)] == [401, 403, 200]
    assert status("PATCH", "/v1/models/tiny/routing", READER) == 403
    assert [status("HEAD", "/v1/models", key) for key in (None, READER)] == [401, 200]


def test_a_prefix_is_taken_off_once_and_whole(behind: ServerProcess) -> None:
    for path in (f"{PREFIX}{PREFIX}/health/live", f"{PREFIX}x/health/live"):
        assert httpx.get(behind.url + path, headers={"X-API-Key": READER}).status_code == 404


def test_every_address_means_both_families(repository: Path) -> None:
    if not socket.has_dualstack_ipv6():
        unavailable("this machine has no IPv6 with IPv4 on one socket")
    with running_server(repository, host="::", decode_workers=1) as server:
        http_port, grpc_port = (address.rpartition(":")[2] for address in (server.http, server.grpc))
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{http_port}/health/ready").status_code == 200
            with grpc.insecure_channel(f"{host}:{grpc_port}") as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=10).ready
