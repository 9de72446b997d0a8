"""``dimml export --tensorrt``: the configuration parsed back, what it goes with, and what it is refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from dimml.cli import main
from dimml.contract import model_specs
from dimml.errors import BundleError
from dimml.repository import load_bundle
from dimml_export.model_config import model_config, read_model_config, tensors_differ
from dimml_export.tensorrt.plans import PlanOptions, build_plans
from support.hardly_trained import make_run
from support.standin_builder import Standin
from support.tiny_bundle import make_tiny_bundle


def configs(repository: Path, name: str) -> dict[str, Any]:
    """``ModelConfig`` of every model, by role; of encoders a list."""
    found: dict[str, Any] = {"encoder": []}
    for spec in model_specs(load_bundle(repository, name)):
        config = read_model_config(repository / spec.name / "config.pbtxt")
        assert tensors_differ(config, spec) is None
        if spec.role == "encoder":
            found["encoder"].append(config)
        else:
            found[spec.role] = config
    return found


def without_tensorrt(repository: Path, name: str) -> dict[str, str]:
    """Texts of the configurations that a plain export gives, of all but encoders."""
    return {spec.role: model_config(spec) for spec in model_specs(load_bundle(repository, name)) if not spec.modality}


def test_accelerator_is_the_providers_in_the_words_of_tritons_backend(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path, tensorrt="accelerator", max_batch_size=16)
    found = configs(tmp_path, "tiny")
    for config in found["encoder"]:
        (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert accelerator.name == "tensorrt"
        assert dict(accelerator.parameters) == {
            "precision_mode": "FP32",
            "max_workspace_size_bytes": "1073741824",
            "trt_engine_cache_enable": "1",
            "trt_timing_cache_enable": "1",
        }
        assert (config.backend, config.platform) == ("onnxruntime", "")
        assert [warmup.batch_size for warmup in config.model_warmup] == [1, 16]
        for warmup in config.model_warmup:
            assert {name: list(entry.dims) for name, entry in warmup.inputs.items()} == {
                tensor.name: list(tensor.dims) for tensor in config.input
            }
            assert all(entry.zero_data for entry in warmup.inputs.values())
            assert [entry.data_type for entry in warmup.inputs.values()] == [t.data_type for t in config.input]
    for role, text in without_tensorrt(tmp_path, "tiny").items():
        assert text_format.Parse(text, ModelConfig()) == found[role], role


def test_plan_names_the_platform_and_leaves_entry_and_fusion_as_they_are(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path, tensorrt="plan")
    found = configs(tmp_path, "tiny")
    for config in found["encoder"]:
        assert (config.platform, config.backend) == ("tensorrt_plan", "")
        assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_GPU]
        assert config.HasField("dynamic_batching")
        assert config.max_batch_size == 32
        assert not config.HasField("optimization")
    for role, text in without_tensorrt(tmp_path, "tiny").items():
        assert text_format.Parse(text, ModelConfig()) == found[role], role
    assert found["fusion"].backend == "onnxruntime"
    assert found["fusion"].instance_group[0].kind == ModelInstanceGroup.KIND_CPU


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (None, "plan", "says nothing of TensorRT.*: export without --tensorrt, or under another name"),
        (None, "accelerator", "says nothing of TensorRT"),
        ("plan", None, "says TensorRT plans.*: export with --tensorrt plan, or under"),
        ("plan", "accelerator", "says TensorRT plans"),
        ("accelerator", "plan", "says TensorRT by provider.*: export with --tensorrt accelerator"),
    ],
)
def test_a_version_that_an_existing_configuration_would_serve_otherwise_is_refused(
    tmp_path: Path, first: Any, then: Any, message: str
) -> None:
    make_tiny_bundle(tmp_path, tensorrt=first)
    with pytest.raises(BundleError, match=f"tiny_audio/config.pbtxt {message}"):
        make_tiny_bundle(tmp_path, tensorrt=then)
    assert load_bundle(tmp_path, "tiny").version == 1
    make_tiny_bundle(tmp_path, tensorrt=first)
    assert load_bundle(tmp_path, "tiny").version == 2


def test_a_plain_export_follows_one_that_the_operator_gave_the_accelerator(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path, tensorrt="accelerator")
    assert make_tiny_bundle(tmp_path).version == 2


@pytest.mark.slow(reason="exports a run")
def test_a_run_becomes_plans_of_mixed_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command to the builder, with encoders as training makes them and the run's own clips."""
    torch.set_num_threads(1)
    run, models = make_run(tmp_path / "run"), tmp_path / "models"
    assert main(["export", str(run), "--repository", str(models), "--tensorrt", "plan"]) == 0
    assert f"dimml build-plans {models}" in capsys.readouterr().out
    for plan in build_plans(models, Standin(), PlanOptions()):
        assert (plan.outcome, plan.record.precision) == ("built", "fp16")
        assert 0 < plan.record.parity["LOGITS"] < 0.02
    assert len(load_bundle(models, "tones").plans) == 2
