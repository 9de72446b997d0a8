"""Thresholds of a run on their way into a bundle: taken, left out with the reason, and beside versions without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimml.contract import SET_OUTPUTS, model_specs
from dimml.errors import BundleError, ConfigurationError, SetupError
from dimml.fusion import FusionParameters, FusionSpec
from dimml.repository import load_bundle
from dimml.request_parameters import AS_BUNDLED, Abstention
from dimml_export.commands import _abstention
from dimml_export.model_config import read_model_config
from dimml_export.prediction_sets import prediction_sets
from dimml_export.repository_writer import check_name, missing_outputs
from dimml_training.run.directory import TrainedRun, load_run
from dimml_training.run.prediction_sets import SETS_FILE, SetsRecord, fusion_sha256, write_sets
from support.hardly_trained import make_run
from support.reliability import random_reliability
from support.tiny_bundle import make_tiny_bundle
from support.tiny_sets import SETS, tiny_sets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "tones")


@pytest.fixture
def run(folder: Path) -> TrainedRun:
    """With thresholds of its fusion."""
    found = load_run(folder)
    sha256 = fusion_sha256(found.fusion, found.fusion_parameters)
    write_sets(folder, SetsRecord(fusion_sha256=sha256, sets=tiny_sets(**SETS), report={}))
    return found


def test_thresholds_are_taken_with_the_limits_of_the_export(folder: Path, run: TrainedRun) -> None:
    sets, remarks = prediction_sets(folder, run, Abstention(abstain_below=0.4))
    assert remarks == []
    assert sets == tiny_sets(**SETS, abstain_below=0.4)


def test_a_run_without_thresholds_has_none_and_takes_no_limits(folder: Path) -> None:
    run = load_run(folder)
    assert prediction_sets(folder, run, AS_BUNDLED) == (None, [])
    with pytest.raises(ConfigurationError, match=r"--max-set-size: .*`dimml calibrate RUN --coverage") as refused:
        prediction_sets(folder, run, Abstention(max_set_size=2))
    assert refused.value.field == "max_set_size"


def test_thresholds_of_another_fusion_are_left_out_and_said_to_be(folder: Path, run: TrainedRun) -> None:
    other = replace(run, fusion=FusionSpec(fused_head=True, temperature=0.5))
    sets, (remark,) = prediction_sets(folder, other, AS_BUNDLED)
    assert sets is None
    assert "of another fusion" in remark
    with pytest.raises(ConfigurationError, match="thresholds of another fusion"):
        prediction_sets(folder, other, Abstention(abstain_below=0.4))


def test_a_fusion_is_known_by_what_was_learned_too() -> None:
    spec = FusionSpec(fused_head=False, certainty="reliability")
    one, other = (FusionParameters((random_reliability(np.random.default_rng(seed), 4, 3),)) for seed in (0, 1))
    again = FusionParameters((random_reliability(np.random.default_rng(0), 4, 3),))
    assert fusion_sha256(spec, one) == fusion_sha256(spec, again) != fusion_sha256(spec, other)


def test_a_damaged_file_is_an_error(folder: Path, run: TrainedRun) -> None:
    (folder / SETS_FILE).write_text("{")
    with pytest.raises(SetupError, match=r"prediction_sets\.json is damaged"):
        prediction_sets(folder, run, AS_BUNDLED)


@pytest.mark.parametrize(
    ("below", "largest", "message"),
    [(1.5, None, "--abstain-below must be from 0 to 1"), (None, 0, "--max-set-size must be 1 or more")],
)
def test_limits_out_of_range_are_named_by_their_option(below: float | None, largest: int | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _abstention(below, largest)


def test_a_version_with_sets_goes_beside_one_without_and_triton_s_lack_is_said(tmp_path: Path) -> None:
    plain = make_tiny_bundle(tmp_path)
    with_sets = plain.model_copy(update={"prediction_sets": tiny_sets(**SETS)})
    (remark,) = missing_outputs(tmp_path, with_sets)
    assert "tiny and tiny_media" in remark
    assert missing_outputs(tmp_path, plain) == []
    second = make_tiny_bundle(tmp_path, prediction_sets=tiny_sets(**SETS))
    assert second.version == 2
    assert load_bundle(tmp_path, "tiny", 2).prediction_sets == tiny_sets(**SETS)
    assert load_bundle(tmp_path, "tiny", 1).prediction_sets is None
    assert make_tiny_bundle(tmp_path).version == 3, "and back again"


def test_a_new_bundle_s_configuration_has_the_outputs(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, prediction_sets=tiny_sets(**SETS))
    assert missing_outputs(tmp_path, bundle) == []
    for name in ("tiny", "tiny_media"):
        config = read_model_config(tmp_path / name / "config.pbtxt")
        assert [output.name for output in config.output][-3:] == list(SET_OUTPUTS)
    plain = {spec.name: spec.outputs for spec in model_specs(bundle.model_copy(update={"prediction_sets": None}))}
    assert not {tensor.name for outputs in plain.values() for tensor in outputs} & set(SET_OUTPUTS)


def test_an_output_of_another_shape_is_still_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, prediction_sets=tiny_sets(**SETS))
    config = tmp_path / "tiny" / "config.pbtxt"
    at = config.read_text().index('"SET"')
    config.write_text(config.read_text()[:at] + config.read_text()[at:].replace("dims: 3", "dims: 4", 1))
    with pytest.raises(BundleError, match="output SET is BOOL"):
        check_name(tmp_path, bundle)
