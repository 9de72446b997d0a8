"""What loading a version, or a shadow, costs the requests of another: p50 and p99 with it and without.

    python benchmarks/load_under_traffic.py
    python benchmarks/load_under_traffic.py --encoder-mib 0 --rounds 20

It starts `dimml serve` with two versions of the demo bundle, whose encoders are given some 40 MiB more weights each, as
a ResNet-18 has, and sends steady traffic that names no version: recordings to `POST /v1/predict`, tensors over gRPC.
Windows take turns: in one nothing else happens, in one version 2 is loaded beside version 1 and unloaded again without
a pause, in one version 2 is the shadow. A request's time runs from when it was due, so that one which had to wait for
the one before counts. Loading is shown at its worst: in service it is over in a second or so, and then comes none
for days.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from engines import Ask, Grpc, command, rows

from dimml.bundle import MANIFEST_NAME, Bundle, FileRecord, file_sha256
from dimml.contract import FEATURES, model_specs
from dimml.repository import load_bundle

SAMPLE = "clean_five.mp4"
KINDS = ("quiet", "loading", "shadow")
WIDTH = 512
BRANCH_MIB = WIDTH * WIDTH * 4 / 2**20


def heavier(path: Path, mib: int) -> None:
    """Give an encoder's graph a branch of 1x1 convolutions whose result is multiplied by 0 into the features."""
    model = onnx.load(path)
    graph, rng = model.graph, np.random.default_rng(0)
    count = round(mib / BRANCH_MIB)
    if not count:
        return
    for node in graph.node:
        node.output[:] = ["own_features" if name == FEATURES else name for name in node.output]
        node.input[:] = ["own_features" if name == FEATURES else name for name in node.input]

    def constant(name: str, value: Any, dtype: Any = np.float32) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    # From the features, so that nothing can be computed when the session is made.
    mean = helper.make_node("ReduceMean", ["own_features", constant("m_axes", [1], np.int64)], ["m0"], keepdims=1)
    spread = helper.make_node("Mul", ["m0", constant("m_ones", np.ones((1, WIDTH)))], ["m1"])
    shape = constant("m_shape", [-1, WIDTH, 1, 1], np.int64)
    nodes, last = [mean, spread, helper.make_node("Reshape", ["m1", shape], ["b0"])], "b0"
    for number in range(count):
        weight = constant(f"w{number}", rng.standard_normal((WIDTH, WIDTH, 1, 1)) / WIDTH)
        nodes.append(helper.make_node("Conv", [last, weight], [f"b{number + 1}"]))
        last = f"b{number + 1}"
    axes = constant("b_axes", [1, 2, 3], np.int64)
    nodes.append(helper.make_node("ReduceMean", [last, axes], ["b_mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["b_mean", constant("b_zero", 0.0)], ["b_nothing"]))
    nodes.append(helper.make_node("Unsqueeze", ["b_nothing", constant("b_one", [1], np.int64)], ["b_column"]))
    nodes.append(helper.make_node("Add", ["own_features", "b_column"], [FEATURES]))
    # Whoever used the features still uses those of before; order in the graph is by use.
    graph.node.extend(nodes)
    onnx.save(model, path)


def two_versions(source: Path, target: Path, mib: int) -> Bundle:
    """The demo bundle as versions 1 and 2, with heavier encoders; version 1."""
    bundle = load_bundle(source, "avdigits")
    for spec in model_specs(bundle):
        shutil.copytree(source / spec.name, target / spec.name, ignore=shutil.ignore_patterns("__pycache__"))
    for encoder in bundle.encoders:
        heavier(bundle.model_file(target, bundle.encoder_model(encoder.modality.name)), mib)
    made = []
    for version in (1, 2):
        if version == 2:
            for spec in model_specs(bundle):
                shutil.copytree(target / spec.name / "1", target / spec.name / "2")
        files = {}
        for relative in bundle.files:
            model, _, rest = relative.split("/", 2)
            path = target / model / str(version) / rest
            files[path.relative_to(target).as_posix()] = FileRecord(sha256=file_sha256(path), bytes=path.stat().st_size)
        made.append(bundle.model_copy(update={"version": version, "files": files, "plans": {}}))
        (target / bundle.name / str(version) / MANIFEST_NAME).write_text(made[-1].model_dump_json())
    return made[0]


class Traffic:
    """Requests at a steady rate, each timed from when it was due."""

    def __init__(self, ask: Ask, right: int, per_s: float) -> None:
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.wrong = 0
        self._ask, self._right, self._pause_s = ask, right, 1.0 / per_s

    async def window(self, kind: str, seconds: float) -> None:
        began, running = perf_counter(), set()
        for number in range(int(seconds / self._pause_s)):
            due = began + number * self._pause_s
            await asyncio.sleep(max(0.0, due - perf_counter()))
            running.add(asyncio.create_task(self._one(kind, due)))
        await asyncio.gather(*running)

    async def _one(self, kind: str, due: float) -> None:
        try:
            self.wrong += await self._ask() != self._right
        except Exception as error:
            print(f"failed: {error!r}")
            self.wrong += 1
        self.seconds[kind].append(perf_counter() - due)


async def measure(bundle: Bundle, server: dict[str, str], clip: bytes, arguments: argparse.Namespace) -> None:
    async with httpx.AsyncClient(base_url=f"http://{server['http']}", timeout=60) as http:

        async def recording() -> int:
            answer = (await http.post("/v1/predict", files={"media": clip}, data={"timeout_ms": "30000"})).json()
            return -1 if answer["degraded"] else bundle.labels.index(answer["label"])

        async def load(versions: list[int]) -> None:
            config = json.dumps({"version_policy": {"specific": {"versions": versions}}})
            url = f"/v2/repository/models/{bundle.name}/load"
            answer = await http.post(url, json={"parameters": {"config": config}})
            assert answer.status_code == 200, answer.text

        async def route(**changes: object) -> None:
            answer = await http.patch(f"/v1/models/{bundle.name}/routing", json=changes)
            assert answer.status_code == 200, answer.text

        await load([1])
        await route(split={"1": 100})
        # What version 1 says is right; the server is to say it throughout (the versions are the same).
        asks = {
            "recordings, HTTP": recording,
            "tensors, gRPC": Grpc(server["grpc"]).one_call(bundle.name, rows(bundle)),
        }
        streams = {name: Traffic(ask, await ask(), arguments.per_s) for name, ask in asks.items()}
        loads: list[float] = []

        async def loading(until: float) -> None:
            while perf_counter() < until:
                began = perf_counter()
                await load([1, 2])
                loads.append(perf_counter() - began)
                await load([1])

        for _ in range(arguments.rounds):
            for kind in KINDS:
                if kind == "shadow":
                    await load([1, 2])
                    await route(shadow=2)
                work = [stream.window(kind, arguments.window_s) for stream in streams.values()]
                if kind == "loading":
                    work.append(loading(perf_counter() + arguments.window_s - 0.5))
                await asyncio.gather(*work)
                if kind == "shadow":
                    await route(shadow=None)
                    await load([1])
        wrong = sum(stream.wrong for stream in streams.values())
        print(f"{len(loads)} loads, {np.median(loads):.2f} s each; wrong or failed: {wrong}")
        print("\n| requests | of each | | p50 | p99 | longest |\n|---|---|---|---|---|---|")
        for name, stream in streams.items():
            for kind, seconds in stream.seconds.items():
                p50, p99 = (1000 * float(np.quantile(seconds, q)) for q in (0.5, 0.99))
                print(
                    f"| {name} | {len(seconds)} | {kind} | {p50:.1f} ms | {p99:.1f} ms | {1000 * max(seconds):.0f} ms |"
                )
            for kind in KINDS[1:]:
                one, other = (stream.seconds[k] for k in (kind, "quiet"))
                ratios = [f"{np.quantile(one, q) / np.quantile(other, q):.2f}" for q in (0.5, 0.99)]
                print(f"| | | {kind} / quiet | {' | '.join(ratios)} | |")
        counted = [
            line for line in (await http.get("/metrics")).text.splitlines() if "dimml_shadow_requests_total{" in line
        ]
        print("\n" + "\n".join(counted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--clip", type=Path, default=None, help="a recording; by default one of the samples")
    parser.add_argument("--encoder-mib", type=int, default=40, help="weights added to each encoder")
    parser.add_argument("--rounds", type=int, default=8, help="of one window of each kind")
    parser.add_argument("--window-s", type=float, default=3.0)
    parser.add_argument("--per-s", type=float, default=5.0, help="requests a second of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        repository = Path(folder) / "models"
        bundle = two_versions(arguments.repository, repository, arguments.encoder_mib)
        clip = arguments.clip or Path(__file__).parents[1] / "samples" / SAMPLE
        words = ["--repository", str(repository), "--set", "model_control=explicit", "--log-level", "warning"]
        server = stack.enter_context(command("serve", *words))
        print(f"{bundle.name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.platform()}")
        asyncio.run(measure(bundle, server, clip.read_bytes(), arguments))
        print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
