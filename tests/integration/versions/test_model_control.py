"""Loading, rolling back and unloading with unmodified tritonclient calls, while requests go on."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from dimml.bundle import Bundle
from dimml.contract import model_specs
from support import faulty_decoding, faulty_server
from support.kserve_clients import FACES, Face, as_dict, face
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import marked, tiny_clip
from support.waiting import wait_until

LABELS = {1: ("red", "green", "blue"), 2: ("rouge", "vert", "bleu")}


@contextmanager
def controlled(repository: Path, **settings: object) -> Iterator[ServerProcess]:
    with running_server(repository, model_control="explicit", decode_workers=1, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    """Started on an empty repository, which is no mistake where bundles are loaded by calls."""
    with controlled(repository) as server:
        yield server


@pytest.fixture(params=FACES)
def triton(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Face]:
    with face(request.param, server.http, server.grpc) as client:
        yield client


@pytest.fixture
def bundle(request: pytest.FixtureRequest, repository: Path) -> Bundle:
    """A bundle of the test's own, version 1, not loaded yet."""
    name = re.sub("[^a-z]+", "_", request.node.name)[-40:].strip("_")
    return make_tiny_bundle(repository, name=name, labels=LABELS[1])


def only(*versions: int) -> str:
    return json.dumps({"version_policy": {"specific": {"versions": versions}}})


def answering(client: Face, model: str, version: str = "") -> str:
    """The version that answers a request of the entry model, checked to be a right answer."""
    result = client.infer(model, [client.waveform([1]), client.frames([1])], model_version=version)
    assert result.as_numpy("PROBABILITIES")[0].argmax() == 1
    return str(as_dict(result.get_response())["model_version"])


def index(client: Face, bundle: Bundle) -> dict[tuple[str, str], dict[str, Any]]:
    """Entries of the bundle's models by name and version."""
    document = as_dict(client.client.get_model_repository_index())
    names = {spec.name for spec in model_specs(bundle)}
    entries = document.get("models", []) if isinstance(document, dict) else document
    return {(e["name"], e["version"]): e for e in entries if e["name"] in names}


def states(client: Face, bundle: Bundle) -> dict[tuple[str, str], str]:
    return {key: entry["state"] for key, entry in index(client, bundle).items()}


def test_a_new_version_a_rollback_two_at_once_and_an_unload(repository: Path, triton: Face, bundle: Bundle) -> None:
    name = bundle.name
    assert set(states(triton, bundle).values()) == {"UNAVAILABLE"}
    triton.client.load_model(name)
    assert answering(triton, name) == "1"
    make_tiny_bundle(repository, name=name, labels=LABELS[2])
    triton.client.load_model(name)
    assert answering(triton, name) == "2"
    assert triton.client.is_model_ready(name, "2")
    assert not triton.client.is_model_ready(name, "1")
    assert states(triton, bundle) == {
        (spec.name, v): state for spec in model_specs(bundle) for v, state in (("1", "UNAVAILABLE"), ("2", "READY"))
    }
    triton.client.load_model(name, config=only(1))
    assert answering(triton, name) == "1"
    with pytest.raises(InferenceServerException, match="version 2 is not found"):
        answering(triton, name, "2")
    for both in (only(1, 2), '{"version_policy": {"latest": {"num_versions": 2}}}', '{"version_policy": {"all": {}}}'):
        triton.client.load_model(name, config=both)
        assert [answering(triton, name, version) for version in ("1", "2", "")] == ["1", "2", "2"]
        triton.client.load_model(name, config=only(2))
    triton.client.unload_model(name)
    assert set(states(triton, bundle).values()) == {"UNAVAILABLE"}
    with pytest.raises(InferenceServerException, match="unknown model"):
        answering(triton, name)
    triton.client.unload_model(name)  # Once more is no error, as on Triton.
    triton.client.load_model(bundle.encoder_model("visual"))  # A part brings its bundle.
    assert answering(triton, name) == "2"


def test_a_broken_version_leaves_the_old_one_serving_and_says_why(
    repository: Path, triton: Face, bundle: Bundle
) -> None:
    name = bundle.name
    triton.client.load_model(name)
    second = make_tiny_bundle(repository, name=name)
    # As a half-finished copy leaves it.
    second.model_file(repository, second.encoder_model("visual")).write_bytes(b"garbage")
    with pytest.raises(InferenceServerException, match=r"_visual/2/model.onnx .*version 1 goes on") as refused:
        triton.client.load_model(name)
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
    assert answering(triton, name) == "1"
    assert "model.onnx" in index(triton, bundle)[bundle.encoder_model("audio"), "2"]["reason"]
    with pytest.raises(InferenceServerException, match="goes on"):
        triton.client.load_model(name, config=only(1, 2))
    assert answering(triton, name) == "1"


def test_the_policy_of_config_pbtxt_counts_where_a_call_says_nothing(
    server: ServerProcess, repository: Path, bundle: Bundle
) -> None:
    make_tiny_bundle(repository, name=bundle.name)
    config = repository / bundle.name / "config.pbtxt"
    config.write_text(config.read_text() + "version_policy { specific { versions: 1 } }\n")
    with face("grpc", server.http, server.grpc) as triton:
        triton.client.load_model(bundle.name)
        assert answering(triton, bundle.name) == "1"
        # The configuration as the server gives it back, edited, as a script for Triton would.
        given = as_dict(triton.client.get_model_config(bundle.name))["config"]
        given["version_policy"]["specific"]["versions"] = [2]
        triton.client.load_model(bundle.name, config=json.dumps(given))
        assert answering(triton, bundle.name) == "2"


def test_what_a_load_call_must_not_ask_for(triton: Face, bundle: Bundle) -> None:
    name = bundle.name
    triton.client.load_model(name)
    for model, config, message in (
        ("nothing", None, "no bundle in the repository has a model 'nothing'"),
        (name, only(7), r"no version 7 in the repository; it has \[1\]"),
        (name, "{", "is not a model configuration"),
        (name, '{"version_polisy": {}}', "version_polisy"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            triton.client.load_model(model, config=config)
    if not triton.http:  # tritonclient's HTTP face cannot send files at all (bytes in JSON).
        with pytest.raises(InferenceServerException, match="bundles come from the repository"):
            triton.client.load_model(name, config="{}", files={"file:1/model.onnx": b"x"})
    with pytest.raises(InferenceServerException, match=f"part of bundle '{name}'"):
        triton.client.unload_model(bundle.fusion_model)
    with pytest.raises(InferenceServerException, match="no bundle"):
        triton.client.unload_model("nothing")
    assert answering(triton, name) == "1"


def test_by_default_nothing_can_be_changed_and_the_answer_says_what_to_set(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    with running_server(tmp_path, decode_workers=1) as server:
        for name in FACES:
            with face(name, server.http, server.grpc) as triton:
                for change in (triton.client.load_model, triton.client.unload_model):
                    with pytest.raises(InferenceServerException, match="DIMML_MODEL_CONTROL=explicit") as refused:
                        change("tiny")
                    assert refused.value.status() in ("501", "StatusCode.UNIMPLEMENTED")
                assert answering(triton, "tiny") == "1"
                assert "model_repository" not in as_dict(triton.client.get_server_metadata())["extensions"]


def asking(kind: str, server: ServerProcess, client: Face, clip: bytes) -> tuple[str, str]:
    """The version that answered a request of class 1, and the label that it gave."""
    if kind == "predict":
        body = httpx.post(f"{server.url}/v1/predict", files={"media": clip}, timeout=60).raise_for_status().json()
        assert not body["degraded"]
        return str(body["version"]), body["label"]
    if kind == "entry":
        inputs = [client.waveform([1]), client.frames([1])]
    else:
        inputs = [client.tensor("MEDIA", np.array([clip], np.object_))]
    model, outputs = ("tiny" if kind == "entry" else "tiny_media"), [client.output("PROBABILITIES", class_count=1)]
    result = client.infer(model, inputs, outputs=outputs)
    label = result.as_numpy("PROBABILITIES").reshape(-1)[0].decode().split(":")[2]
    return str(as_dict(result.get_response())["model_version"]), label


def test_no_request_is_lost_while_versions_change(tmp_path: Path) -> None:
    for labels in LABELS.values():
        make_tiny_bundle(tmp_path / "repository", labels=labels)
    clip = tiny_clip(tmp_path, 1)
    seen: list[tuple[str, str]] = []
    failures: list[str] = []
    stop = threading.Event()

    def load(server: ServerProcess, kind: str, transport: str) -> None:
        with face(transport, server.http, server.grpc) as triton:
            while not stop.is_set():
                try:
                    seen.append(asking(kind, server, triton, clip))
                except (InferenceServerException, httpx.HTTPError, AssertionError) as error:
                    failures.append(f"{kind}, {transport}: {error}")

    traffic = [("predict", "http"), ("entry", "http"), ("entry", "grpc"), ("media", "http"), ("media", "grpc")]
    # Every body goes over the disc, as large ones do, so that versions change while it is being read.
    with controlled(tmp_path / "repository", concurrency=2, spool_bytes=0) as server:
        workers = [threading.Thread(target=load, args=(server, *kind)) for kind in traffic]
        for worker in workers:
            worker.start()
        try:
            with face("http", server.http, server.grpc) as triton:
                threads = []
                for version in (1, 2, 1, 2, 1, 2):
                    triton.client.load_model("tiny", config=only(version))
                    count = len(seen)
                    wait_until(lambda count=count: len(seen) >= count + 10, 30, lambda: failures[:3])
                    threads.append(server.threads())
        finally:
            stop.set()
            for worker in workers:
                worker.join(60)
        assert not failures, failures[:3]
        # Each version with its own word for it, and nothing else.
        assert set(seen) == {(str(version), labels[1]) for version, labels in LABELS.items()}
        # What an unloaded version held is given back, once its last request is done: of five of them, three sessions of
        # threads each would show.
        wait_until(lambda: server.threads() <= max(threads[:2]) + 2, 10, lambda: threads)
        assert server.metric("dimml_bundle_info", model="tiny") == 1


def test_a_request_in_flight_outlives_its_version(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    make_tiny_bundle(repository)
    slow = marked(tiny_clip(tmp_path, 2), faulty_decoding.SLOW)
    with (
        controlled(repository, script=faulty_server.SCRIPT) as server,
        face("grpc", server.http, server.grpc) as triton,
        ThreadPoolExecutor(1) as pool,
    ):
        asking = pool.submit(httpx.post, f"{server.url}/v1/predict", files={"media": slow}, timeout=60)
        server.wait_for_load(in_flight=1, queued=0)
        threads = server.threads()
        triton.client.unload_model("tiny")
        assert httpx.get(f"{server.url}/v1/models").json() == {"models": []}
        assert not asking.done()
        answer = asking.result(60).json()
        assert (answer["label"], answer["degraded"]) == ("blue", False)
        wait_until(lambda: server.threads() < threads, 20, "the sessions' threads are still there")


def test_of_another_decoder_only_a_newer_one_is_warned_of(server: ServerProcess, repository: Path) -> None:
    for name, version in (("of_an_older_decoder", 1), ("of_a_newer_decoder", 7)):
        make_tiny_bundle(repository, name=name)
        manifest = repository / name / "1" / "bundle.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "decoder_version": version}))
        httpx.post(f"http://{server.http}/v2/repository/models/{name}/load").raise_for_status()
    wait_until(lambda: "of_a_newer_decoder version 1 was trained" in server.log, 10.0, lambda: server.log)
    warned = [line for line in server.log_lines if "was trained on clips" in line and " WARNING " in line]
    assert len(warned) == 1
    assert "bundle of_a_newer_decoder version 1 was trained on clips of decoder version 7" in warned[0]
