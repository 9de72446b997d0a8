"""Default version, split and shadow on a real server, over HTTP, gRPC and the command line."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.utils import InferenceServerException

from dimml.errors import ConfigurationError
from dimml_client import Client
from dimml_server.local import LocalPredictor
from dimml_server.security.keys import new_key
from support.commands import dimml
from support.kserve_clients import as_dict, face
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip
from support.waiting import wait_until

POLICY_OF_ALL = "version_policy { all {} }\n"


def serve_all(repository: Path, name: str = "tiny") -> None:
    """Make the bundle's own configuration ask for every version."""
    config = repository / name / "config.pbtxt"
    config.write_text(config.read_text() + POLICY_OF_ALL)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions; the third calls its labels by other names, and takes green for blue."""
    folder = tmp_path_factory.mktemp("repository")
    for labels in (("red", "green", "blue"), ("red", "green", "blue"), ("red", "blue", "green")):
        make_tiny_bundle(folder, labels=labels)
    serve_all(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_clip(tmp_path_factory.mktemp("clip"), 1)


@pytest.fixture(scope="module")
def shared(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository, model_control="explicit", decode_workers=1, shadow_queue=8) as server:
        yield server


@pytest.fixture
def server(shared: ServerProcess) -> ServerProcess:
    """With nothing set."""
    change(shared, split={}, shadow=None)
    return shared


def change(server: ServerProcess, **changes: Any) -> httpx.Response:
    return httpx.patch(f"{server.url}/v1/models/tiny/routing", json=changes, timeout=60)


def predict(server: ServerProcess, clip: bytes, **fields: str) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/v1/predict", files={"media": clip}, data=fields, timeout=60)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def wait_for_shadow(server: ServerProcess, version: int) -> None:
    """At the start of a server nobody waits for it."""
    routing = f"{server.url}/v1/models/tiny/routing"
    wait_until(lambda: httpx.get(routing).json()["shadow"] == version, 120, lambda: server.log)


def version_of(server: ServerProcess, kind: str, model: str = "tiny", **kwargs: Any) -> int:
    """The version that answers a KServe request of the entry model."""
    with face(kind, server.http, server.grpc) as client:
        result = client.infer(model, [client.waveform([1]), client.frames([1])], **kwargs)
        return int(as_dict(result.get_response())["model_version"])


def test_the_default_version_answers_and_others_by_name_alone(
    server: ServerProcess, clip: bytes, tmp_path: Path
) -> None:
    assert predict(server, clip)["version"] == 3
    assert change(server, split={"1": 100}).json() == {
        "name": "tiny", "loaded": [1, 2, 3], "default": 1, "split": {"1": 100.0}, "shadow": None,
    }  # fmt: skip
    assert predict(server, clip)["version"] == version_of(server, "grpc") == version_of(server, "http") == 1
    assert predict(server, clip, version="2")["version"] == 2
    (tmp_path / "clip.mp4").write_bytes(clip)
    words = ("predict", str(tmp_path / "clip.mp4"), "--url", server.url, "--json")
    assert json.loads(dimml(*words, "--version", "2"))["version"] == 2
    assert json.loads(dimml(*words, "--route-key", "anybody"))["version"] == 1
    assert version_of(server, "grpc", model_version="3") == 3
    # What describes a bundle without a version describes the one that answers.
    assert httpx.get(f"{server.url}/v1/models/tiny").json()["version"] == 1
    change(server, split=None)
    assert predict(server, clip)["version"] == 3


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_split_goes_by_key_over_every_transport_alike(server: ServerProcess, clip: bytes, kind: str) -> None:
    change(server, split={"1": 50, "2": 50})
    keys = [f"user-{number}" for number in range(12)]
    by_key = {key: version_of(server, kind, parameters={"route_key": key}) for key in keys}
    assert set(by_key.values()) == {1, 2}
    assert by_key == {key: version_of(server, kind, request_id=key) for key in keys}
    for key in keys[:4]:
        assert predict(server, clip, route_key=key)["version"] == by_key[key]
        headers = {"X-Request-Id": key}
        answer = httpx.post(f"{server.url}/v1/predict", files={"media": clip}, headers=headers, timeout=60)
        assert answer.json()["version"] == by_key[key]
        with Client(server.url if kind == "http" else f"grpc://{server.grpc}") as client:
            assert client.predict(clip, route_key=key).version == by_key[key]
    # A request without a key goes by chance, on each of its ways.
    assert len({version_of(server, kind) for _ in range(40)}) == 2
    with face(kind, server.http, server.grpc) as client:
        # One caller's encoders and fusion must belong together: a part has one version.
        parts = [client.infer("tiny_audio", [client.waveform([1])]) for _ in range(8)]
        assert {int(as_dict(part.get_response())["model_version"]) for part in parts} == {2}


def test_shares_are_kept_and_counted_by_version(server: ServerProcess) -> None:
    change(server, split={"1": 90, "2": 10})
    before = {v: server.metric("dimml_requests_total", version=str(v), transport="grpc") for v in (1, 2)}
    with face("grpc", server.http, server.grpc) as client:
        inputs = [client.waveform([1]), client.frames([1])]
        answers = Counter(as_dict(client.infer("tiny", inputs).get_response())["model_version"] for _ in range(300))
    # Of 300 draws at 10 %, within five standard deviations of 30.
    assert 4 <= answers[2] <= 56
    for version in (1, 2):
        counted = server.metric("dimml_requests_total", version=str(version), transport="grpc") - before[version]
        assert counted == answers[version]
    listed = {m["version"]: m for m in httpx.get(f"{server.url}/v1/models").json()["models"]}
    assert {v: (m["share_percent"], m["default"], m["shadow"]) for v, m in listed.items()} == {
        1: (90.0, True, False), 2: (10.0, False, False), 3: (0.0, False, False),
    }  # fmt: skip


def test_what_is_refused_changes_nothing(server: ServerProcess, clip: bytes) -> None:
    change(server, split={"1": 100}, shadow=2)
    for changes, said in (
        ({"split": {"1": 90, "7": 10}}, "version 7 of 'tiny' is not loaded; loaded are [1, 2, 3]"),
        ({"split": {"1": 90, "3": 20}}, "must add up to 100 percent, these make 110"),
        ({"split": {"1": 90, "2": 10}}, "version 2 of 'tiny' answers requests itself"),
        ({"shadow": 1}, "version 1 of 'tiny' answers requests itself"),
        ({"shadow": 7}, "version 7 of 'tiny' is not loaded"),
        ({"shadow": "three"}, "shadow"),
        ({"spilt": {"1": 100}}, "spilt"),
    ):
        refused = change(server, **changes)
        assert refused.status_code == 422, refused.text
        assert said in refused.json()["error"]["message"]
    assert httpx.patch(f"{server.url}/v1/models/tiny/routing", content=b"{").status_code == 422
    assert httpx.patch(f"{server.url}/v1/models/tiny/routing", content=b" " * 2**17).status_code == 413
    assert httpx.patch(f"{server.url}/v1/models/none/routing", json={}).status_code == 404
    state = httpx.get(f"{server.url}/v1/models/tiny/routing").json()
    assert (state["split"], state["shadow"]) == ({"1": 100.0}, 2)
    assert (
        httpx.post(f"{server.url}/v1/predict", files={"media": clip}, data={"route_key": "k" * 257}).status_code == 422
    )


def test_a_version_with_a_share_is_not_unloaded_from_under_it(server: ServerProcess) -> None:
    change(server, split={"1": 60, "2": 40}, shadow=3)
    with face("grpc", server.http, server.grpc) as client:
        for versions, said in (([1], "version 2 of 'tiny' has 40 % "), ([1, 2], "version 3 of 'tiny' is the shadow")):
            config = json.dumps({"version_policy": {"specific": {"versions": versions}}})
            with pytest.raises(InferenceServerException, match=said):
                client.client.load_model("tiny", config=config)
        assert client.client.is_model_ready("tiny", "2")
        # The newest alone, but for those that have a part to play.
        client.client.load_model("tiny", config='{"version_policy": {"latest": {"num_versions": 1}}}')
        assert httpx.get(f"{server.url}/v1/models/tiny/routing").json()["loaded"] == [1, 2, 3]
        # Where all others that could answer go, the shadow answers, and is none any more.
        assert change(server, split={}, shadow=2).status_code == 200
        client.client.load_model("tiny", config='{"version_policy": {"specific": {"versions": [1, 2]}}}')
        state = httpx.get(f"{server.url}/v1/models/tiny/routing").json()
        assert (state["default"], state["shadow"], len(server.children())) == (2, None, 1)
        client.client.load_model("tiny")
        assert change(server, split={"1": 60, "2": 40}, shadow=3).status_code == 200
        # The whole bundle can go, and what was said of its versions goes with it.
        client.client.unload_model("tiny")
        client.client.load_model("tiny")
    state = httpx.get(f"{server.url}/v1/models/tiny/routing").json()
    assert (state["loaded"], state["split"], state["shadow"]) == ([1, 2, 3], {}, None)
    assert len(server.children()) == 1  # The decode worker; the shadow's process went, too.


def test_a_shadow_answers_nobody_and_is_compared(server: ServerProcess, clip: bytes) -> None:
    assert change(server, split={"1": 100}, shadow=3).status_code == 200
    agreement = {"model": "tiny", "version": "1", "shadow": "3"}
    before = server.metric("dimml_shadow_agreement_total", agrees="no", **agreement)
    agreed = server.metric("dimml_shadow_agreement_total", agrees="yes", **agreement)
    own = server.metric("dimml_predictions_total", version="3")
    counted = server.metric("dimml_shadow_predictions_total", version="3", label="blue")
    for _ in range(3):
        assert (predict(server, clip)["label"], predict(server, clip, version="2")["label"]) == ("green", "green")
    # It calls what the others call green blue. Requests that name a version are not for it.
    server.wait_for_metric("dimml_shadow_agreement_total", before + 3, 60, agrees="no", **agreement)
    assert server.metric("dimml_shadow_predictions_total", version="3", label="blue") == counted + 3
    assert server.metric("dimml_shadow_modality_certainty_ratio_count", version="3", modality="audio") >= 3
    assert server.metric("dimml_predictions_total", version="3") == own
    with face("grpc", server.http, server.grpc) as client:
        # Of label 0 both say red; a batch counts by row, and one without signal is no row.
        client.infer("tiny", [client.waveform([0, 1, -1]), client.frames([0, 1, -1])])
    server.wait_for_metric("dimml_shadow_agreement_total", before + 4, 60, agrees="no", **agreement)
    assert server.metric("dimml_shadow_agreement_total", agrees="yes", **agreement) == agreed + 1
    assert httpx.get(f"{server.url}/v1/models").json()["models"][2]["shadow"]


def test_a_shadow_that_dies_or_hangs_costs_no_answer(server: ServerProcess, clip: bytes) -> None:
    workers = set(server.children())
    assert change(server, split={"1": 100}, shadow=3).status_code == 200
    (process,) = set(server.children()) - workers
    assert os.sched_getscheduler(process) == os.SCHED_IDLE
    outcomes = {"name": "dimml_shadow_requests_total", "version": "3"}
    dropped = server.metric(**outcomes, outcome="dropped")
    os.kill(process, signal.SIGSTOP)
    answers = [predict(server, clip) for _ in range(10)]
    assert {(a["version"], a["degraded"]) for a in answers} == {(1, False)}
    # One is with it and 8 wait (shadow_queue); the next one is not copied.
    assert server.metric(**outcomes, outcome="dropped") == dropped + 1
    failed, answered = (server.metric(**outcomes, outcome=outcome) for outcome in ("failed", "answered"))
    os.kill(process, signal.SIGKILL)
    server.wait_for_metric("dimml_shadow_requests_total", failed + 1, 60, version="3", outcome="failed")
    # Another process takes over what waits.
    server.wait_for_metric("dimml_shadow_requests_total", answered + 8, 120, version="3", outcome="answered")
    assert change(server, shadow=None).status_code == 200
    assert set(server.children()) == workers


def test_a_shadow_must_take_what_the_others_are_sent(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    make_tiny_bundle(tmp_path, clip_s=0.4)
    serve_all(tmp_path)
    with running_server(tmp_path, model_control="explicit", decode_workers=1) as server:
        refused = change(server, split={"1": 100}, shadow=2)
        assert refused.status_code == 400
        assert "another stretch of media" in refused.json()["error"]["message"]
        assert httpx.get(f"{server.url}/v1/models/tiny/routing").json()["split"] == {}


def test_settings_count_at_the_start_and_calls_outlive_it_in_the_file(tmp_path: Path, clip: bytes) -> None:
    repository, file = tmp_path / "repository", tmp_path / "state" / "routing.json"
    file.parent.mkdir()
    for _ in range(3):
        make_tiny_bundle(repository)
    settings: dict[str, object] = {"model_control": "explicit", "decode_workers": 1, "routing_file": str(file)}
    # The policy of config.pbtxt would load the newest alone.
    given = {"splits": "tiny=1:100", "shadows": "tiny=2"}
    with running_server(repository, **settings, **given) as server:
        wait_for_shadow(server, 2)
        state = httpx.get(f"{server.url}/v1/models/tiny/routing").json()
        assert state == {"name": "tiny", "loaded": [1, 2, 3], "default": 1, "split": {"1": 100.0}, "shadow": 2}
        assert predict(server, clip)["version"] == 1
        assert change(server, split={"1": 40, "3": 60}).status_code == 200
        assert len(server.children()) == 2  # The shadow's is gone after SIGTERM, as running_server holds.
    with running_server(repository, **settings, splits="tiny=2:100") as server:
        wait_for_shadow(server, 2)
        state = httpx.get(f"{server.url}/v1/models/tiny/routing").json()
        assert (state["loaded"], state["split"]) == ([1, 2, 3], {"1": 40.0, "3": 60.0})
    # A version of the file that is there no more must not keep the server from starting.
    file.write_text(json.dumps({"tiny": {"split": {"9": 100}}}))
    with LocalPredictor(repository, decode_workers=1, routing_file=file, splits="tiny=1:100") as predictor:
        assert predictor.predict(clip).version == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"splits": "tiny=9:100"}, r"bundle 'tiny' has no version 9 in the repository; it has \[1, 2, 3\]"),
        ({"splits": "tiny=1:90"}, "must add up to 100 percent"),
        ({"splits": "tiny=1"}, "setting splits.tiny"),
        ({"shadows": "grid=1"}, "no bundle 'grid' is served"),
        ({"shadows": "tiny=3"}, "version 3 of 'tiny' answers requests itself"),
        ({"engine": "triton", "watch": True}, "watch works with engine=local alone"),
    ],
)
def test_settings_that_cannot_be_stop_the_start(repository: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said), LocalPredictor(repository, decode_workers=1, **settings):
        pass


def test_only_an_admin_key_changes_it(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    (reader, reader_key), (admin, admin_key) = new_key("reader"), new_key("boss", admin=True)
    keys = f"{reader_key.line};{admin_key.line}"
    with running_server(tmp_path, decode_workers=1, model_control="explicit", api_keys=keys) as server:
        url = f"{server.url}/v1/models/tiny/routing"
        assert httpx.patch(url, json={"split": {"1": 100}}).status_code == 401
        assert httpx.patch(url, json={"split": {"1": 100}}, headers={"X-API-Key": reader}).status_code == 403
        assert httpx.get(url, headers={"X-API-Key": reader}).json()["split"] == {}
        assert httpx.patch(url, json={"split": {"1": 100}}, headers={"X-API-Key": admin}).status_code == 200


def test_the_command(server: ServerProcess) -> None:
    url, grpc = ("--url", server.url), ("--url", f"grpc://{server.grpc}")
    assert "version 1 answers 100 %" in dimml("models", "default", "tiny", "1", *url)
    assert "version 1 answers 90 %, version 3 answers 10 %" in dimml("models", "split", "tiny", "1=90", "3=10%", *url)
    now = json.loads(dimml("models", "shadow", "tiny", "2", *url, "--json"))
    assert (now["split"], now["shadow"], now["default"]) == ({"1": 90.0, "3": 10.0}, 2, 1)
    listed = {(e["name"], e["version"]): e for e in json.loads(dimml("models", "list", *url, "--json"))}
    assert [listed["tiny", v]["share_percent"] for v in "123"] == [90.0, 0.0, 10.0]
    assert [listed["tiny", v]["shadow"] for v in "123"] == [False, True, False]
    text = dimml("models", "list", *url)
    assert "90 %" in text
    assert "shadow" in text
    dimml("models", "list", *grpc)
    assert "the newest, version 3, answers; shadow is version 2" in dimml("models", "default", "tiny", "--newest", *url)
    assert "shadow" not in dimml("models", "shadow", "tiny", "--off", *url)
    for words, said in (
        (("split", "tiny", "1=90", "3=20", *url), "must add up to 100 percent"),
        (("default", "tiny", "9", *url), "version 9 of 'tiny' is not loaded"),
        (("default", "none", "1", *url), "no model 'none'"),
        (("default", "tiny", "1", *grpc), "over HTTP only"),
    ):
        assert said in dimml("models", *words, code=1)
    for words in (("split", "tiny", "1=x"), ("split", "tiny", "1=50", "1=50"), ("split", "tiny", "1=nan", "2=9")):
        dimml("models", *words, *url, code=2, lines=None)
    dimml("models", "default", "tiny", *url, code=2, lines=None)


def test_nothing_is_changed_unless_allowed_and_a_shadow_dies_with_its_server(tmp_path: Path) -> None:
    for _ in range(2):
        make_tiny_bundle(tmp_path)
    settings: dict[str, object] = {"decode_workers": 1, "splits": "tiny=1:100", "shadows": "tiny=2"}
    with running_server(tmp_path, stop=False, **settings) as server:
        refused = change(server, split={"2": 100}, shadow=None)
        assert refused.status_code == 501
        assert "model_control=explicit" in refused.json()["error"]["message"]
        wait_for_shadow(server, 2)
        children = server.children()
        assert len(children) == 2
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not [child for child in children if Path(f"/proc/{child}").exists()], 30)
        server.process.returncode = 0  # It was killed on purpose.
