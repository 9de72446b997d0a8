"""Latency of one request on an idle server against the same decode and ONNX Runtime calls in a plain script.

Both are measured in one run, interleaved clip by clip, and compared by medians; the server's share is all that is
not decoding and running the models: HTTP, the permit, the hand-over to a decode worker, fusion's bookkeeping.

    python benchmarks/latency.py --repository REPOSITORY --bundle grid_digit --clips ../shared/data/grid_s1/clips

The plain script decodes in its own process, runs the encoders in parallel threads with the same session options as
the server, then the fusion graph.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness.load import exchange, http_request

from dimml.bundle import Bundle
from dimml.contract import FEATURES, LOGITS, PRESENT, features_input, logits_input
from dimml.media import decode
from dimml.media.types import DecodeRequest
from dimml.repository import load_bundle
from dimml.system.outbound import import_quietly


class PlainScript:
    """What one would write by hand for one bundle: decode, encoders in parallel, fusion."""

    def __init__(self, repository: Path, bundle: Bundle, intra_op_threads: int) -> None:
        ort = import_quietly("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.bundle = bundle
        names = [bundle.encoder_model(m.name) for m in bundle.modalities]
        self.encoders = [ort.InferenceSession(bundle.model_file(repository, name), options) for name in names]
        self.fusion = ort.InferenceSession(bundle.model_file(repository, bundle.fusion_model), options)
        self.threads = ThreadPoolExecutor(len(names))
        self.decode_ms: list[float] = []

    def predict(self, data: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        modalities = self.bundle.modalities
        began = time.perf_counter()
        decoded = decode(
            DecodeRequest(
                modalities=modalities,
                sources=dict.fromkeys((m.name for m in modalities), data),
                clip_s=self.bundle.clip_s,
            )
        )
        self.decode_ms.append(1000 * (time.perf_counter() - began))
        rows = [decoded.tracks[m.name].row for m in modalities]
        jobs = [
            self.threads.submit(session.run, [FEATURES, LOGITS], {m.tensor: row[None]})
            for session, m, row in zip(self.encoders, modalities, rows, strict=True)
        ]
        feeds: dict[str, Any] = {PRESENT: np.ones((1, len(modalities)), np.bool_)}
        for job, modality in zip(jobs, modalities, strict=True):
            feeds[features_input(modality.name)], feeds[logits_input(modality.name)] = job.result()
        probabilities: np.ndarray[Any, np.dtype[np.float32]] = self.fusion.run(["PROBABILITIES"], feeds)[0]
        return probabilities


def start_server(repository: Path, bundle: str) -> tuple[subprocess.Popen[str], str]:
    command = [
        sys.executable,
        "-m",
        "dimml",
        "serve",
        "--repository",
        str(repository),
        "--model",
        bundle,
        "--http-port",
        "0",
        "--grpc-port",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"ready http=(\S+)", line):
            return process, match[1]
    raise SystemExit("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--clips", type=Path, required=True, help="folder of .mp4 files")
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()

    bundle = load_bundle(arguments.repository, arguments.bundle)
    threads = max(1, len(os.sched_getaffinity(0)) // len(bundle.encoders))
    plain = PlainScript(arguments.repository, bundle, threads)
    clips = [path.read_bytes() for path in sorted(arguments.clips.glob("*.mp4"))[:50]]
    server, address = start_server(arguments.repository, arguments.bundle)
    try:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds: dict[str, list[float]] = {"plain": [], "server": []}
        stages: dict[str, list[float]] = {}
        for request in range(-20, arguments.requests):
            data = clips[request % len(clips)]
            whole = http_request(data, bundle.classes)
            began = time.perf_counter()
            wanted = plain.predict(data)
            middle = time.perf_counter()
            body = exchange(connection, whole)
            end = time.perf_counter()
            answer = json.loads(body)
            assert answer["label"] == bundle.labels[int(wanted[0].argmax())], answer
            if request >= 0:
                seconds["plain"].append(middle - began)
                seconds["server"].append(end - middle)
                for stage, value in answer["timings_ms"].items():
                    stages.setdefault(stage, []).append(value)
    finally:
        connection.close()
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name:7} median {medians[name]:7.2f} ms   p90 {1000 * statistics.quantiles(values, n=10)[-1]:7.2f} ms")
    print(f"plain decoding, median ms: {statistics.median(plain.decode_ms[20:]):.2f}")
    print("server's own stages, median ms:", {k: round(statistics.median(v), 2) for k, v in stages.items()})
    print(f"ratio server / plain, of medians: {medians['server'] / medians['plain']:.3f}")


if __name__ == "__main__":
    main()
