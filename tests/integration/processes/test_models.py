"""Models and traffic of several processes: what one is asked is done in all or in none."""

from __future__ import annotations

import json
from pathlib import Path

import tritonclient.grpc

from support.server_process import ServerProcess
from support.several_processes import (
    OPS,
    Pinned,
    load,
    versions,
)
from support.tiny_bundle import make_tiny_bundle


def test_a_version_is_loaded_and_rolled_back_in_all(both: list[Pinned], folder: Path) -> None:
    first = versions(both[0], "growing")
    new = make_tiny_bundle(folder / "models", name="growing").version
    one, other = both
    assert load(one, "growing").status_code == 200
    assert [versions(client, "growing") for client in both] == [[new]] * 2
    assert load(other, "growing", *first).status_code == 200
    assert [versions(client, "growing") for client in both] == [first] * 2


def test_grpc_loads_in_all_as_well(server: ServerProcess, both: list[Pinned], folder: Path) -> None:
    new = make_tiny_bundle(folder / "models", name="growing").version
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.load_model("growing", headers={"x-api-key": OPS})
    assert [versions(client, "growing") for client in both] == [[new]] * 2


def test_a_version_that_does_not_load_changes_nothing_anywhere(both: list[Pinned], folder: Path) -> None:
    bad = make_tiny_bundle(folder / "models", name="broken")
    model = bad.model_file(folder / "models", "broken_visual")
    model.write_bytes(model.read_bytes() + b" ")
    for client in both:
        refused = load(client, "broken")
        assert refused.status_code == 400
        assert "version 1 goes on" in refused.json()["error"]
    assert [versions(client, "broken") for client in both] == [[1], [1]]
    for client in both:
        entries = client.http.post("/v2/repository/index", json={}).json()
        (entry,) = (e for e in entries if (e["name"], e["version"]) == ("broken", str(bad.version)))
        assert "SHA-256" in entry["reason"]


def test_a_bundle_is_unloaded_and_loaded_in_all(both: list[Pinned], clip: bytes) -> None:
    one, other = both
    assert one.http.post("/v2/repository/models/gone/unload").status_code == 200
    assert [client.predict(clip, model="gone").status_code for client in both] == [404, 404]
    refused = other.http.post("/v2/repository/models/nowhere/load")
    assert refused.status_code == 404
    assert load(other, "gone").status_code == 200
    assert [client.predict(clip, model="gone").status_code for client in both] == [200, 200]


def test_a_split_holds_in_all_and_is_stored_once(both: list[Pinned], folder: Path) -> None:
    newest = make_tiny_bundle(folder / "models", name="split").version
    one, other = both
    assert load(one, "split", 1, newest).status_code == 200
    shares = {"1": 30.0, str(newest): 70.0}
    changed = one.http.patch("/v1/models/split/routing", json={"split": shares})
    assert (changed.status_code, changed.json()["split"]) == (200, shares)
    assert other.http.get("/v1/models/split/routing").json()["split"] == shares
    assert json.loads((folder / "routing.json").read_text())["split"] == {"split": shares, "shadow": None}
    refused = other.http.patch("/v1/models/split/routing", json={"split": {"9": 100}})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "split")
    assert load(other, "split", newest).status_code == 400
    assert other.http.patch("/v1/models/split/routing", json={"split": None}).status_code == 200
    assert one.http.get("/v1/models/split/routing").json()["split"] == {}


def test_a_key_chooses_the_same_version_in_all(both: list[Pinned], folder: Path, clip: bytes) -> None:
    newest = make_tiny_bundle(folder / "models", name="split").version
    assert load(both[0], "split", 1, newest).status_code == 200
    shares = {"1": 50.0, str(newest): 50.0}
    assert both[1].http.patch("/v1/models/split/routing", json={"split": shares}).status_code == 200
    seen = [
        [client.predict(clip, model="split", route_key=f"caller {n}").json()["version"] for n in range(6)]
        for client in both
    ]
    assert seen[0] == seen[1]
    assert set(seen[0]) == {1, newest}
    assert both[0].http.patch("/v1/models/split/routing", json={"split": {}}).status_code == 200


def test_a_shadow_is_refused_with_the_way_out(both: list[Pinned]) -> None:
    refused = both[0].http.patch("/v1/models/tiny/routing", json={"shadow": 1})
    assert refused.status_code == 501
    assert "one process" in refused.json()["error"]["message"]
    assert both[0].http.patch("/v1/models/tiny/routing", json={"shadow": None}).status_code == 200
    assert both[0].http.patch("/v1/models/nothing/routing", json={"shadow": None}).status_code == 404
