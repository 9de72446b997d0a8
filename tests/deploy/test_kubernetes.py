"""Kubernetes manifests: schemas by kubernetes-validate and KServe's own classes, and that they fit each other."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from dimml import __version__
from dimml.system.outbound import SWITCHES
from dimml_server.settings.settings import ServerSettings
from support.data import REPOSITORY_ROOT
from support.manifests import KUBERNETES, documents, environment, objects, pod_specs
from support.side_packages import side_packages

KSERVE = ("kserve==0.21.0", "six==1.17.0")
CORE = [(folder, index) for folder in ("plain", "storage") for index in range(len(objects(folder)))]
PODS = dict(pod_specs())
#: What a pod has and a component of an InferenceService has of its own.
COMPONENT_FIELDS = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
SERVER = "1.32"


def validate(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, SERVER, strict=True)


@pytest.mark.parametrize(("folder", "index"), CORE)
def test_core_kinds_validate_strictly(folder: str, index: int) -> None:
    validate(objects(folder)[index])


def test_strict_means_that_a_slip_is_found() -> None:
    deployment = next(o for o in objects("plain") if o["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessprobe"):
        validate(deployment)


@pytest.mark.parametrize("name", PODS)
def test_every_pod_validates_and_is_confined(name: str) -> None:
    spec = {key: value for key, value in PODS[name].items() if key not in COMPONENT_FIELDS}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec})
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) >= {"cpu", "memory"}
        ports = {value for port in container["ports"] for value in (port["name"], port["containerPort"])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert next(m for m in container["volumeMounts"] if m["mountPath"] == "/models")["readOnly"] is True
        assert container["image"].endswith(f":{__version__}")


def test_probes_ask_for_what_is_there() -> None:
    docs = (REPOSITORY_ROOT / "docs" / "http_api.md").read_text()
    for name, spec in PODS.items():
        for container in spec["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                path = container[probe]["httpGet"]["path"]
                triton = "triton" in container["image"]
                assert path in ("/v2/health/ready", "/v2/health/live") if triton else path in docs, name


def test_the_grace_period_covers_what_the_gateway_takes() -> None:
    for name in ("dimml-gateway", "transformer"):
        spec = PODS[name]
        (container,) = spec["containers"]
        grace = next(float(e["value"]) for e in container["env"] if e["name"] == "DIMML_GRACE_S")
        hooks = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert grace + float(hooks[1]) < spec["terminationGracePeriodSeconds"]


def test_services_autoscaler_and_budgets_meet_the_pods() -> None:
    plain = objects("plain")
    deployments = {o["metadata"]["name"]: o for o in plain if o["kind"] == "Deployment"}
    labels = {name: o["spec"]["template"]["metadata"]["labels"] for name, o in deployments.items()}
    for o in plain:
        name = o["metadata"]["name"]
        if o["kind"] == "Deployment":
            assert o["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
        elif o["kind"] == "Service":
            assert o["spec"]["selector"].items() <= labels[name].items()
            (container,) = PODS[name]["containers"]
            ports = {port["name"] for port in container["ports"]}
            assert {port["targetPort"] for port in o["spec"]["ports"]} <= ports
        elif o["kind"] == "PodDisruptionBudget":
            assert o["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
        elif o["kind"] == "HorizontalPodAutoscaler":
            assert o["spec"]["scaleTargetRef"]["name"] in deployments
            assert "replicas" not in deployments[name]["spec"], "an apply would undo the autoscaler"
            (metric,) = o["spec"]["metrics"]
            metrics = (REPOSITORY_ROOT / "docs" / "metrics.md").read_text()
            assert f"| `{metric['pods']['metric']['name']}` | gauge |" in metrics
    kinds = [o["kind"] for o in plain]
    assert (kinds.count("PodDisruptionBudget"), kinds.count("HorizontalPodAutoscaler")) == (2, 1)


def test_the_gateway_finds_triton() -> None:
    urls = {value for name, value in environment() if name == "DIMML_TRITON_URL"}
    service = next(o for o in objects("plain") if o["kind"] == "Service" and "triton" in o["metadata"]["name"])
    ports = {port["port"] for port in service["spec"]["ports"]}
    (inference,) = objects("kserve")
    predictor = {port["containerPort"] for port in PODS["predictor"]["containers"][0]["ports"]}
    known = {f"{service['metadata']['name']}:{port}" for port in ports}
    known |= {f"{inference['metadata']['name']}-predictor:{port}" for port in predictor}
    assert urls == {"triton:8001", "dimml-triton:8001", "dimml-predictor:8001"}
    assert urls - {"triton:8001"} <= known


def test_every_setting_that_is_set_exists_and_has_a_value_of_its_kind() -> None:
    given = dict(environment())
    assert "DIMML_ENGINE" in given
    switches = {switch.variable for switch in SWITCHES}
    for name, value in environment():
        if name in switches:
            continue
        setting = name.removeprefix("DIMML_").lower()
        assert setting in ServerSettings.model_fields, name
        ServerSettings(**{setting: value})


def test_onnx_runtime_sends_nothing_from_any_container() -> None:
    (switch,) = (one for one in SWITCHES if "onnxruntime" in one.packages)
    for name, spec in PODS.items():
        for container in spec["containers"]:
            given = {entry["name"]: entry["value"] for entry in container["env"]}
            assert switch.stopped_by(given), name


def kserve_problems(document: dict[str, Any]) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "kserve_check.py"), str(side_packages(*KSERVE))],
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_inference_service_is_one_by_kserves_own_classes() -> None:
    (service,) = objects("kserve")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert kserve_problems(service) == []
    slips = copy.deepcopy(service)
    slips["spec"]["transformer"]["minReplica"] = 2
    slips["spec"]["predictor"]["maxReplicas"] = "four"
    slips["spec"]["transfomer"] = {}
    found = "\n".join(kserve_problems(slips))
    for part in ("transformer.minReplica: no such", "maxReplicas: 'four' is no int", ".transfomer: no such"):
        assert part in found
    del service["spec"]["predictor"]
    assert "predictor" in "\n".join(kserve_problems(service))


def test_kserves_own_arguments_do_not_reach_the_gateway() -> None:
    (container,) = PODS["transformer"]["containers"]
    command = [*container["command"], *container["args"], "--model_name", "dimml", "--http_port", "8080"]
    script = command[2].replace("dimml serve", 'printf "%s|" dimml serve')
    said = subprocess.run([*command[:2], script, *command[3:]], capture_output=True, text=True, check=True)
    assert said.stdout == "dimml|serve|"


@pytest.mark.parametrize("folder", ["storage", "plain", "kserve", "gpu"])
def test_kustomizations_name_what_is_there(folder: str) -> None:
    (kustomization,) = documents(KUBERNETES / folder / "kustomization.yaml")
    files = {path.name for path in (KUBERNETES / folder).glob("*.yaml")} - {"kustomization.yaml"}
    assert {name for name in kustomization["resources"] if not name.startswith("..")} == files
    for name in kustomization["resources"]:
        assert (KUBERNETES / folder / name).exists()
    # kubectl is on no list of what CI must have; where it is, it builds them.
    if kubectl := shutil.which("kubectl"):
        built = subprocess.run(
            [kubectl, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, check=False, timeout=60
        )
        assert built.returncode == 0, built.stderr
        assert "kind: PersistentVolumeClaim" in built.stdout
        assert ('nvidia.com/gpu: "1"' in built.stdout) == (folder == "gpu")
