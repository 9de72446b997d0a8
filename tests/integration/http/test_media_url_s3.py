"""``media_url`` where addresses are checked: no host on loopback, and ``s3://…`` from a store that may be there.

The store is moto's, which checks signatures and rights.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from dimml_server.fetch.s3 import Signer
from dimml_server.fetch.targets import Target, Targets
from dimml_server.settings.media_url import Bucket
from support.certificates import Authority, Pair
from support.moto_store import OBJECT, REGION
from support.recording_host import RecordingHost, recording_host
from support.server_process import ServerProcess, running_server
from support.side_packages import side_packages
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip

#: Beside the tests' own packages, since botocore wants python-dateutil below 3.
MOTO = (
    "blinker==1.9.0", "boto3==1.44.8", "botocore==1.44.8", "Flask==3.1.3", "flask-cors==6.0.5", "itsdangerous==2.2.0",
    "jmespath==1.1.0", "moto==5.2.5", "py-partiql-parser==0.6.3", "python-dateutil==2.9.0.post0", "responses==0.26.3",
    "s3transfer==0.19.3", "six==1.17.0", "xmltodict==1.0.4",
)  # fmt: skip
LABEL = 2


@dataclass(frozen=True)
class Store:
    """Where moto listens, and the key of a user who may read the bucket ``clips``."""

    endpoint: str
    access_key: str
    secret_key: str

    def bucket(self, **other: object) -> dict[str, object]:
        """Settings of a bucket there."""
        return {"endpoint": self.endpoint, "access_key": self.access_key, "region": REGION, "private": True, **other}


@contextmanager
def moto(pair: Pair, file: Path) -> Iterator[Store]:
    script = Path(__file__).parents[2] / "support" / "moto_store.py"
    with subprocess.Popen(
        [sys.executable, str(script), *map(str, (pair.certificate, pair.key, file))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(side_packages(*MOTO))},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        port, access_key, secret_key = json.loads(line)
        yield Store(f"https://localhost:{port}", access_key, secret_key)
        process.communicate()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def store(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    file = tmp_path_factory.mktemp("clip") / "clip.mp4"
    file.write_bytes(tiny_clip(file.parent, LABEL))
    with moto(authority.sign("store", host="localhost"), file) as it:
        yield it


@pytest.fixture(scope="module")
def host(authority: Authority) -> Iterator[RecordingHost]:
    with recording_host(authority.sign("host", host="localhost")) as it:
        yield it


@pytest.fixture(scope="module")
def server(
    store: Store, host: RecordingHost, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("s3")
    make_tiny_bundle(folder / "models")
    secret = folder / "secret"
    secret.write_text(f"{store.secret_key}\n")
    buckets = {
        "clips": store.bucket(secret_key_file=str(secret)),
        # A bucket that this key may not read, and one whose store may not be where it is.
        "others": store.bucket(secret_key=store.secret_key),
        "near": store.bucket(secret_key=store.secret_key, private=False),
    }
    # What AWS's own programs would take from the environment has no say.
    aws = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_ENDPOINT_URL": "https://localhost:1"}
    with running_server(
        folder / "models",
        environment={"SSL_CERT_FILE": str(authority.ca), **aws},
        media_url_hosts=",".join(near(host)),
        media_url_buckets=json.dumps(buckets),
        decode_workers=1,
    ) as it:
        yield it


def near(host: RecordingHost) -> list[str]:
    """A host's address in three forms, all on this machine."""
    return [host.origin, f"127.0.0.1:{host.port}", f"[::1]:{host.port}"]


def post(server: ServerProcess, url: str) -> tuple[int, dict[str, Any]]:
    response = httpx.post(f"{server.url}/v1/predict", files={"media_url": (None, url)}, timeout=60.0)
    return response.status_code, response.json()


def test_an_object_is_fetched_by_the_key_of_the_settings(server: ServerProcess, store: Store) -> None:
    status, answer = post(server, f"s3://clips/{OBJECT}")
    assert status == 200, answer
    assert (answer["label"], answer["degraded"]) == (LABELS[LABEL], False)
    assert store.secret_key not in server.log


def test_the_store_checks_what_is_signed(store: Store, authority: Authority) -> None:
    """The control: what is not signed, or by another key, is refused by it."""
    ways = {"right": store.secret_key, "wrong": "x" * 40}
    buckets = {name: Bucket.model_validate(store.bucket(secret_key=key)) for name, key in ways.items()}
    path = Targets((), {"clips": buckets["right"]}).parse(f"s3://clips/{OBJECT}").path
    signer = Signer(buckets)
    signed = {name: signer.headers(Target(buckets[name].origin, path, name)) for name in ways}
    found = {}
    context = ssl.create_default_context(cafile=authority.ca)
    for name, headers in {**signed, "none": {}}.items():
        with closing(HTTPSConnection(store.endpoint.removeprefix("https://"), context=context)) as connection:
            connection.request("GET", path, headers=headers)
            found[name] = connection.getresponse().status
    assert found == {"right": 200, "wrong": 403, "none": 403}


def test_no_address_near_the_server_is_connected_to_and_all_refusals_read_alike(
    server: ServerProcess, host: RecordingHost
) -> None:
    said = set()
    for url, outcome in {
        "s3://clips/missing": "status",
        f"s3://others/{OBJECT}": "status",
        f"s3://near/{OBJECT}": "not_global",
        **{f"https://{origin}/clip": "not_global" for origin in near(host)},
    }.items():
        before = server.metric("dimml_media_fetches_total", outcome=outcome)
        status, answer = post(server, url)
        assert (status, answer["error"]["code"]) == (422, "fetch_failed"), answer
        assert server.metric("dimml_media_fetches_total", outcome=outcome) == before + 1
        said.add(answer["error"]["message"])
    assert len(said) == 1
    assert host.connections == 0


def test_a_store_is_no_host_to_fetch_from(server: ServerProcess, store: Store) -> None:
    status, answer = post(server, f"{store.endpoint}/clips/missing")
    assert (status, answer["error"]["code"]) == (422, "invalid_parameter")
    assert "fetches nothing from" in answer["error"]["message"]
    assert "no bucket 'secrets'" in post(server, "s3://secrets/a")[1]["error"]["message"]
