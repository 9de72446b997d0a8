"""``--watch`` on a real server: versions come whole or broken, change, go, and a disc that is away for a while."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from dimml.bundle import Bundle
from dimml.contract import model_specs
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.traffic import Traffic, clean_clips
from support.waiting import wait_until

LIMIT_S = 60.0


@contextmanager
def watched(repository: Path, **settings: object) -> Iterator[ServerProcess]:
    with running_server(repository, decode_workers=1, watch=True, watch_interval_s=0.1, **settings) as server:
        yield server


def served(server: ServerProcess) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for model in httpx.get(f"{server.url}/v1/models", timeout=30).json()["models"]:
        found.setdefault(model["name"], []).append(model["version"])
    return found


def wait_for(server: ServerProcess, holds: Callable[[dict[str, list[int]]], Any]) -> None:
    wait_until(lambda: holds(served(server)), LIMIT_S, lambda: f"{served(server)}\n{server.log}")


def remove(repository: Path, bundle: Bundle) -> None:
    """The manifest first, as `rm` in any order might."""
    for spec in reversed(model_specs(bundle)):
        shutil.rmtree(repository / spec.name / str(bundle.version))


def looks(server: ServerProcess, count: int = 10) -> None:
    """Let it look a few times: what it does not do has no event."""
    time.sleep(0.1 * count)
    assert server.process.poll() is None


def test_versions_come_and_go_under_traffic(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    first = make_tiny_bundle(repository)
    clips = clean_clips(tmp_path)
    with watched(repository) as server, Traffic(server.url, clips, pause_s=0.0) as traffic:
        make_tiny_bundle(repository)
        wait_for(server, lambda found: found == {"tiny": [2]})
        make_tiny_bundle(repository, name="other")
        wait_for(server, lambda found: found == {"tiny": [2], "other": [1]})
        remove(repository, first)  # Which is not served: nothing to do.
        third = make_tiny_bundle(repository)
        wait_for(server, lambda found: found["tiny"] == [3])
        # The only version that is served goes: what is there is served first, and the others hear nothing of it.
        remove(repository, third)
        wait_for(server, lambda found: found["tiny"] == [2])
        shutil.rmtree(repository / "other")
        wait_for(server, lambda found: found == {"tiny": [2]})
        # A model must be named while two bundles are served: 422 is that.
        assert set(traffic.statuses) <= {200, 422}, traffic.statuses
        assert traffic.statuses[200] > 0
        assert server.metric("dimml_bundle_loads_total", outcome="failed") == 0


def test_a_broken_version_is_told_once_counted_and_tried_again_when_it_changes(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    with watched(tmp_path) as server:
        staged = tmp_path.with_name("staged")
        shutil.copytree(tmp_path, staged)
        second = make_tiny_bundle(staged)
        model = second.model_file(staged, second.encoder_model("visual"))
        whole = model.read_bytes()
        model.write_bytes(np.random.default_rng(0).bytes(len(whole)))
        for spec in model_specs(second):
            (staged / spec.name / "2").rename(tmp_path / spec.name / "2")
        server.wait_for_metric("dimml_bundle_loads_total", 1, LIMIT_S, model="tiny", outcome="failed")
        looks(server)
        assert server.metric("dimml_bundle_loads_total", model="tiny", outcome="failed") == 1
        assert served(server) == {"tiny": [1]}
        told = [line for line in server.log_lines if "WARNING" in line]
        assert len(told) == 1
        assert "tiny_visual/2/model.onnx" in told[0]
        second.model_file(tmp_path, second.encoder_model("visual")).write_bytes(whole)
        wait_for(server, lambda found: found == {"tiny": [2]})
        # One that is served is not replaced under the requests' feet.
        second.model_file(tmp_path, second.encoder_model("audio")).write_bytes(whole)
        server.wait_for_log("export a new version", LIMIT_S)
        looks(server)
        assert server.log.count("export a new version") == 1
        assert served(server) == {"tiny": [2]}


def test_a_repository_that_is_away_changes_nothing(tmp_path: Path) -> None:
    repository, away = tmp_path / "repository", tmp_path / "away"
    make_tiny_bundle(repository)
    with watched(repository) as server:
        repository.rename(away)
        server.wait_for_log("cannot be used, all stays as it is", LIMIT_S)
        repository.mkdir()  # A mount point without its disc.
        looks(server)
        assert served(server) == {"tiny": [1]}
        repository.rmdir()
        away.rename(repository)
        server.wait_for_log("can be read again", LIMIT_S)
        make_tiny_bundle(repository)
        wait_for(server, lambda found: found == {"tiny": [2]})
        assert server.log.count("cannot be used") == 1


def test_shares_are_kept_when_a_version_comes_and_given_on_when_one_goes(tmp_path: Path) -> None:
    first, _ = make_tiny_bundle(tmp_path), make_tiny_bundle(tmp_path)
    with watched(tmp_path, splits="tiny=1:60/2:40") as server:
        make_tiny_bundle(tmp_path)
        wait_for(server, lambda found: found == {"tiny": [1, 2, 3]})
        url = f"{server.url}/v1/models/tiny/routing"
        assert httpx.get(url).json()["split"] == {"1": 60.0, "2": 40.0}
        remove(tmp_path, first)
        wait_for(server, lambda found: found == {"tiny": [2, 3]})
        assert httpx.get(url).json()["split"] == {"2": 100.0}


def test_bundles_that_are_not_asked_for_are_left_alone(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    with watched(tmp_path, models="tiny") as server:
        make_tiny_bundle(tmp_path, name="other")
        make_tiny_bundle(tmp_path)
        wait_for(server, lambda found: found == {"tiny": [2]})
        looks(server, 3)
        assert served(server) == {"tiny": [2]}
