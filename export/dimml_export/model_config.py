"""``config.pbtxt`` of a bundle's models, written and read through Triton's own protobuf messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from dimml.contract import SET_OUTPUTS, Datatype, ModelSpec, Role
from dimml.errors import BundleError
from dimml_export.tensorrt.config import TensorRT, use_tensorrt

CONFIG_NAME: Final = "config.pbtxt"

#: KServe v2's datatype names in the spelling of model_config.proto.
_DATA_TYPES: Final[dict[Datatype, str]] = {
    "FP32": "TYPE_FP32",
    "FP64": "TYPE_FP64",
    "UINT8": "TYPE_UINT8",
    "BOOL": "TYPE_BOOL",
    "BYTES": "TYPE_STRING",
}
_BACKENDS: Final[dict[Role, str]] = {
    "encoder": "onnxruntime",
    "fusion": "onnxruntime",
    "entry": "python",
    "media": "python",
}
#: Encoders use a GPU if there is one. The fusion is a few microseconds of work, not worth a copy to a GPU.
_INSTANCE_KINDS: Final[dict[Role, int]] = {
    "encoder": ModelInstanceGroup.KIND_AUTO,
    "fusion": ModelInstanceGroup.KIND_CPU,
    "entry": ModelInstanceGroup.KIND_CPU,
    "media": ModelInstanceGroup.KIND_CPU,
}
#: An instance of a Python model is busy until its batch's slowest encoder ends, so there are several.
_INSTANCES: Final[dict[Role, int]] = {"encoder": 1, "fusion": 1, "entry": 4, "media": 2}


def model_config(spec: ModelSpec, tensorrt: TensorRT | None = None) -> str:
    """Write the ``config.pbtxt`` of one model: its tensors, batching and instances.

    Shapes omit the batch if ``max_batch_size`` is above 0, as Triton requires. ``tensorrt`` applies to encoders only.
    """
    config = ModelConfig(name=spec.name, backend=_BACKENDS[spec.role], max_batch_size=spec.max_batch_size)
    for tensor in spec.inputs:
        config.input.add(
            name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=tensor.dims, optional=tensor.optional
        )
    for tensor in spec.outputs:
        config.output.add(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=tensor.dims)
    config.instance_group.add(count=_INSTANCES[spec.role], kind=_INSTANCE_KINDS[spec.role])
    if spec.max_batch_size > 0:
        # Present but empty: batch the waiting requests, without a delay for more.
        config.dynamic_batching.SetInParent()
    if tensorrt is not None and spec.role == "encoder":
        use_tensorrt(config, spec, tensorrt, _DATA_TYPES)
    return str(text_format.MessageToString(config))


def read_model_config(path: Path) -> Any:
    """Parse a ``config.pbtxt`` into a ``ModelConfig``. Raises BundleError naming the file and the line at fault."""
    try:
        return text_format.Parse(path.read_text(), ModelConfig())
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not a Triton model configuration: {error}") from error


def tensors_differ(config: Any, spec: ModelSpec) -> str | None:
    """Describe the first difference between a configuration's tensors and those of ``spec``, or return None.

    Only names, types, shapes and optionality are compared: operators may edit batching, instances and the like. Outputs
    of prediction sets may be missing on either side, as some versions of a bundle have them and others do not.
    """
    for what, there, wanted in (
        ("input", config.input, spec.inputs),
        ("output", config.output, spec.outputs),
    ):
        existing = {
            tensor.name: (_type_name(tensor), tuple(tensor.dims), getattr(tensor, "optional", False))
            for tensor in there
        }
        needed = {tensor.name: (_DATA_TYPES[tensor.datatype], tensor.dims, tensor.optional) for tensor in wanted}
        # A missing tensor is more informative than a shape difference that follows from it.
        unlike = {n for n in existing.keys() ^ needed.keys() if what == "input" or n not in SET_OUTPUTS}
        for name in (*sorted(unlike), *sorted(existing.keys() & needed.keys())):
            if existing.get(name) != needed.get(name):
                return f"{what} {name} is {_words(existing.get(name))} there and {_words(needed.get(name))} here"
    return None


def _type_name(tensor: Any) -> str:
    return str(tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name)


def _words(tensor: tuple[str, tuple[int, ...], bool] | None) -> str:
    if tensor is None:
        return "missing"
    data_type, dims, optional = tensor
    return f"{'optional ' if optional else ''}{data_type.removeprefix('TYPE_')} {list(dims)}"
