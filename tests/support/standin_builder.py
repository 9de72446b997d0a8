"""In the place of TensorRT, which needs a GPU: a builder whose plan is the very network it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from dimml_export.tensorrt.builder import Host, Profile, Run
from dimml_export.tensorrt.device import Device


class Standin:
    """A "plan" is the network's ONNX file, run by ONNX Runtime; all else of a builder is noted."""

    def __init__(
        self, tensorrt: str = "11.4.0.106", gpu: str = "Test GPU", capability: str = "8.9", off: float = 0.0
    ) -> None:
        self._host = Host(tensorrt, Device(gpu, capability))
        self.off = off
        self.built: list[tuple[Profile, int, bytes]] = []

    def host(self) -> Host:
        return self._host

    def build(
        self, model: bytes, profile: Profile, *, workspace_bytes: int, timing_cache: bytes
    ) -> tuple[bytes, bytes]:
        self.built.append((profile, workspace_bytes, timing_cache))
        return shifted(model, self.off), timing_cache + b"+"

    def runner(self, plan: bytes, tensor: str) -> Run:
        session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])

        def run(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            features, logits = session.run(["FEATURES", "LOGITS"], {tensor: rows})
            return features, logits

        return run


def shifted(model: bytes, by: float) -> bytes:
    """The model with ``by`` added to the first class's logit."""
    if by == 0.0:
        return model
    changed = onnx.load_from_string(model)
    for node in changed.graph.node:
        node.output[:] = ["unshifted" if name == "LOGITS" else name for name in node.output]
    classes = changed.graph.output[1].type.tensor_type.shape.dim[1].dim_value
    changed.graph.initializer.append(numpy_helper.from_array(np.eye(1, classes, dtype=np.float32) * by, "by"))
    changed.graph.node.append(helper.make_node("Add", ["unshifted", "by"], ["LOGITS"]))
    plan: bytes = changed.SerializeToString()
    return plan
