"""TensorRT settings in an encoder's ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from dimml.contract import Datatype, ModelSpec

#: How encoders use TensorRT: through ONNX Runtime's provider, or as plans built beforehand.
TensorRT = Literal["accelerator", "plan"]

PLAN_PLATFORM: Final = "tensorrt_plan"
ACCELERATOR: Final = "tensorrt"
#: Keys of Triton's onnxruntime backend (its README, "ONNX Runtime with TensorRT optimization"); values are strings.
#: FP32: the provider's FP16 is weakly typed and would include the spectrogram. Engines are kept in the server's working
#: directory, so that only the first start builds them.
ACCELERATOR_PARAMETERS: Final = {
    "precision_mode": "FP32",
    "max_workspace_size_bytes": str(2**30),
    "trt_engine_cache_enable": "1",
    "trt_timing_cache_enable": "1",
}


def use_tensorrt(config: Any, spec: ModelSpec, how: TensorRT, data_types: Mapping[Datatype, str]) -> None:
    """Change the ``ModelConfig`` of an encoder; ``data_types`` spells datatypes as the configuration does."""
    if how == "plan":
        config.backend = ""
        config.platform = PLAN_PLATFORM
        config.instance_group[0].kind = config.instance_group[0].KIND_GPU
        return
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name=ACCELERATOR)
    accelerator.parameters.update(ACCELERATOR_PARAMETERS)
    # The provider builds an engine when it first sees a shape, and again when one lies outside the range seen so far:
    # running the smallest and the largest batch at the start covers all.
    for batch in sorted({1, spec.max_batch_size}):
        warmup = config.model_warmup.add(name=f"batch_{batch}", batch_size=batch)
        for tensor in spec.inputs:
            entry = warmup.inputs[tensor.name]
            entry.data_type = data_types[tensor.datatype]
            entry.dims.extend(tensor.dims)
            entry.zero_data = True


def uses_tensorrt(config: Any) -> TensorRT | None:
    """Return how the encoder of a ``ModelConfig`` uses TensorRT."""
    if config.platform == PLAN_PLATFORM or config.backend == "tensorrt":
        return "plan"
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    return "accelerator" if any(accelerator.name == ACCELERATOR for accelerator in accelerators) else None
