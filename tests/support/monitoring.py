"""What is deployed for monitoring: rules, dashboard, and a real Prometheus on a short copy of the rules."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from support.data import unavailable
from support.manifests import DEPLOY, documents
from support.waiting import wait_until

RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
DASHBOARD = DEPLOY / "grafana" / "provisioning" / "dashboards" / "dimml.json"
#: A duration of PromQL or of ``for``; not the one in a recorded name, which no word boundary precedes.
_DURATION = re.compile(r"(?<![\w:])(\d+)(s|m|h|d)\b")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_START_LIMIT_S = 60.0


def program(name: str) -> str:
    """A program of Debian's package prometheus; skips where it is not installed."""
    found = shutil.which(name)
    if found is None:
        unavailable(f"{name} is not installed (Debian package prometheus)")
    return str(found)


def rules() -> list[dict[str, Any]]:
    """Every rule, recording and alerting."""
    return [rule for path in RULES for group in documents(path)[0]["groups"] for rule in group["rules"]]


def queries() -> dict[str, str]:
    """The dashboard's queries by a name to recognise each by, for all bundles and versions."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    found |= {f"annotation {entry['name']}": entry["expr"] for entry in dashboard["annotations"]["list"]}
    return {name: re.sub(r"\$\w+", ".*", query) for name, query in found.items()}


def shortened(text: str, divide_by: float) -> str:
    """Rules or a query with every duration so much shorter, at least 1 s: in seconds."""
    return _DURATION.sub(lambda m: f"{max(1, round(int(m[1]) * _SECONDS[m[2]] / divide_by))}s", text)


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that scrapes and evaluates every second."""

    url: str

    def query(self, query: str) -> list[dict[str, Any]]:
        """What it answers now; raises where it takes the query for wrong."""
        return self._get("query", query=query)["result"]  # type: ignore[no-any-return]  # its JSON

    def query_range(self, query: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The same, over a time."""
        given = {"query": query, "start": f"{start}", "end": f"{end}", "step": f"{step}"}
        return self._get("query_range", **given)["result"]  # type: ignore[no-any-return]  # its JSON

    def firing(self) -> set[tuple[str, str]]:
        """Name and modality ('' where it is about none) of the alerts that fire."""
        series = self.query('ALERTS{alertstate="firing"}')
        return {(s["metric"]["alertname"], s["metric"].get("modality", "")) for s in series}

    def _get(self, call: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{call}", params=parameters, timeout=30.0)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]


@contextmanager
def running_prometheus(folder: Path, target: str, *, divide_by: float) -> Iterator[Prometheus]:
    """A real Prometheus on loopback that scrapes ``target`` as job ``dimml`` once a second, with a copy of the deployed
    rules whose windows are ``divide_by`` times shorter."""
    executable = program("prometheus")
    (folder / "rules").mkdir(parents=True)
    for path in RULES:
        (folder / "rules" / path.name).write_text(shortened(path.read_text(), divide_by))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules/*.yml"],
        "scrape_configs": [{"job_name": "dimml", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                executable,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            said = (folder / "log").read_text
            wait_until(lambda: process.poll() is not None or _ready(address), _START_LIMIT_S, said)
            assert process.poll() is None, said()
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            try:
                process.wait(30.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready", timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False
