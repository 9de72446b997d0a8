"""The compose file and what it mounts: Prometheus's configuration and Grafana's provisioning."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import compose_spec
import pytest

from dimml import __version__
from dimml.system.outbound import SWITCHES
from support.data import REPOSITORY_ROOT, unavailable
from support.manifests import DEPLOY, documents

COMPOSE = DEPLOY / "compose.yaml"


@pytest.fixture
def services() -> dict[str, Any]:
    (document,) = documents(COMPOSE)
    found: dict[str, Any] = document["services"]
    return found


def test_it_is_a_compose_file_and_a_slip_would_be_found() -> None:
    # As Compose itself does before it reads the file.
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    compose = compose_spec.PyCompose.from_yaml(text)
    compose.validate()
    assert sorted(compose.service_names()) == ["gateway", "grafana", "prometheus", "triton"]
    with pytest.raises(ValueError, match="healthy"):
        compose_spec.PyCompose.from_yaml(text.replace("condition: service_healthy", "condition: healthy"))
    with pytest.raises(ValueError, match="shm_sizes"):
        compose_spec.PyCompose.from_yaml(text.replace("shm_size:", "shm_sizes:"))


def test_images_are_pinned_and_ours_are_built_from_targets_that_exist(services: dict[str, Any]) -> None:
    dockerfile = (REPOSITORY_ROOT / "Dockerfile").read_text()
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert tag[0].isdigit() or tag[0] == "v"
        if build := service.get("build"):
            assert tag == __version__
            assert (COMPOSE.parent / build["context"] / "Dockerfile").samefile(REPOSITORY_ROOT / "Dockerfile")
            assert f" AS {build['target']}\n" in dockerfile
        assert service["cap_drop"] == ["ALL"], name
        assert "mem_limit" in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "open to the network"


def test_onnx_runtime_sends_nothing_from_any_container_of_ours(services: dict[str, Any]) -> None:
    (switch,) = (one for one in SWITCHES if "onnxruntime" in one.packages)
    ours = {name: service for name, service in services.items() if "build" in service}
    assert set(ours) == {"gateway", "triton"}
    for name, service in ours.items():
        assert switch.stopped_by(service["environment"]), name


def test_what_is_mounted_is_there(services: dict[str, Any]) -> None:
    named = documents(COMPOSE)[0]["volumes"]
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.rsplit(":", 2)[0] if volume.endswith(":ro") else volume.split(":")[0]
            source = source.removeprefix("${DIMML_MODELS:-").removesuffix("}")
            assert (COMPOSE.parent / source).exists() if "/" in source else source in named, source


def test_prometheus_scrapes_the_services_by_ports_they_have(services: dict[str, Any]) -> None:
    (config,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
    ports = {"gateway": "8000", "triton": "8002"}
    targets = [t for job in config["scrape_configs"] for entry in job["static_configs"] for t in entry["targets"]]
    assert sorted(targets) == [f"{name}:{port}" for name, port in ports.items()]
    assert "8002" in services["triton"]["expose"]
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool is not installed (Debian package prometheus)")
    checked = subprocess.run(
        [str(promtool), "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_grafana_reads_that_prometheus(services: dict[str, Any]) -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (given,) = documents(provisioning / "datasources" / "prometheus.yaml")
    (source,) = given["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert "prometheus" in services
    (dashboards,) = documents(provisioning / "dashboards" / "dashboards.yaml")
    (provider,) = dashboards["providers"]
    mount = next(v for v in services["grafana"]["volumes"] if v.startswith("./grafana"))
    assert provider["options"]["path"].startswith(mount.split(":")[1])
