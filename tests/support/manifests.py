"""Reading the files of ``deploy/``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from support.data import REPOSITORY_ROOT

DEPLOY = REPOSITORY_ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def documents(path: Path) -> list[dict[str, Any]]:
    """All YAML documents of one file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def objects(folder: str) -> list[dict[str, Any]]:
    """All Kubernetes objects of a variant, without its kustomization and what that includes from elsewhere."""
    files = sorted(path for path in (KUBERNETES / folder).glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for path in files for document in documents(path)]


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that is described anywhere, by a name to recognise it by."""
    for given in objects("plain"):
        if given["kind"] == "Deployment":
            yield given["metadata"]["name"], given["spec"]["template"]["spec"]
    (service,) = objects("kserve")
    for component in ("transformer", "predictor"):
        yield component, service["spec"][component]


def environment() -> Iterator[tuple[str, str]]:
    """Every environment variable that any file sets for a container of ours."""
    for _, spec in pod_specs():
        for container in spec["containers"]:
            yield from ((entry["name"], entry["value"]) for entry in container.get("env", []))
    for service in documents(DEPLOY / "compose.yaml")[0]["services"].values():
        yield from service.get("environment", {}).items()
