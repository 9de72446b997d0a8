"""Configs are checked when they are read; the message names the field and the way out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dimml.errors import ConfigurationError
from dimml.fusion import FusionSpec
from dimml_training.config import expand_path, load_config
from support.data import REPOSITORY_ROOT

BACKBONE = {"hidden_sizes": [4, 8], "depths": [1, 1]}


def document() -> dict[str, Any]:
    return {
        "name": "two",
        "clip_s": 1.0,
        "data": {"manifest": "clips.csv"},
        "modalities": [
            {
                "input": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 8000},
                "encoder": {"backbone": dict(BACKBONE)},
            },
            {
                "input": {"kind": "frames", "name": "visual", "frames": 2, "height": 16, "width": 16},
                "encoder": {"backbone": dict(BACKBONE)},
            },
        ],
    }


def written(folder: Path, content: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_defaults_are_the_papers(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, document()))
    stage = config.stage1
    assert (stage.epochs, stage.batch_size, stage.warmup_epochs) == (150, 16, 20)
    assert (stage.lambda_shared, stage.lambda_duc) == (1.0, 1.0)
    optimiser = stage.optimiser
    assert (optimiser.kind, optimiser.lr, optimiser.momentum, optimiser.weight_decay) == ("sgd", 1e-3, 0.9, 1e-4)
    assert (optimiser.schedule, optimiser.step_epoch, config.stage2.epochs) == ("step", 70, 20)
    assert config.fusion is None  # chosen by validation clips; what is left out of one that is given is the paper's
    given = FusionSpec(fused_head=True)
    assert (given.certainty, given.temperature, given.pooling) == ("max_prob", 1.0, "logits")


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY_ROOT / "training" / "configs").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_config_of_the_repository_is_valid(path: Path) -> None:
    assert load_config(path).modalities


def test_only_single_pictures_go_without_clip_s(tmp_path: Path) -> None:
    content = document()
    del content["clip_s"]
    with pytest.raises(ConfigurationError, match="clip_s is needed: audio, visual cover"):
        load_config(written(tmp_path, content))
    content["modalities"] = content["modalities"][1:]
    content["modalities"][0]["input"]["frames"] = 1
    assert load_config(written(tmp_path, content)).clip_s == 1.0


def test_overrides_reach_fields_and_list_items(tmp_path: Path) -> None:
    path = written(tmp_path, document())
    config = load_config(path, ["seed=3", "stage1.optimiser.lr=0.5", "modalities.1.input.frames=7"])
    assert (config.seed, config.stage1.optimiser.lr, config.inputs[1].shape[0]) == (3, 0.5, 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage1.epochs", "write it as key=value"),
        ("modalities.5.input.frames=1", "no such place"),
        ("name.sub=1", "no such place"),
        ("stage1.epoch=1", "stage1.epoch: there is no such field here"),
        ("stage1.epochs=many", "stage1.epochs: Input should be a valid integer"),
        ("clip_s=.inf", "clip_s: Input should be a finite number"),
        ("stage1.epochs=20", "warmup_epochs must be below stage1.epochs"),
        ("modalities.0.input.kind=wave", "modalities.0: input.kind must be 'waveform', 'frames', 'flow' or 'series'"),
        ("modalities.0.input.name=fused", "the name 'fused' is reserved"),
        ("modalities.0.input.name=visual", "names must be unique"),
        ("modalities.0.input.samples=4000", "modalities.0.input.samples must be clip_s x sample_rate_hz = 8000"),
        ("modalities.0.augment.noise_snr_db=[20, 0]", "noise_snr_db must go from the lowest"),
        ("modalities.0.encoder.grey=true", "modalities.0.encoder.grey: there is no such field"),
        ("modalities.0.encoder.backbone.hidden_sizes=[4, 16]", "features of one width"),
        ("modalities.0.encoder.backbone.depths=[1]", "depths and hidden_sizes"),
        ("modalities.1.encoder.pooling={kind: temporal_conv, kernel: 4}", "kernel must be odd"),
        ("data.split_by=subject", "split_by: subject needs columns.subject"),
        ("data.margin_s=1", "margin_s needs columns.start_s"),
        ("data.columns.start_s=from", "start_s and end_s come together"),
        ("data.columns.media={audio: a}", "must name a column for each of"),
        ("data.splits={train: a, validation: a, test: b}", "splits must give"),
        ("data.labels=[a, b, a]", "data: labels must be unique; more than once: a"),
        (
            "compare.contained=[purple]",
            "compare.contained: purple is no family of the corruption suite; choose from white",
        ),
        ("fusion={fused_head: true, head_temperatures: [1.0]}", "one entry for each of 3 heads"),
        ("fusion={fused_head: false, head_temperatures: [1, 1, 1]}", "one entry for each of 2 heads"),
        ("fusion={fused_head: true, head_temperatures: []}", "one entry for each of 3 heads"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_config(written(tmp_path, document()), [override])
    assert message in raised.value.message
    assert "at least 1 item" not in raised.value.message


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("stage1.epoch=1", "stage1.epoch: there is no such field here; did you mean epochs?"),
        ("stage1.optimizer.lr=1", "stage1.optimizer: there is no such field here; did you mean optimiser?"),
        ("modalities.1.input.frame=3", "modalities.1.input.frame: there is no such field here; did you mean frames?"),
        (
            "modalities.0.encoder.backbone.hiden_sizes=[4, 8]",
            "modalities.0.encoder.backbone.hiden_sizes: there is no such field here; did you mean hidden_sizes?",
        ),
        (
            "modalities.1.encoder.pooling={kind: temporal_conv, layer: 2}",
            "modalities.1.encoder.pooling.layer: there is no such field here; did you mean layers?",
        ),
        # Of another section: the path to it.
        (
            "batch_size=8",
            "batch_size: there is no such field here; did you mean stage1.batch_size or stage2.batch_size?",
        ),
        ("mels=64", "did you mean modalities[].encoder.spectrogram.mels?"),
        # Like nothing: all that there is.
        ("data.columns.zzz=1", "those here are media, label, split, subject, start_s, end_s; the config reference"),
    ],
)
def test_a_misspelt_field_is_answered_with_the_one_that_was_meant(tmp_path: Path, override: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_config(written(tmp_path, document()), [override])
    assert meant in raised.value.message


def test_a_required_field_that_is_misspelt_is_one_fault(tmp_path: Path) -> None:
    content = document()
    content["dta"] = content.pop("data")
    content["modalities"][0]["input"]["sample_rat_hz"] = content["modalities"][0]["input"].pop("sample_rate_hz")
    with pytest.raises(ConfigurationError) as raised:
        load_config(written(tmp_path, content))
    assert "did you mean data?" in raised.value.message
    assert "did you mean sample_rate_hz" in raised.value.message
    assert "Field required" not in raised.value.message


@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_misspelt_field_is_answered_before_torch_is_loaded(tmp_path: Path, command: str) -> None:
    path = written(tmp_path, document() | {"sed": 1})
    code = (
        "import sys\nfrom dimml.cli import main\n"
        f"code = main([{command!r}, {str(path)!r}])\n"
        "print(code, sorted(sys.modules.keys() & {'torch', 'transformers', 'pytorch_lightning', 'sklearn'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\n"
    assert done.stderr == f"error: {path}: sed: there is no such field here; did you mean seed?\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [1", "is not YAML"), ("- 1\n", "must hold a mapping"), ("name: x\n", "data: Field required")],
)
def test_files_that_are_no_config(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_config(written(tmp_path, content))


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_config(tmp_path / "none.yaml")


def test_paths_take_variables_with_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIMML_TEST_DATA", raising=False)
    assert expand_path("${DIMML_TEST_DATA:-../data}/x.csv") == tmp_path.parent / "data" / "x.csv"
    with pytest.raises(ConfigurationError, match="DIMML_TEST_DATA is not set"):
        expand_path("$DIMML_TEST_DATA/x.csv")
    monkeypatch.setenv("DIMML_TEST_DATA", "/somewhere")
    assert expand_path("${DIMML_TEST_DATA:-../data}/x.csv") == Path("/somewhere/x.csv")
    assert expand_path("$DIMML_TEST_DATA/x.csv") == Path("/somewhere/x.csv")
