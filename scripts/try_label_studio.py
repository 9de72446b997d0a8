"""Take the samples through `dimml select`, a real Label Studio and `dimml read-labels`.

    python3 -m venv /tmp/label-studio && /tmp/label-studio/bin/pip install label-studio
    python scripts/try_label_studio.py /tmp/label-studio/bin/label-studio

Scores the samples with the demo bundle, starts Label Studio on loopback with SQLite in a temporary folder, imports the
tasks, labels each as samples/samples.csv does, exports and reads the labels. Exits 1 where what comes back is not what
was sent, or a label outside of the bundle's would be taken. Label Studio's analytics and version check are off.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parents[1]
SAMPLES: Final = ROOT / "samples"
BUDGET: Final = 10
#: Label Studio makes its database before it listens.
_START_S: Final = 240.0


def dimml(*words: str | Path, code: int = 0) -> str:
    """Run a command that is to end with ``code``; return its stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "dimml", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode != code:
        raise SystemExit(f"dimml {words[0]} ended with {done.returncode}, not {code}: {done.stderr}")
    return done.stderr


@contextmanager
def label_studio(program: Path, folder: Path) -> Iterator[httpx.Client]:
    """Run Label Studio until left; a client with its user's token."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    token, log = secrets.token_hex(20), folder / "label-studio.log"
    off = ("COLLECT_ANALYTICS", "LATEST_VERSION_CHECK")
    environment = {
        **os.environ,
        **dict.fromkeys(off, "false"),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(SAMPLES),
    }
    words = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    words += ["--username", "tester@example.com", "--password", secrets.token_hex(8), "--user-token", token]
    with log.open("wb") as output:
        process = subprocess.Popen([program, *words], env=environment, stdout=output, stderr=output, cwd=folder)
    try:
        headers = {"Authorization": f"Token {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60.0) as client:
            _wait(client, process, log)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            if client.get("/api/version").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(1.0)  # It gives no sign when it listens.
    raise SystemExit(f"Label Studio does not answer:\n{log.read_text(errors='replace')[-3000:]}")


def asked(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    """Call Label Studio's API; JSON, or the end of the script with what it says."""
    answer = client.request(method, path, json=body)
    if not answer.is_success:
        raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
    return answer.json() if answer.content else None


def labelled(client: httpx.Client, folder: Path, truth: Mapping[str, str]) -> list[dict[str, Any]]:
    """Import the tasks of a selection, label them, and export them."""
    interface = (folder / "interface.xml").read_text()
    project = asked(client, "POST", "/api/projects", {"title": "round", "label_config": interface})["id"]
    sent = json.loads((folder / "tasks.json").read_bytes())
    asked(client, "POST", f"/api/projects/{project}/import", sent)
    tasks = asked(client, "GET", f"/api/tasks?project={project}&page_size=100&fields=all")["tasks"]
    predictions = [one for task in tasks for one in task["predictions"]]
    print(f"imported: {len(tasks)} of {len(sent)} tasks, {len(predictions)} predictions")
    first = tasks[0]["data"]["media"]
    print(f"the first recording, {first}: {client.get(first).status_code}")
    for task in tasks:
        label = truth[Path(task["data"]["id"]).name]
        choice = {"from_name": "label", "to_name": "media", "type": "choices", "value": {"choices": [label]}}
        asked(client, "POST", f"/api/tasks/{task['id']}/annotations", {"result": [choice]})
    exported: list[dict[str, Any]] = asked(client, "GET", f"/api/projects/{project}/export?exportType=JSON")
    kinds = sorted({type(one).__name__ for task in exported for one in task["predictions"]})
    print(f"exported: {len(exported)} tasks; predictions as {', '.join(kinds)}")
    return exported


def main() -> int:
    """Run all, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("label_studio", type=Path, help="the program label-studio of an environment of its own")
    options = parser.parse_args()
    with (SAMPLES / "samples.csv").open() as file:
        truth = {row["file"]: row["label"] for row in csv.DictReader(file)}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        table, chosen, clips = folder / "scores.parquet", folder / "round", folder / "clips.csv"
        dimml(
            "score",
            SAMPLES / "*.mp4",
            "--repository",
            ROOT / "model_repository",
            "--out",
            table,
            "--quiet",
            "--fail-on",
            "never",
        )
        place: list[str | Path] = ["--media-url", "/data/local-files/?d=", "--root", SAMPLES]
        print(dimml("select", table, "--budget", str(BUDGET), "--out", chosen, *place), end="")
        with label_studio(options.label_studio, folder) as client:
            versions = asked(client, "GET", "/api/version")
            print(f"Label Studio {versions['release']}")
            exported = labelled(client, chosen, truth)
        export = folder / "export.json"
        export.write_text(json.dumps(exported))
        labels: list[str | Path] = ["read-labels", export, "--selection", chosen / "selection.json", "--out", clips]
        print(dimml(*labels), end="")
        with clips.open() as file:
            found = {Path(row["media"]).name: row["label"] for row in csv.DictReader(file)}
        right = len(found) == BUDGET and all(truth[name] == label for name, label in found.items())
        # A copy of the export in which somebody had a label that the bundle does not know.
        exported[0]["annotations"][0]["result"][0]["value"]["choices"] = ["eleven"]
        export.write_text(json.dumps(exported))
        print(dimml(*labels, code=1), end="")
    print("what comes back is what was sent" if right else "what comes back is NOT what was sent")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
