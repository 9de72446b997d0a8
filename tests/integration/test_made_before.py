"""Runs, checkpoints, bundles and tables that an earlier version wrote are read, gone on with and answered alike."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dimml import __version__
from dimml.bundle import Bundle
from dimml.cli import main
from dimml.media.decoders.version import DECODER_VERSION
from dimml_server.local import LocalPredictor
from dimml_training.run.directory import load_run, read_decoder_version, write_decoder_version
from support.data import REPOSITORY_ROOT

VERSIONS = sorted(path.name for path in (REPOSITORY_ROOT / "tests" / "made_before").iterdir() if path.is_dir())
#: The last digits of a network's output differ between processors.
TOLERANCE = 1e-4
#: What an export notes of itself.
OF_THE_EXPORT = {"created", "dimml_version", "versions", "files", "training", "metrics", "decoder_version"}


@pytest.fixture(params=VERSIONS)
def before(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of everything that one version wrote; its clips are in the working directory, as they were then."""
    folder = tmp_path / "before"
    shutil.copytree(REPOSITORY_ROOT / "tests" / "made_before" / request.param, folder)
    monkeypatch.chdir(folder / "clips")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def table_of(before: Path) -> list[dict[str, str]]:
    with (before / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_bundle_answers_as_its_table_says(before: Path) -> None:
    with LocalPredictor(before / "models") as predictor:
        for row in table_of(before):
            answer = predictor.predict({"media": Path(row["path"])}, model="stripes")
            assert answer.label == row["label"]
            for prediction in answer.predictions:
                assert prediction.probability == pytest.approx(
                    float(row[f"probability_{prediction.label}"]), abs=TOLERANCE
                )
            for name, modality in answer.modalities.items():
                assert str(modality.status) == row[f"{name}_status"]
                assert modality.certainty == pytest.approx(float(row[f"{name}_certainty"]), abs=TOLERANCE)
                assert modality.weight == pytest.approx(float(row[f"{name}_weight"]), abs=TOLERANCE)


def test_a_finished_run_exports_to_the_same_graphs(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(before / "run"), "--repository", str(before / "again")]) == 0
    capsys.readouterr()
    for model in ("stripes_audio", "stripes_visual", "stripes_fusion"):
        old, new = (before / place / model for place in ("models", "again"))
        assert (new / "config.pbtxt").read_bytes() == (old / "config.pbtxt").read_bytes()
    old, new = (
        json.loads((before / place / "stripes" / "1" / "bundle.json").read_text()) for place in ("models", "again")
    )
    # What came since stands in the new one, with the value that means the earlier behaviour.
    parsed_old, parsed_new = (Bundle.model_validate(document) for document in (old, new))
    assert (parsed_new.quality, parsed_new.modalities) == (parsed_old.quality, parsed_old.modalities)
    assert (parsed_new.reference, parsed_new.prediction_sets) == (parsed_old.reference, None)
    for field in old.keys() - OF_THE_EXPORT - {"quality", "encoders", "reference"}:
        assert new[field] == old[field], field
    for path in sorted((before / "models").glob("*/1/model.py")):
        assert (before / "again" / path.relative_to(before / "models")).read_bytes() == path.read_bytes()


def test_a_finished_run_is_evaluated_with_its_figures(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(before / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["conditions"]["clean"]
    kept = json.loads((before / "run" / "metrics.json").read_text())["test"]
    assert found["accuracy"] == kept["accuracy"]
    assert found["nll"] == pytest.approx(kept["nll"], rel=1e-3)


def test_an_unfinished_run_goes_on_from_its_checkpoint(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = before / "unfinished"
    began = (out / "metrics.csv").read_text().splitlines()
    words = ["train", "stripes.yaml", "--set", "stage1.epochs=8", "--out", str(out), "--resume"]
    if read_decoder_version(out) != DECODER_VERSION:
        # Its first epochs saw other rows than the rest would. The checkpoint itself is still read.
        assert main(words) != 0
        assert f"clips of decoder version {read_decoder_version(out)}" in capsys.readouterr().err
        write_decoder_version(out)
    assert main(words) == 0, capsys.readouterr().err
    with (out / "metrics.csv").open(newline="") as file:
        epochs = [row for row in csv.DictReader(file) if row["train_loss"]]
    assert [float(row["epoch"]) for row in epochs][:8] == list(range(8))
    assert float(epochs[0]["train_loss"]) == pytest.approx(float(began[1].split(",")[2]), rel=1e-6), "not begun anew"
    assert load_run(out).labels == ("high", "low")


def test_tables_are_read(before: Path) -> None:
    rows = pq.read_table(before / "table.parquet").to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in table_of(before)]
    assert np.allclose([row["probability"] for row in rows], [float(row["probability"]) for row in table_of(before)])


def test_a_table_that_is_whole_is_not_scored_again(
    before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = before / "five"
    clips.mkdir()
    for row in table_of(before):
        shutil.copy2(row["path"], clips)
    monkeypatch.chdir(clips)
    old = (before / "table.csv").read_bytes()
    code = main(["score", ".", "--repository", str(before / "models"), "--out", str(before / "table.csv")])
    assert (before / "table.csv").read_bytes() == old
    message = capsys.readouterr().err
    if json.loads((before / "table.csv.meta.json").read_text())["dimml_version"] == __version__:
        assert (code, "whole already" in message) == (0, True), message
    else:
        assert code == 1
        assert "belongs to another run: dimml_version" in message
