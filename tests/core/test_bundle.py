"""The manifest: what it refuses, and that a changed file does not load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dimml.bundle import Bundle, FileRecord, file_sha256
from dimml.contract import FUSED_OUTPUTS, NUMPY_TYPES, fused_from, fused_outputs, fusion_inputs, model_specs
from dimml.errors import BundleError
from dimml.fusion import PAPER
from dimml.modality import Frames
from dimml.repository import bundle_names, bundle_versions, load_bundle
from dimml.signal_check import QualityThresholds
from dimml.status import REASON_STATUS, ModalityStatus, Reason


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "name": "toy",
        "version": 1,
        "labels": ["no", "yes"],
        "clip_s": 1.0,
        "encoders": [
            {"modality": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 8000}, "features": 4},
            {"modality": {"kind": "frames", "name": "visual", "frames": 2, "height": 8, "width": 8}, "features": 6},
        ],
        "fusion": {"fused_head": True},
        "created": "2026-01-01T00:00:00Z",
        "dimml_version": "0",
        **changes,
    }


def write(repository: Path, version: int = 1, **changes: Any) -> Path:
    model = repository / "toy_audio" / str(version) / "model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights %d" % version)
    record = FileRecord(sha256=file_sha256(model), bytes=model.stat().st_size).model_dump()
    path = repository / "toy" / str(version) / "bundle.json"
    path.parent.mkdir(parents=True)
    files = {f"toy_audio/{version}/model.onnx": record}
    path.write_text(json.dumps(manifest(version=version, files=files, **changes)))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["same", "same"]}, "labels must be unique"),
        ({"labels": ["one"]}, "at least 2"),
        ({"schema_version": 2}, "schema_version"),
        ({"name": "Toy Bundle"}, "name"),
        ({"surprise": 1}, "surprise"),
        ({"files": {"../x": {"sha256": "0" * 64, "bytes": 1}}}, "inside the repository"),
        ({"fusion": {"fused_head": True, "temperature": 0}}, "temperature"),
        ({"fusion": {"fused_head": True, "head_temperatures": [1.0, 2.0]}}, "has 2 entries, the heads are"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Bundle.model_validate(manifest(**changes))


def test_the_decoder_version_leaves_hashes_of_earlier_manifests_alone() -> None:
    """The literal was computed before there was a decoder version."""
    before = Bundle.model_validate(manifest())
    assert before.decoder_version == 1
    assert before.sha256 == "c313e5277922ce40c5b070a7bc9ef897f9558bd8dff8ef791905e90273448683"
    assert Bundle.model_validate(manifest(decoder_version=1)).sha256 == before.sha256
    assert Bundle.model_validate(manifest(decoder_version=2)).sha256 != before.sha256


def test_a_bundle_of_before_decodes_as_it_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of decoder version 2 have their historic values in a manifest of version 1, not their defaults."""
    monkeypatch.setattr(Frames, "HISTORIC_DEFAULTS", {"region": {"left": 0, "top": 0, "right": 0.5, "bottom": 1}})
    monkeypatch.setattr(QualityThresholds, "HISTORIC_DEFAULTS", {"black_mean": 7.0, "black_spread": 1.0})
    before = Bundle.model_validate_json(json.dumps(manifest(quality={"black_spread": 3.0})))
    assert isinstance(before.modalities[1], Frames)
    assert before.modalities[1].region is not None
    assert (before.quality.black_mean, before.quality.black_spread) == (7.0, 3.0)
    assert Bundle.model_validate_json(before.model_dump_json()) == before
    now = Bundle.model_validate(manifest(decoder_version=2))
    assert isinstance(now.modalities[1], Frames)
    assert now.modalities[1].region is None
    assert now.quality == QualityThresholds()
    for unfit in ("modalities", [1], {"modality": 3}):
        with pytest.raises(ValidationError, match="encoders"):
            Bundle.model_validate(manifest(encoders=unfit))


@pytest.mark.parametrize("name", ["fused", "fusion", "media"])
def test_names_of_a_bundles_own_models_are_reserved(name: str) -> None:
    encoders = [{**manifest()["encoders"][0]}]
    encoders[0]["modality"] = {**encoders[0]["modality"], "name": name}
    with pytest.raises(ValidationError, match="reserved"):
        Bundle.model_validate(manifest(encoders=encoders))


def test_the_newest_version_is_loaded_unless_one_is_named(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        write(tmp_path, version)
    assert bundle_names(tmp_path) == ["toy"]
    assert bundle_versions(tmp_path, "toy") == [1, 2, 10]
    assert load_bundle(tmp_path, "toy").version == 10
    assert load_bundle(tmp_path, "toy", 2).version == 2
    with pytest.raises(BundleError, match="no version 3"):
        load_bundle(tmp_path, "toy", 3)


def test_a_changed_or_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    model = tmp_path / "toy_audio" / "1" / "model.onnx"
    model.write_bytes(b"weights X")
    with pytest.raises(BundleError, match=r"toy_audio/1/model\.onnx is not the file that was exported"):
        load_bundle(tmp_path, "toy")
    model.unlink()
    with pytest.raises(BundleError, match=r"cannot read toy_audio/1/model\.onnx"):
        load_bundle(tmp_path, "toy")


def test_a_broken_manifest_names_file_and_field(tmp_path: Path) -> None:
    path = write(tmp_path, clip_s=-1)
    with pytest.raises(BundleError, match=r"bundle\.json: clip_s"):
        load_bundle(tmp_path, "toy")
    path.write_text("{")
    with pytest.raises(BundleError, match="JSON"):
        load_bundle(tmp_path, "toy")


def test_a_moved_bundle_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "toy").rename(tmp_path / "other")
    with pytest.raises(BundleError, match="cannot be renamed"):
        load_bundle(tmp_path, "other")


def test_missing_repository_and_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        bundle_names(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="no bundle 'toy'"):
        load_bundle(tmp_path, "toy")


def test_model_contract_names_every_tensor() -> None:
    specs = {spec.role: spec for spec in model_specs(Bundle.model_validate(manifest())) if spec.role != "encoder"}
    assert [i.name for i in specs["fusion"].inputs] == [
        "AUDIO_FEATURES",
        "VISUAL_FEATURES",
        "AUDIO_LOGITS",
        "VISUAL_LOGITS",
        "PRESENT",
    ]
    assert [(i.name, i.dims, i.optional) for i in specs["entry"].inputs] == [
        ("WAVEFORM", (8000,), True),
        ("FRAMES", (2, 8, 8, 3), True),
    ]
    assert [(o.name, o.dims) for o in specs["media"].outputs] == [
        ("PROBABILITIES", (1, 2)),
        ("LOGITS", (1, 2)),
        ("CERTAINTY", (1, 3)),
        ("WEIGHTS", (1, 3)),
        ("STATUS", (1, 2)),
    ]


def test_fusion_tensors_are_those_of_the_contract() -> None:
    bundle = Bundle.model_validate(manifest())
    specs = {spec.name: spec for spec in model_specs(bundle)}
    fusion, encoders = specs[bundle.fusion_model], [specs[bundle.encoder_model(m.name)] for m in bundle.modalities]
    rng = np.random.default_rng(0)
    features, logits = (
        {
            m.name: rng.random((2, *e.outputs[i].dims), np.float32)
            for m, e in zip(bundle.modalities, encoders, strict=True)
        }
        for i in range(2)
    )
    inputs = fusion_inputs(bundle, features, logits, np.ones((2, len(encoders)), np.bool_))
    assert {name: (array.shape[1:], array.dtype) for name, array in inputs.items()} == {
        tensor.name: (tensor.dims, NUMPY_TYPES[tensor.datatype]) for tensor in fusion.inputs
    }
    assert inputs["VISUAL_LOGITS"] is logits["visual"]
    assert inputs["AUDIO_FEATURES"] is features["audio"]

    outputs = {tensor.name: rng.random((2, *tensor.dims), np.float32) for tensor in fusion.outputs}
    fused = fused_from(outputs)
    assert fused.weights_BH is outputs["WEIGHTS"]
    assert fused.probabilities_BC is outputs["PROBABILITIES"]
    back = fused_outputs(fused)
    assert list(back) == list(FUSED_OUTPUTS) == list(outputs)
    assert all(back[name] is outputs[name] for name in outputs)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_status_survives_its_text(reason: Reason) -> None:
    status = ModalityStatus.because(reason)
    assert ModalityStatus.parse(str(status)) == status
    assert status.status is REASON_STATUS[reason]
    assert status.degrades is (reason is not Reason.NOT_REQUESTED)


@pytest.mark.parametrize("text", ["", "ok:silent", "absent", "timeout:silent", "unusable:nonsense"])
def test_what_is_no_status_does_not_parse(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        ModalityStatus.parse(text)


def test_a_manifest_from_before_fusions_were_chosen_loads_as_the_papers() -> None:
    old = {"certainty": "max_prob", "temperature": 1.0, "fused_head": True}
    bundle = Bundle.model_validate(manifest(fusion=old))
    assert (bundle.fusion, bundle.selection) == (PAPER, {})


REDUCED: dict[str, Any] = {
    "precision": "int8",
    "float_version": 1,
    "calibration_clips": 200,
    "layers": {"audio": 7},
    "left_in_float": {"audio": ["conv_1"]},
    "clips": 150,
    "before": {"accuracy": 0.9},
    "after": {"accuracy": 0.9},
}


def test_reduced_precision_leaves_hashes_of_earlier_manifests_alone_and_is_part_of_its_own() -> None:
    before = Bundle.model_validate(manifest())
    assert (before.precision, before.reduced_precision) == ("fp32", None)
    assert before.sha256 == "c313e5277922ce40c5b070a7bc9ef897f9558bd8dff8ef791905e90273448683"
    reduced = Bundle.model_validate(manifest(reduced_precision=REDUCED))
    assert reduced.precision == "int8"
    assert reduced.sha256 != before.sha256
    assert Bundle.model_validate_json(reduced.model_dump_json()) == reduced


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"precision": "int4"}, "'fp16' or 'int8'"), ({"float_version": 0}, "greater than or equal")],
)
def test_a_record_of_reduced_precision_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Bundle.model_validate(manifest(reduced_precision=REDUCED | changes))
