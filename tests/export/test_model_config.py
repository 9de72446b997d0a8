"""``config.pbtxt`` files, parsed back and compared with the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from tritonclient.grpc.model_config_pb2 import DataType, ModelInstanceGroup

from dimml.contract import ModelSpec, TensorSpec, model_specs
from dimml.errors import BundleError
from dimml.modality import Flow
from dimml_export.model_config import model_config, read_model_config, tensors_differ
from support.tiny_bundle import AUDIO, REAR, VISUAL, make_tiny_bundle

TYPES = {"TYPE_FP32": "FP32", "TYPE_FP64": "FP64", "TYPE_UINT8": "UINT8", "TYPE_BOOL": "BOOL", "TYPE_STRING": "BYTES"}
FLOW = Flow(name="motion", frames=3, height=16, width=16)


def test_every_config_says_what_the_contract_says(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, modalities=(AUDIO, VISUAL, REAR, FLOW), max_batch_size=16)
    for spec in model_specs(bundle):
        config = read_model_config(tmp_path / spec.name / "config.pbtxt")
        inputs = tuple(
            TensorSpec(t.name, TYPES[DataType.Name(t.data_type)], tuple(t.dims), t.optional) for t in config.input
        )
        outputs = tuple(TensorSpec(t.name, TYPES[DataType.Name(t.data_type)], tuple(t.dims)) for t in config.output)
        parsed = ModelSpec(config.name, spec.role, config.max_batch_size, inputs, outputs, spec.modality)
        assert parsed == spec
        runs_onnx = spec.role in ("encoder", "fusion")
        assert config.backend == ("onnxruntime" if runs_onnx else "python")
        assert config.HasField("dynamic_batching") == (spec.role != "media")
        assert [group.count for group in config.instance_group] == [1 if runs_onnx else config.instance_group[0].count]
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_CPU


def test_entry_inputs_are_optional_and_its_instances_several(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    config = read_model_config(tmp_path / "tiny" / "config.pbtxt")
    assert all(tensor.optional for tensor in config.input)
    assert config.instance_group[0].count > 1


def test_tensors_differ_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    encoder = model_specs(bundle)[0]
    path = tmp_path / "tiny_audio" / "config.pbtxt"
    assert tensors_differ(read_model_config(path), encoder) is None
    path.write_text(model_config(encoder).replace("dims: 4000", "dims: 8000"))
    assert tensors_differ(read_model_config(path), encoder) == (
        "input WAVEFORM is FP32 [8000] there and FP32 [4000] here"
    )


def test_an_edited_config_that_does_not_parse_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("name: 'x'\nmax_batch_sizes: 3\n")
    with pytest.raises(BundleError, match=r"config\.pbtxt is not a Triton model configuration: 2:1"):
        read_model_config(path)
