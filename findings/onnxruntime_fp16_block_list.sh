#!/usr/bin/env bash
# onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6
#
# `convert_float_to_float16(model, node_block_list=[...])` of onnxruntime.transformers.float16 documents the list as "node names to
# leave as float32". Expected: two such nodes, one after the other, compute as before. Seen: the tensor between them is cast to
# float16 and back, so that what is too small or too large for float16 is lost, although every node of the graph is in the list and
# inputs and outputs are kept as float32. Removing each cast to float16 whose only reader casts back to float32 gives the old values.
#
# Output:
#   float32: [0.01 0.04], nodes ['Mul', 'Mul']
#   all nodes blocked: [0.         0.05960083], nodes ['Cast', 'Cast', 'Cast', 'Cast', 'Cast', 'Cast', 'Mul', 'Mul']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
ORT_DISABLE_TELEMETRY=1 "$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

value = helper.make_tensor_value_info
graph = helper.make_graph(
    [
        helper.make_node("Mul", ["x", "x"], ["power"], name="power"),
        helper.make_node("Mul", ["power", "million"], ["y"], name="scaled"),
    ],
    "powers",
    [value("x", TensorProto.FLOAT, [2])],
    [value("y", TensorProto.FLOAT, [2])],
    [numpy_helper.from_array(np.float32(1e6), "million")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(model):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.array([1e-4, 2e-4], np.float32)})[0], [node.op_type for node in model.graph.node]


before, nodes = run(model)
print(f"float32: {before}, nodes {sorted(nodes)}")
blocked = convert_float_to_float16(model, keep_io_types=True, node_block_list=["power", "scaled"])
after, nodes = run(blocked)
print(f"all nodes blocked: {after}, nodes {sorted(nodes)}")
sys.exit(0 if not np.allclose(before, after, rtol=1e-3) else "this has changed")
PY
