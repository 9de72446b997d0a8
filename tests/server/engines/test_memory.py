"""Memory of the local engine: what a large batch took is given back, what every request needs is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

#: Of one row, in the model below.
ROW_MB = 8

#: Prints the resident MB after the warm-up, after a batch of 32, and after one row.
PROGRAM = """
import asyncio, sys
from pathlib import Path
import numpy as np
from dimml.contract import ModelSpec, TensorSpec
from dimml_server.engines.ort_session import ModelSession

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 1000000

async def main():
    spec = ModelSpec(
        name="wide", role="encoder", modality="audio", max_batch_size=32,
        inputs=(TensorSpec("x", "FP32", (4,)),), outputs=(TensorSpec("y", "FP32", (4,)),),
    )
    keep = None if sys.argv[2] == "None" else int(sys.argv[2])
    session = ModelSession(
        Path(sys.argv[1]), spec, providers=["CPUExecutionProvider"], threads=1, concurrency=1, max_stray_runs=1,
        keep_rows=keep,
    )
    await session.warm_up()
    for rows in (0, 32, 1):
        if rows:
            (await session.run({"x": np.ones((rows, 4), np.float32)}))
        print(resident())
    session.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``y = x + mean of a convolution of x``, whose result has 2 million numbers a row."""
    channels = ROW_MB * 10**6 // 4 // 4
    path = tmp_path_factory.mktemp("wide") / "model.onnx"
    constants = [numpy_helper.from_array(np.ones((channels, 1, 3), np.float32), "weights")]
    for name, value in {"one": 1, "two": 2, "zero": 0, "four": 4}.items():
        constants.append(numpy_helper.from_array(np.array([value], np.int64), name))
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["x", "one"], ["row"]),
            helper.make_node("Conv", ["row", "weights"], ["wide"], pads=[1, 1], kernel_shape=[3]),
            helper.make_node("ReduceMean", ["wide", "two"], ["means"], keepdims=0),
            helper.make_node("Slice", ["means", "zero", "four", "one"], ["some"]),
            helper.make_node("Add", ["x", "some"], ["y"]),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 4])],
        constants,
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def resident_mb(model: Path, keep_rows: int | None) -> list[int]:
    words = [sys.executable, "-c", PROGRAM, str(model), str(keep_rows)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.splitlines()]


def test_a_batch_above_what_is_kept_gives_its_memory_back(wide_model: Path) -> None:
    warm, after, then = resident_mb(wide_model, 1)
    assert after - warm < 4 * ROW_MB
    assert then - warm < 4 * ROW_MB
    # Without it, it stays: otherwise this test would show nothing.
    warm, after, then = resident_mb(wide_model, None)
    assert after - warm > 24 * ROW_MB
    assert then - warm > 24 * ROW_MB


def test_what_batches_need_all_the_time_is_there_from_the_warm_up(wide_model: Path) -> None:
    small, *_ = resident_mb(wide_model, 1)
    warm, after, then = resident_mb(wide_model, 32)
    assert warm - small > 24 * ROW_MB
    assert abs(after - warm) < 4 * ROW_MB
    assert abs(then - warm) < 4 * ROW_MB
