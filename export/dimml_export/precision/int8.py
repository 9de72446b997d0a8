"""An encoder's body in int8: ONNX Runtime's static QDQ, activations unsigned, weights signed and per channel.

Unsigned activations with signed weights are what the VNNI and AMX kernels of x86 multiply. Ranges are the least and
largest values over the calibration clips (MinMax): the other calibrators of ONNX Runtime stack whole activations and
raise where the last batch is smaller.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from dimml.errors import BundleError
from dimml_export.onnx_graph import IR_VERSION
from dimml_export.precision.body import WEIGHTED, body_nodes, named
from dimml_export.precision.ort_tools import import_tool

#: Rows of one run of the calibration.
CALIBRATION_BATCH: Final = 8
#: Quantised beside the layers with weights; ``_between_quantised`` says which additions.
_FOLLOWERS: Final = frozenset({"Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"})
_WITH_WEIGHTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


class Int8Encoder:
    """One encoder, calibrated once, and quantised with any of its layers left in FP32."""

    def __init__(self, model: onnx.ModelProto, clips: npt.NDArray[Any]) -> None:
        """Calibrate on ``clips`` ``[N, *shape]``. Raises BundleError where the graph has nothing to quantise."""
        # Activations have types in value_info only after inference, and without a type none is quantised.
        self._model = onnx.shape_inference.infer_shapes(named(model))
        nodes = _quantised_nodes(self._model)
        self._nodes = frozenset(node.name for node in nodes)
        #: What may be left in FP32 one by one, in the order of the graph: what has weights, and additions.
        self.layers: tuple[str, ...] = tuple(
            node.name for node in nodes if node.op_type in _WITH_WEIGHTS or node.op_type == "Add"
        )
        if not any(node.op_type in _WITH_WEIGHTS for node in nodes):
            raise BundleError(
                f"{model.graph.name}: there is nothing to quantise between the front end and the features; export it "
                "without --precision int8",
                field="precision",
            )
        self._operators = sorted({node.op_type for node in nodes})
        self._ranges = self._calibrated(clips)

    def model(self, in_float: Collection[str] = (), only: Collection[str] | None = None) -> onnx.ModelProto:
        """Quantise all layers but ``in_float``, or ``only`` the given ones; return a checked model."""
        quantization = import_tool("onnxruntime.quantization")
        wanted = self._nodes.difference(in_float) if only is None else self._nodes.intersection(only)
        excluded = [node.name for node in self._model.graph.node if node.name not in wanted]
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        quantizer = quantization.QDQQuantizer(
            copy,
            True,  # per channel
            False,  # reduce_range: 7-bit weights, for processors without VNNI
            quantization.QuantType.QInt8,
            quantization.QuantType.QUInt8,
            self._ranges,
            [],
            excluded,
            self._operators,
            # Products of two activations, such as attention's scores, stay in FP32.
            {"MatMulConstBOnly": True},
        )
        with _quiet():
            quantizer.quantize_model()
        # The quantiser appends its nodes at the end, and ONNX wants them before their consumers.
        quantizer.model.topological_sort()
        found: onnx.ModelProto = quantizer.model.model
        del found.graph.value_info[:]
        found.ir_version = IR_VERSION
        found.graph.name = self._model.graph.name
        onnx.checker.check_model(found, full_check=True)
        return found

    def _calibrated(self, clips: npt.NDArray[Any]) -> Any:
        quantization = import_tool("onnxruntime.quantization")
        with tempfile.TemporaryDirectory(prefix="dimml-int8-") as folder, _quiet():
            path = Path(folder) / "model.onnx"
            onnx.save(self._model, path)
            calibrator = quantization.create_calibrator(
                path,
                self._operators,
                augmented_model_path=str(Path(folder) / "calibrated.onnx"),
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
            calibrator.collect_data(_Reader(self._model.graph.input[0].name, clips))
            return calibrator.compute_data()


class _Reader:
    """``CalibrationDataReader`` of ONNX Runtime over the rows, which it recognises by ``get_next``."""

    def __init__(self, tensor: str, clips: npt.NDArray[Any]) -> None:
        self._batches = (
            {tensor: np.ascontiguousarray(clips[start : start + CALIBRATION_BATCH])}
            for start in range(0, len(clips), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._batches, None)


def _quantised_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes of the body that have an 8-bit kernel and lie among others that do, in the order of the graph."""
    constant = {initializer.name for initializer in model.graph.initializer}
    found: list[onnx.NodeProto] = []
    made_in_8_bits: set[str] = set()
    for node in body_nodes(model):
        if node.op_type in _WITH_WEIGHTS:
            wanted = node.op_type in WEIGHTED and node.input[1] in constant
        elif node.op_type == "Add":
            # An operand from elsewhere would be quantised for the addition alone, which costs more than it saves.
            wanted = made_in_8_bits.issuperset(node.input)
        else:
            wanted = node.op_type in _FOLLOWERS and node.input[0] in made_in_8_bits
        if wanted:
            found.append(node)
            made_in_8_bits.update(node.output)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what ONNX Runtime's quantiser logs to the root logger: advice to those who call it."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
