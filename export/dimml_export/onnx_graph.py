"""Construction of ONNX graphs without torch: nodes, constants, and a checked model with the contract's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from dimml.contract import NUMPY_TYPES, Datatype, ModelSpec, TensorSpec

#: ONNX versions of every file of a bundle: supported by ONNX Runtime since 1.14 and TensorRT since 8.6.
OPSET: Final = 18
IR_VERSION: Final = 8


class Graph:
    """A graph under construction; every value is identified by the name that ``add`` returns."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: npt.NDArray[Any] | np.generic) -> str:
        """Add an initialiser of the value's own type; return its name."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def number(self, value: float) -> str:
        """Add a scalar FP32 constant; return its name."""
        return self.constant(np.float32(value))

    def axes(self, *axes: int) -> str:
        """Add axes, or indices, as the one-dimensional INT64 constant that operators expect; return its name."""
        return self.constant(np.array(axes, np.int64))

    def add(self, op: str, *inputs: str, out: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        """Append a node; return the name of its first output."""
        index = len(self.nodes)
        names = [out or f"{op.lower()}{index}", *(f"{op.lower()}{index}_{extra}" for extra in range(1, outputs))]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{index}", **attributes))
        return names[0]

    def concat(self, values: Sequence[str], *, axis: int) -> str:
        """Append the concatenation of some values, where there is more than one; return its name."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, axis=axis)

    def split(self, values: str, sizes: Sequence[int], *, axis: int) -> list[str]:
        """Append a split into parts of these sizes, where there is more than one; return their names."""
        if len(sizes) == 1:
            return [values]
        first = self.add("Split", values, self.axes(*sizes), outputs=len(sizes), axis=axis)
        return [first, *(f"{first}_{part}" for part in range(1, len(sizes)))]


def element_type(datatype: Datatype) -> int:
    """Return ONNX's number for a datatype of the contract."""
    return helper.np_dtype_to_tensor_dtype(NUMPY_TYPES[datatype])


def finished_model(
    nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto], spec: ModelSpec
) -> onnx.ModelProto:
    """Build and check a model with the inputs and outputs of ``spec`` and a free first dimension, without torch."""
    graph = helper.make_graph(
        list(nodes),
        spec.name,
        [_value_info(tensor) for tensor in spec.inputs],
        [_value_info(tensor) for tensor in spec.outputs],
        list(initializers),
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dimml"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _value_info(tensor: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, element_type(tensor.datatype), ["batch", *tensor.dims])
