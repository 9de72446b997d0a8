"""``dimml build-plans`` up to the boundary to TensorRT, which is absent: ``Standin`` builds instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from dimml.bundle import Bundle, read_bundle
from dimml.contract import model_specs
from dimml.errors import BundleError, SetupError
from dimml.repository import load_bundle
from dimml_export.tensorrt.builder import Profile, TensorRTBuilder, _parser_errors, profile_of
from dimml_export.tensorrt.device import first_device
from dimml_export.tensorrt.plan_parity import check_plan
from dimml_export.tensorrt.plans import BuiltPlan, PlanOptions, build_plans
from dimml_export.tensorrt.samples import MAX_SAMPLES
from support.standin_builder import Standin
from support.tiny_bundle import AUDIO, VISUAL, make_tiny_bundle, tiny_row

CLIPS = {
    modality.name: np.stack([tiny_row(modality, label) for label in (0, 1, 2) * 4]) for modality in (AUDIO, VISUAL)
}
FP32 = PlanOptions(precision="fp32")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models", tensorrt="plan", samples=CLIPS, max_batch_size=16)
    return tmp_path / "models"


def outcomes(done: list[BuiltPlan]) -> dict[str, str]:
    return {plan.model: plan.outcome for plan in done}


def manifest(repository: Path, version: int = 1) -> Bundle:
    return read_bundle(repository / "tiny" / str(version) / "bundle.json")


def test_plans_are_built_noted_and_verified(repository: Path) -> None:
    assert load_bundle(repository, "tiny").plans == {}
    builder = Standin()
    done = build_plans(repository, builder, FP32)
    assert outcomes(done) == {"tiny_audio": "built", "tiny_visual": "built"}
    bundle = load_bundle(repository, "tiny")
    assert sorted(bundle.plans) == ["tiny_audio/1/model.plan", "tiny_visual/1/model.plan"]
    for plan in done:
        path = f"{plan.model}/1/model.plan"
        assert bundle.files[path].bytes == (repository / path).stat().st_size
        record = bundle.plans[path]
        assert record == plan.record
        assert (record.tensorrt, record.gpu, record.compute_capability) == ("11.4.0.106", "Test GPU", "8.9")
        assert (record.precision, record.onnx_sha256) == ("fp32", bundle.files[f"{plan.model}/1/model.onnx"].sha256)
        assert record.parity["labels_differ"] == 0
        assert record.parity["LOGITS"] < 1e-4
    profile, workspace, _ = builder.built[1]
    assert profile == Profile("FRAMES", (1, 4, 16, 16, 3), (8, 4, 16, 16, 3), (16, 4, 16, 16, 3))
    assert workspace == 2**30
    # The second build profits from the first one's timings.
    assert [cache for _, _, cache in builder.built] == [b"", b"+"]
    assert (repository / ".dimml-timing-cache").read_bytes() == b"++"
    assert not list(repository.rglob("*.part"))
    # The ONNX model still stands beside the plan, as the embedded server wants it.
    assert load_bundle(repository, "tiny").model_file(repository, "tiny_audio").exists()


@pytest.mark.parametrize("largest", [1, 4, 32])
def test_a_profile_reaches_from_one_row_to_the_largest_batch(tmp_path: Path, largest: int) -> None:
    bundle = make_tiny_bundle(tmp_path, max_batch_size=largest)
    profile = profile_of(model_specs(bundle)[0])
    shapes = (profile.smallest, profile.tuned, profile.largest)
    assert shapes == ((1, 4000), (min(8, largest), 4000), (largest, 4000))


def test_what_is_built_is_kept_until_something_changed(repository: Path) -> None:
    build_plans(repository, Standin(), FP32)
    again = Standin()
    assert set(outcomes(build_plans(repository, again, FP32)).values()) == {"kept"}
    assert again.built == []
    assert set(outcomes(build_plans(repository, again, PlanOptions("fp32", force=True))).values()) == {"built"}
    assert set(outcomes(build_plans(repository, Standin(gpu="Other"), FP32)).values()) == {"built"}
    other = Standin(gpu="Other", capability="9.0")
    assert set(outcomes(build_plans(repository, other, FP32)).values()) == {"built"}
    newer = Standin(tensorrt="11.5.0.1", gpu="Other")
    assert set(outcomes(build_plans(repository, newer, FP32)).values()) == {"built"}
    (repository / "tiny_audio" / "1" / "model.plan").write_bytes(b"half copied")
    with pytest.raises(BundleError, match=r"tiny_audio/1/model\.plan is not the file"):
        load_bundle(repository, "tiny")
    assert outcomes(build_plans(repository, newer, FP32)) == {"tiny_audio": "built", "tiny_visual": "kept"}
    load_bundle(repository, "tiny")


class Stopped(Standin):
    """Is killed when it comes to a certain model."""

    def __init__(self, at: int) -> None:
        super().__init__(gpu="Next")
        self.at = at

    def build(
        self, model: bytes, profile: Profile, *, workspace_bytes: int, timing_cache: bytes
    ) -> tuple[bytes, bytes]:
        if len(self.built) == self.at:
            raise KeyboardInterrupt
        return super().build(model, profile, workspace_bytes=workspace_bytes, timing_cache=timing_cache)


def test_a_build_that_was_stopped_goes_on_where_it_was(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_plans(repository, Stopped(at=1), FP32)
    assert list(load_bundle(repository, "tiny").plans) == ["tiny_audio/1/model.plan"]
    done = build_plans(repository, Standin(gpu="Next"), FP32)
    assert outcomes(done) == {"tiny_audio": "kept", "tiny_visual": "built"}


def test_a_crash_between_plan_and_manifest_leaves_a_bundle_that_verifies(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_plans(repository, Standin(), FP32)
    real, writes = Path.replace, []

    def crash(self: Path, target: Path) -> Path:
        if target.name == "bundle.json" and any(path.name == "model.plan" for path in writes):
            raise KeyboardInterrupt
        writes.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        build_plans(repository, Standin(off=1e-5), PlanOptions("fp32", force=True))
    monkeypatch.undo()
    assert [path.name for path in writes] == [".dimml-timing-cache", "bundle.json", "model.plan"]
    assert "tiny_audio/1/model.plan" not in load_bundle(repository, "tiny").files
    assert outcomes(build_plans(repository, Standin(), FP32)) == {"tiny_audio": "built", "tiny_visual": "kept"}


def test_a_plan_that_differs_is_refused_and_what_was_there_stays(repository: Path) -> None:
    build_plans(repository, Standin(), FP32)
    before = (repository / "tiny_audio" / "1" / "model.plan").read_bytes()
    with pytest.raises(
        BundleError, match=r"^tiny_audio: at batch 1 the plan's LOGITS differ .* by up to 0\.02 \(at most 0\.00"
    ):
        build_plans(repository, Standin(off=0.02), PlanOptions("fp32", force=True))
    assert (repository / "tiny_audio" / "1" / "model.plan").read_bytes() == before
    assert manifest(repository).plans["tiny_audio/1/model.plan"].parity["LOGITS"] < 1e-4
    load_bundle(repository, "tiny")


def test_parity_counts_labels_sees_every_batch_size_and_refuses_nan() -> None:
    spec = [("IN", TensorProto.FLOAT, ["batch", 2])]
    values = [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in spec]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in ("FEATURES", "LOGITS")]
    nodes = [helper.make_node("Identity", ["IN"], [name]) for name in ("FEATURES", "LOGITS")]
    graph = helper.make_graph(nodes, "same", values, outputs)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    clips = np.array([[1.0, 1.004], [3.0, 1.0], [0.0, 5.0]], np.float32)
    batches = []

    def run(rows: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        batches.append(len(rows))
        return rows, rows + np.array([0.008, 0.0], np.float32)

    found = check_plan("m", model, run, clips, precision="fp16", max_batch_size=16)
    assert found == pytest.approx({"FEATURES": 0.0, "LOGITS": 0.008, "labels_differ": 1.0}, abs=1e-6)
    assert sorted(set(batches)) == [1, 3, 8, 16]
    batches.clear()
    with pytest.raises(BundleError, match="m: at batch 1 the plan's LOGITS differ"):
        check_plan("m", model, run, clips, precision="fp32", max_batch_size=2)
    with pytest.raises(BundleError, match="m: the plan gives another label than ONNX Runtime for 1 of 3 clips"):
        check_plan(
            "m",
            model,
            lambda rows: (rows, rows + np.array([0.0045, 0.0], np.float32)),
            clips,
            precision="fp32",
            max_batch_size=2,
        )
    with pytest.raises(BundleError, match="differ from ONNX Runtime's by up to nan"):
        check_plan(
            "m", model, lambda rows: (rows, rows * np.float32(np.nan)), clips, precision="fp16", max_batch_size=2
        )
    late = np.array([0.5, 0.0], np.float32)
    with pytest.raises(BundleError, match="at batch 8 the plan's FEATURES differ"):
        check_plan(
            "m", model, lambda rows: (rows + late * (len(rows) == 8), rows), clips, precision="fp16", max_batch_size=16
        )
    with pytest.raises(BundleError, match="there are no clips"):
        check_plan("m", model, run, clips[:0], precision="fp16", max_batch_size=2)


def test_clips_lie_beside_the_models_and_are_hashed(repository: Path) -> None:
    clips = np.load(repository / "tiny_visual" / "1" / "samples.npy")
    np.testing.assert_array_equal(clips, CLIPS["visual"][:MAX_SAMPLES])
    assert "tiny_visual/1/samples.npy" in manifest(repository).files
    (repository / "tiny_visual" / "1" / "samples.npy").write_bytes(b"no clips")
    with pytest.raises(BundleError, match=r"tiny_visual/1/samples\.npy is not the file that was exported"):
        build_plans(repository, Standin(), FP32)


def test_only_bundles_for_plans_are_built(repository: Path) -> None:
    make_tiny_bundle(repository, name="plain")
    assert {plan.bundle for plan in build_plans(repository, Standin(), FP32)} == {"tiny"}
    for name, version in (("plain", None), ("absent", None), ("tiny", 7)):
        with pytest.raises(BundleError, match=rf"bundle '{name}' is not there for TensorRT plans: export with"):
            build_plans(repository, Standin(), FP32, name=name, version=version)


def test_the_newest_version_unless_one_is_named(repository: Path) -> None:
    make_tiny_bundle(repository, tensorrt="plan", samples=CLIPS, max_batch_size=16)
    assert {plan.version for plan in build_plans(repository, Standin(), FP32)} == {2}
    assert {plan.version for plan in build_plans(repository, Standin(), FP32, version=1)} == {1}


def test_fp16_needs_a_backbone_and_says_so(repository: Path) -> None:
    """The tiny bundle's encoders are no trained ones."""
    with pytest.raises(BundleError, match="tiny_audio: no weight of the graph is named as a backbone's"):
        build_plans(repository, Standin(), PlanOptions())


def test_a_full_or_read_only_disk_is_one_line(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BundleError, match=r"tiny_audio: cannot write .*: No space left on device"):
        build_plans(repository, Standin(), FP32)
    monkeypatch.undo()
    assert not list(repository.rglob("*.part"))
    load_bundle(repository, "tiny")


def test_without_tensorrt_or_gpu_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(SetupError, match="TensorRT's Python package cannot be imported"):
        TensorRTBuilder()
    with pytest.raises(SetupError, match="there is no NVIDIA driver here"):
        first_device(str(tmp_path / "libcuda.so.1"))


def test_everything_that_the_parser_says_is_told_by_node() -> None:
    """Objects with the methods of ``tensorrt.ParserError``, whose names ``test_export_tensorrt_calls`` holds."""

    def error(name: str, node: int, operator: str, said: str) -> Any:
        return SimpleNamespace(
            node_name=lambda: name, node=lambda: node, node_operator=lambda: operator, desc=lambda: said
        )

    errors = [error("node_conv", 3, "Conv", "kernel\n  too large"), error("", 7, "Nonsense", "No importer")]
    parser: Any = SimpleNamespace(num_errors=2, get_error=lambda index: errors[index])
    assert _parser_errors(parser) == (
        "TensorRT cannot read the ONNX model: node 'node_conv' (Conv): kernel too large; node 7 (Nonsense): No importer"
    )


def test_as_json(repository: Path) -> None:
    (first, _) = build_plans(repository, Standin(), FP32)
    document = json.loads(json.dumps(first.as_dict()))
    assert (document["model"], document["record"]["gpu"]) == ("tiny_audio", "Test GPU")
