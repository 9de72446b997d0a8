"""``dimml export --precision`` of a run that was really trained, from its clips to two versions in a repository."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from dimml.bundle import Bundle, read_bundle
from dimml.cli import main
from dimml.contract import features_input, logits_input
from dimml.errors import BundleError, ConfigurationError
from dimml.repository import load_bundle, versions
from dimml.system.cpu import exact_int8_sums
from dimml_export.export import Exported, export_run
from dimml_export.precision.figures import figures_of
from dimml_export.repository_writer import check_name
from dimml_export.summary import processor_remark
from dimml_training.config import parse_config
from dimml_training.data.prepare import prepare
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.forked_workers import forked_workers
from support.tiny_bundle import make_tiny_bundle
from support.tiny_training import document, write_clips

__all__ = ["forked_workers"]

pytestmark = pytest.mark.slow(reason="trains a run and exports it in two precisions")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run directory and cache of a run that chose its fusion, with calibrated heads."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    wanted: dict[str, Any] = document(write_clips(folder))
    wanted |= {"certainty": {"draws": 1, "temperatures": [0.5], "poolings": ["product"], "fused_head": [True]}}
    del wanted["fusion"]
    with pytest.MonkeyPatch.context() as machine:
        machine.setattr("dimml_training.data.prepare.usable_cores", lambda: 1)
        train(parse_config(wanted, "test"), folder / "run", cache_dir=folder / "cache")
    return folder / "run", folder / "cache"


def allow_any_cost(patch: pytest.MonkeyPatch) -> None:
    """Of six validation clips one is 17 points: whether the run may be exported is not what most tests are about."""
    patch.setattr("dimml_export.precision.figures.MOST_ACCURACY_LOST", 1.0)
    patch.setattr("dimml_export.precision.figures.MOST_ECE_ADDED", 1.0)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_any_cost(monkeypatch)


@pytest.fixture(scope="module")
def exported(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    run, cache = trained
    repository = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        allow_any_cost(patch)
        return repository, export_run(run, repository, precision="int8", cache_dir=cache)


def model(repository: Path, bundle: Bundle, name: str) -> onnx.ModelProto:
    return onnx.load(bundle.model_file(repository, name))


def test_the_float_version_stands_beside_it(exported: tuple[Path, Exported], trained: tuple[Path, Path]) -> None:
    repository, done = exported
    assert versions(repository, "stripes") == [1, 2]
    before, after = (load_bundle(repository, "stripes", version) for version in (1, 2))
    assert (before.precision, before.reduced_precision) == ("fp32", None)
    assert after == done.bundle
    assert after.precision == "int8"
    assert after.reduced_precision is not None
    assert after.reduced_precision.float_version == 1
    assert after.reduced_precision.calibration_clips == 10
    assert after.reduced_precision.clips == 6
    assert after.reduced_precision.layers["audio"] > 3
    # What a traffic split or a shadow compares: the same labels, tensors and heads.
    assert (before.labels, before.modalities, before.heads) == (after.labels, after.modalities, after.heads)
    for bundle in (before, after):
        bundle.verify(repository)
    for name, reduced in (("stripes_audio", True), ("stripes_visual", True), ("stripes_fusion", False)):
        operators = {node.op_type for node in model(repository, after, name).graph.node}
        assert ("QuantizeLinear" in operators) is reduced
        assert "QuantizeLinear" not in {node.op_type for node in model(repository, before, name).graph.node}
    audio = model(repository, after, "stripes_audio")
    weights = [numpy_helper.to_array(one) for one in audio.graph.initializer if one.name.endswith(".weight_quantized")]
    assert {one.dtype for one in weights} == {np.dtype(np.int8)}


def test_a_second_export_adds_no_second_float_version(
    exported: tuple[Path, Exported], trained: tuple[Path, Path], tmp_path: Path, lenient: None
) -> None:
    repository = shutil.copytree(exported[0], tmp_path / "models")
    run, cache = trained
    half = export_run(run, repository, precision="fp16", cache_dir=cache).bundle
    assert (half.version, half.precision) == (3, "fp16")
    assert half.reduced_precision is not None
    assert (half.reduced_precision.float_version, half.reduced_precision.calibration_clips) == (1, 0)
    assert half.fusion == load_bundle(repository, "stripes", 1).fusion, "fp16 changes nothing that is fitted"
    weights = {numpy_helper.to_array(one).dtype for one in model(repository, half, "stripes_visual").graph.initializer}
    assert np.dtype(np.float16) in weights


def outputs(repository: Path, bundle: Bundle, rows: dict[str, Any]) -> dict[str, Any]:
    """Features and logits of every encoder of a version, as a server would have them for the fusion."""
    found = {}
    for modality in bundle.modalities:
        path = bundle.model_file(repository, bundle.encoder_model(modality.name))
        options = ort.SessionOptions()
        for entry in exact_int8_sums().items():  # as every server of dimml has it
            options.add_session_config_entry(*entry)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = features_input(modality.name), logits_input(modality.name)
        tensors = {modality.tensor: rows[modality.name]}
        found |= dict(zip(names, session.run(["FEATURES", "LOGITS"], tensors), strict=True))
    return found


def test_figures_are_those_of_the_files_that_were_written(
    exported: tuple[Path, Exported], trained: tuple[Path, Path]
) -> None:
    repository, done = exported
    run = load_run(trained[0])
    clips = prepare(run.config, trained[1]).splits["validation"].rows
    rows = {m.name: clips.rows(m.name, slice(None)) for m in run.modalities}
    reduced = done.bundle.reduced_precision
    assert reduced is not None
    for version, found in ((1, reduced.before), (2, reduced.after)):
        bundle = load_bundle(repository, "stripes", version)
        tensors = outputs(repository, bundle, rows)
        for name in ("audio", "visual"):
            right = (tensors[logits_input(name)].argmax(axis=1) == clips.labels).mean()
            assert found["heads"][name]["accuracy"] == pytest.approx(right)
        session = ort.InferenceSession(bundle.model_file(repository, bundle.fusion_model))
        tensors["PRESENT"] = np.ones((len(clips), 2), np.bool_)
        probabilities, certainty = session.run(["PROBABILITIES", "CERTAINTY"], tensors)
        right_N = probabilities.argmax(axis=1) == clips.labels
        assert found["accuracy"] == pytest.approx(right_N.mean())
        assert found["nll"] == pytest.approx(
            -np.log(probabilities[np.arange(len(clips)), clips.labels]).mean(), rel=1e-3
        )
        assert bundle.reference is not None
        np.testing.assert_array_equal(bundle.reference.labels, np.bincount(probabilities.argmax(axis=1), minlength=2))
        bounds = bundle.reference.certainty_bounds
        for h, head in enumerate(bundle.heads):
            counts = np.bincount(np.searchsorted(bounds, certainty[:, h] - 1e-6), minlength=len(bounds))
            beyond = np.cumsum(counts) - np.cumsum(bundle.reference.certainty[head])
            assert np.abs(beyond).max() <= 1, "but for a certainty on the bound of a bin"
    assert set(reduced.after["agreement"]) == {"audio", "visual", "fused", "answer"}
    assert done.bundle.metrics["validation"]["accuracy"] == pytest.approx(reduced.after["accuracy"])
    assert done.bundle.metrics["test"]["clips"] == 6


def test_parity_is_recorded_against_torch_at_every_batch(exported: tuple[Path, Exported]) -> None:
    _, done = exported
    compared = {(p.model, p.against, p.batch) for p in done.parity}
    assert {(name, "torch", batch) for name in ("stripes", "stripes_audio") for batch in (1, 3, 8)} <= compared
    assert max(p.differences["LOGITS"] for p in done.parity if p.model == "stripes_visual") > 1e-4
    assert done.bundle.metrics["parity"] == [p.as_dict() for p in done.parity]


def test_a_precision_that_costs_too_much_is_refused_with_figures_and_leaves_nothing(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cache = trained
    honest = figures_of
    calls: list[Any] = []

    def spoilt(*asked: Any) -> dict[str, Any]:
        found = honest(*asked)
        calls.append(found)
        found["heads"]["visual"]["accuracy"] = 0.75 if len(calls) == 1 else 0.74
        return found

    monkeypatch.setattr("dimml_export.precision.reduce.figures_of", spoilt)
    monkeypatch.setattr("dimml_export.precision.search.MOST_LEFT", 2)
    expected = (
        r"int8 costs too much on 6 validation clips, with 2 layers left in FP32: .* 75.0% to 74.0%.*; calibrate on "
        r"more clips \(--calibration-clips\), or export without --precision int8; nothing was exported"
    )
    with pytest.raises(BundleError, match=expected):
        export_run(run, tmp_path / "models", precision="int8", cache_dir=cache)
    assert not (tmp_path / "models").exists()


def test_tensorrt_and_too_few_clips_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    run = tmp_path / "no run"
    for precision in ("int8", "fp16"):
        with pytest.raises(ConfigurationError, match=f"--precision {precision} does not go with --tensorrt"):
            export_run(run, tmp_path / "models", precision=precision, tensorrt="plan")
    with pytest.raises(ConfigurationError, match="--calibration-clips 7: ranges of activations need 8"):
        export_run(run, tmp_path / "models", precision="int8", calibration_clips=7)


def test_a_name_that_is_configured_for_tensorrt_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, tensorrt="accelerator")
    with pytest.raises(BundleError, match="says TensorRT by provider, which reduces precision by itself"):
        check_name(tmp_path, bundle, reduced=True)
    check_name(tmp_path, bundle)


def test_the_command_prints_figures_and_what_the_processor_has(
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    lenient: None,
) -> None:
    monkeypatch.setattr("dimml_export.summary.int8_instructions", lambda: ("AMX",))
    run, cache = trained
    command = ["export", str(run), "--repository", str(tmp_path), "--cache-dir", str(cache), "--precision", "int8"]
    assert main([*command, "--calibration-clips", "8"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "stripes version 2" in printed
    assert "encoders in int8, judged on 6 validation clips" in printed
    assert "this processor has AMX: int8 is for such ones" in printed
    assert "version 1 is the same in fp32" in printed
    reduced = read_bundle(tmp_path / "stripes" / "2" / "bundle.json").reduced_precision
    assert reduced is not None
    assert reduced.calibration_clips == 8
    assert f"{reduced.after['accuracy']:.1%}" in printed


def test_json_has_precision_and_what_it_cost(exported: tuple[Path, Exported]) -> None:
    document = json.loads(json.dumps(exported[1].as_dict()))
    assert (document["version"], document["precision"]) == (2, "int8")
    assert document["reduced_precision"]["float_version"] == 1
    assert document["reduced_precision"]["search"][0]["left_in_float"] == {"audio": 0, "visual": 0}


def test_a_processor_without_vnni_and_amx_is_pointed_out() -> None:
    assert "neither VNNI nor AMX: int8 may be slower than fp32" in processor_remark(())
    assert "cannot be read here" in processor_remark(None)
