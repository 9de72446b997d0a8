"""Servers of one bundle that can be measured side by side: ``dimml serve``, and peers in environments of their own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer_servers.pipeline import BUNDLE, DECODER, REPOSITORY, STALL

from dimml.bundle import Bundle
from dimml.contract import MEDIA, PROBABILITIES
from harness.environments import clean_environment, environment, pins
from harness.load import http_request, raw_request
from harness.report import ROOT
from harness.triton_ensemble import write_recording_ensemble

BENCHMARKS = ROOT / "benchmarks"
#: dimml's decoder and manifest, at the versions that dimml is tested with.
CORE = ("av", "numpy", "onnxruntime", "opencv-python-headless", "pi_heif", "pillow", "soundfile", "soxr")
CORE_LOOSE = ("pydantic", "rich", "typer")
#: What a peer's own documentation starts with. torchcodec 0.12.0 is the newest that loads beside a CPU build of torch
#: 2.13.0: later ones need CUDA's libraries.
PEERS = {
    "fastapi": ("fastapi", "uvicorn[standard]", "python-multipart"),
    "litserve": ("litserve==0.2.19", "python-multipart"),
    "bentoml": ("bentoml==1.4.40", "python-multipart"),
}
PINNED = {"fastapi": ("fastapi", "uvicorn", "python-multipart", "starlette", "uvloop", "httptools")}
TORCHCODEC = ("torchcodec==0.12.0", "torch==2.13.0")
ENSEMBLE = "peer_ensemble"


@dataclass(frozen=True)
class Contender:
    """A way of serving the bundle; ``decoder`` as in ``peer_servers.pipeline``."""

    name: str
    decoder: str
    command: Callable[[int], Sequence[str]]
    environment: Mapping[str, str]
    request: Callable[[bytes], bytes]
    label: Callable[[bytes], str]


def _label(body: bytes) -> str:
    label: str = json.loads(body)["label"]
    return label


@dataclass(frozen=True)
class Job:
    """What a contender is to serve, and how."""

    repository: Path
    bundle: Bundle
    #: As in ``peer_servers.pipeline``; of peers only.
    decoder: str
    #: Modality whose encoder stalls, or empty; and dimml's deadline for it.
    stall: str
    deadline_ms: float
    #: Folder of the peers' environments, and one for what is written for this run.
    home: Path
    scratch: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a peer's process. As its documentation teaches it, it has its libraries' own numbers of threads."""
        found = clean_environment() | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "core"), str(BENCHMARKS)]),
            "BENTOML_DO_NOT_TRACK": "True",
            REPOSITORY: str(self.repository.resolve()),
            BUNDLE: self.bundle.name,
            DECODER: self.decoder,
            STALL: self.stall,
        }
        return found | {"OMP_NUM_THREADS": "1"} if self.decoder == "dimml" else found

    def python(self, kind: str) -> str:
        """Of the environment of a kind of peer. Raises RuntimeError if it cannot be installed."""
        constraints = pins(ROOT / "constraints.txt", [*(name.lower() for name in CORE), *PINNED.get(kind, ())])
        wanted, name = [*PEERS[kind], *CORE, *CORE_LOOSE], kind
        if self.decoder == "torchcodec":
            wanted, name = [*wanted, *TORCHCODEC], f"{kind}-torchcodec"
        return str(environment(self.home, name, wanted, constraints))


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DIMML_")}


def dimml(job: Job) -> Contender:
    """``dimml serve`` as this Python has it; where an encoder stalls, with a deadline for it."""
    script, words = ["-m", "dimml"], ["--repository", str(job.repository), "--model", job.bundle.name]
    variables = _own_environment()
    if job.stall:
        script = [str(BENCHMARKS / "peer_servers" / "dimml_stalled.py")]
        words += ["--set", f"deadlines_ms={job.stall}={job.deadline_ms:g}"]
        path = [str(BENCHMARKS), *filter(None, [variables.get("PYTHONPATH")])]
        variables |= {"PYTHONPATH": os.pathsep.join(path), STALL: job.stall}
    command = [sys.executable, *script, "serve", *words, "--grpc-port", "0", "--log-level", "warning", "--http-port"]
    return Contender("dimml serve", "dimml", lambda port: [*command, str(port)], variables, http_request, _label)


def fastapi(job: Job, workers: int) -> Contender:
    """FastAPI and uvicorn, with as many processes as ``workers``."""
    command = [job.python("fastapi"), "-m", "uvicorn", "peer_servers.fastapi_app:app", "--log-level", "warning"]
    command += ["--workers", str(workers), "--port"]
    name = f"FastAPI, {workers} {'process' if workers == 1 else 'processes'}"
    return Contender(name, job.decoder, lambda port: [*command, str(port)], job.environment, http_request, _label)


def litserve(job: Job, workers: int) -> Contender:
    """LitServe, with as many inference workers as ``workers``."""
    command = [job.python("litserve"), "-m", "peer_servers.litserve_app", str(workers)]
    name = f"LitServe, {workers} workers"
    return Contender(name, job.decoder, lambda port: [*command, str(port)], job.environment, http_request, _label)


def bentoml(job: Job, workers: int) -> Contender:
    """BentoML, with as many processes as ``workers``."""
    command = [job.python("bentoml"), "-m", "bentoml", "serve", "peer_servers.bentoml_service:Recordings"]
    command += ["--working-dir", str(BENCHMARKS), "--host", "127.0.0.1", "--port"]
    variables = job.environment | {"PEER_WORKERS": str(workers)}
    name = f"BentoML, {workers} workers"
    return Contender(name, job.decoder, lambda port: [*command, str(port)], variables, http_request, _label)


def triton(job: Job, workers: int) -> Contender:
    """Triton from pip with a classic ensemble: decoding in its Python backend, the encoders, the fusion."""
    folder = job.scratch / f"triton-{job.decoder}-{job.stall or 'sound'}"
    write_recording_ensemble(
        folder,
        job.repository,
        job.bundle,
        name=ENSEMBLE,
        decoder=job.decoder,
        stall=job.stall,
        instances=workers,
    )
    command = [sys.executable, "-m", "dimml", "triton", "--repository", str(folder)]
    command += ["--grpc-port", "0", "--metrics-port", "0", "--http-port"]

    def request(data: bytes) -> bytes:
        raw = len(data).to_bytes(4, "little") + data  # BYTES of KServe v2: each element after its length.
        media = {"name": MEDIA, "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [media], "outputs": [{"name": PROBABILITIES}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        return raw_request(f"/v2/models/{ENSEMBLE}/infer", head + raw, headers)

    def label(body: bytes) -> str:
        probabilities = json.loads(body)["outputs"][0]["data"]
        return job.bundle.labels[max(range(len(probabilities)), key=probabilities.__getitem__)]

    name = "Triton, classic ensemble"
    return Contender(name, job.decoder, lambda port: [*command, str(port)], _own_environment(), request, label)
