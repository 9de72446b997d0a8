"""A trained torch encoder as an ONNX model with the contract's tensors and a free batch dimension."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from dimml.contract import NUMPY_TYPES, ModelSpec
from dimml.errors import SetupError
from dimml_export.onnx_graph import IR_VERSION, OPSET


def encoder_model(encoder: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """Export the model that ``spec`` names, from a module that maps ``[B, *shape]`` to ``([B, D], [B, C])``.

    The encoder is put into evaluation mode. The weights are inside the model, not in files beside it. Raises SetupError
    if torch cannot export the encoder.
    """
    tensor = spec.inputs[0]
    # Two rows: torch.export treats a size of 1 (or 0) as a constant.
    example = torch.from_numpy(np.zeros((2, *tensor.dims), NUMPY_TYPES[tensor.datatype]))
    with torch.no_grad(), _torchs_own_noise_muted():
        try:
            program = torch.onnx.export(
                encoder.eval(),
                (example,),
                input_names=[tensor.name],
                output_names=[output.name for output in spec.outputs],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            # All our own encoders can be exported; a user's backbone (docs/encoders.md) may not be.
            raise SetupError(
                f"{spec.name}: torch cannot turn this encoder into ONNX ({_reason(error)}); most often its code "
                "branches on values or on the batch size: choose another backbone, or change its code"
            ) from error
    if program is None:
        raise AssertionError("torch.onnx.export gives no program only where it writes a file")
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    model.ir_version = IR_VERSION
    model.graph.name = spec.name
    onnx.checker.check_model(model, full_check=True)
    return model


def _reason(error: BaseException) -> str:
    """Return the first line of the innermost cause: torch wraps it in advice to its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _strip(model: onnx.ModelProto) -> None:
    """Drop torch's metadata: stack traces with this machine's paths, twice the size of a small model."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    noted: Any
    for noted in (model, graph, *graph.node, *values, *model.functions):
        del noted.metadata_props[:]
        noted.doc_string = ""


@contextmanager
def _torchs_own_noise_muted() -> Iterator[None]:
    """Silence two messages that torch emits about itself on every export, and nothing else."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    # "torchvision is not installed. Skipping torchvision::nms": an operator set that no encoder here uses.
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch.export deep-copies its tree specs, and a copy of a leaf makes an instance of LeafSpec, a class
            # that torch itself has deprecated (torch 2.9 to 2.13).
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated", category=FutureWarning
            )
            yield
    finally:
        registration.setLevel(level)
