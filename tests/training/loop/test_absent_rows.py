"""Clips that lack a modality, from an empty cell of the table or a track that is not there, from training to export."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dimml.cli import main
from dimml.errors import DataError
from dimml_training.compare.plan import repeats
from dimml_training.config import TrainConfig, parse_config
from dimml_training.config.corruption_suite import conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.corruptions.scoring import score
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import prepare
from dimml_training.evaluation.heads import head_logits
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.media_maker import write_clip
from support.tiny_training import CLASSES, document, epochs, stripes

#: What lines of each split and class lack, by their number in it; of five training and three other clips.
LACKING = {1: "audio", 2: "visual"}

#: A choice of few conditions in which the fused head votes.
QUICK = {"fused_head": [True], "draws": 1, "families": ["white", "darkness"]}


def holed_table(clips: Path, folder: Path, lacking: dict[int, str], *, mute: bool = False) -> Path:
    """The clips with a column of each modality and some empty cells; ``mute``: one more, without a sound track."""
    with clips.open(newline="") as file:
        lines = list(csv.DictReader(file))
    seen: dict[tuple[str, str], int] = {}
    path = folder / "holed.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["audio", "visual", "label", "split", "subject", "start_s", "end_s"])
        for line in lines:
            number = seen.setdefault((line["split"], line["label"]), 0)
            seen[line["split"], line["label"]] += 1
            cells = {
                name: "" if lacking.get(number) in (name, "both") else line["media"] for name in ("audio", "visual")
            }
            table.writerow([*cells.values(), *(line[c] for c in ("label", "split", "subject", "start_s", "end_s"))])
        if mute:
            write_clip(folder / "mute.mp4", 0.8, sound=None, picture=stripes(CLASSES["low"][1] + 2))
            table.writerow([folder / "mute.mp4", folder / "mute.mp4", "low", "train", "m", 0.2, 0.7])
    return path


def holed(clips: Path, manifest: Path, **changed: Any) -> TrainConfig:
    content = document(manifest) | changed
    content["data"]["columns"]["media"] = {"audio": "audio", "visual": "visual"}
    content["data"]["media_root"] = str(clips.parent)
    return parse_config(content, "test")


@pytest.fixture(scope="module")
def holed_run(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose fusion is chosen, on clips of which a third lack their sound and others their picture."""
    folder = tmp_path_factory.mktemp("holed")
    config = holed(clips, holed_table(clips, folder, LACKING, mute=True), fusion=None, certainty=QUICK)
    train(config, folder / "run", cache_dir=cache)
    return folder / "run"


def test_what_clips_lack_is_counted_with_its_reason(holed_run: Path) -> None:
    run = load_run(holed_run)
    assert run.training["clips"] == {"train": 11, "validation": 6, "test": 6}
    assert run.training["present"] == {
        "train": {"audio": 8, "visual": 9, "all": 6},
        "validation": {"audio": 4, "visual": 4, "all": 2},
        "test": {"audio": 4, "visual": 4, "all": 2},
    }
    said = "\n".join(run.training["warnings"])
    assert "3 of 11 train clips are without audio (1 no such track, 2 no file in the table)" in said
    assert "2 of 6 test clips are without visual (2 no file in the table)" in said
    assert run.quality_report["clips"] == 11


def test_heads_are_scored_on_their_own_clips(holed_run: Path, cache: Path) -> None:
    run = load_run(holed_run)
    rows = prepare(run.config, cache).splits["test"].rows
    found = run.metrics["test"]["heads"]
    assert {head: own["clips"] for head, own in found.items()} == {"audio": 4, "visual": 4, "fused": 2}
    for name, encoder in run.encoders.items():
        own = np.flatnonzero(rows.has(name))
        _, logits = encoder(torch.from_numpy(rows.rows(name, own.tolist())))
        assert found[name]["accuracy"] == pytest.approx((logits.argmax(dim=1).numpy() == rows.labels[own]).mean())
    # The epoch was chosen by the same: the mean of the heads' accuracies on their own validation clips.
    line = epochs(holed_run)[run.training["selected_epoch"]]
    for name in run.encoders:
        assert float(line[f"val_accuracy_{name}"]) == pytest.approx(
            run.metrics["validation"]["heads"][name]["accuracy"]
        )


def test_what_arrays_hold_for_absent_rows_means_nothing(holed_run: Path, cache: Path) -> None:
    """Noise where a clip lacks a modality: it is not looked at."""
    run = load_run(holed_run)
    rows = prepare(run.config, cache).splits["test"].rows
    noisy: dict[str, npt.NDArray[Any]] = {}
    rng = np.random.default_rng(0)
    for m in run.modalities:
        noisy[m.name] = rows.rows(m.name, slice(None))
        absent = ~rows.has(m.name)
        assert not noisy[m.name][absent].any(), "the cache has a hole there"
        noisy[m.name][absent] = (200 * rng.random((absent.sum(), *m.shape))).astype(m.dtype)
    other = ClipRows(noisy, np.arange(len(rows)), rows.labels, rows.present)
    first, second = (
        head_logits(run.encoders, run.fused_head, run.modalities, clips, run.quality) for clips in (rows, other)
    )
    np.testing.assert_array_equal(first.logits_NHC, second.logits_NHC)
    np.testing.assert_array_equal(first.present_NH, second.present_NH)
    np.testing.assert_array_equal(first.present_NH[:, :2], np.stack([rows.has("audio"), rows.has("visual")], axis=1))


def test_evaluation_report_calibration_and_export_go_through(
    holed_run: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--cache-dir", str(cache)]
    predictions = tmp_path / "predictions.csv"
    assert main(["evaluate", str(holed_run), *store, "--json", "--predictions", str(predictions)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["conditions"]["clean"] == load_run(holed_run).metrics["test"]
    with predictions.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [bool(line["path_audio"]) for line in lines] == [True, False, True] * 2
    assert [bool(line["label_audio"]) for line in lines] == [True, False, True] * 2
    assert [bool(line["label_fused"]) for line in lines] == [True, False, False] * 2
    assert main(["calibrate", str(holed_run), *store, "--json"]) == 0
    chosen = json.loads(capsys.readouterr().out)["chosen"]
    assert all(np.isfinite(v) for v in chosen.values() if isinstance(v, float))
    page = (holed_run / "report.html").read_text()
    assert "Clips with each modality" in page
    assert "6 of 11" in page
    assert "nan" not in (holed_run / "metrics.json").read_text().lower()
    assert main(["export", str(holed_run), "--repository", str(tmp_path / "bundles")]) == 0
    manifest = json.loads((tmp_path / "bundles" / "stripes" / "1" / "bundle.json").read_text())
    assert manifest["training"]["present"]["train"] == {"audio": 8, "visual": 9, "all": 6}
    assert manifest["reference"] is not None


def test_clips_of_which_a_condition_leaves_nothing_are_not_scored(holed_run: Path, cache: Path) -> None:
    run = load_run(holed_run)
    splits = prepare(run.config, cache).splits
    suite = [c for c in conditions(run.modalities, "seen") if c.group in ("clean", "absent")]
    test, validation = (
        encode_conditions(run.encoders, run.modalities, splits[split].rows, suite, run.quality, seed=0)
        for split in ("test", "validation")
    )
    found = score(run, test, validation, suite)["conditions"]
    # Without sound, clips with nothing but sound have no answer, and the others that of their picture.
    assert found["audio:absent"]["accuracy"] == pytest.approx(found["clean"]["heads"]["visual"]["accuracy"])
    assert found["audio:absent"]["heads"]["visual"] == {
        **found["audio:absent"]["heads"]["visual"],
        "accuracy": run.metrics["test"]["heads"]["visual"]["accuracy"],
    }
    assert found["audio:absent"]["regret"] == pytest.approx(0.0)
    assert found["clean"]["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"])


def test_without_a_whole_clip_there_is_no_fused_head(clips: Path, cache: Path, tmp_path: Path) -> None:
    manifest = holed_table(clips, tmp_path, {0: "audio", 1: "audio", 2: "visual", 3: "visual", 4: "visual"})
    said: list[str] = []
    # The config fixes a fusion that has the fused head vote.
    train(holed(clips, manifest), tmp_path / "run", cache_dir=cache, tell=said.append)
    run = load_run(tmp_path / "run")
    message = "no fused head: no train or validation clip has every modality, so the modalities' own heads answer"
    assert f"warning: {message}" in said
    assert message in run.training["warnings"]
    assert run.fused_head is None
    assert not run.fusion.fused_head
    assert set(run.metrics["test"]["heads"]) == {"audio", "visual"}
    duc = [float(line["train_loss_duc"]) for line in epochs(tmp_path / "run")]
    assert duc == [0.0] * 4, "no clip has both"
    assert main(["report", str(tmp_path / "run")]) == 0
    # Of each modality some rows that are there: an export is checked on them.
    assert {name: len(rows) for name, rows in run.samples.items()} == {"audio": 2, "visual": 2}
    assert all(row.any() for rows in run.samples.values() for row in rows)


def test_a_modality_that_nobody_has_is_a_problem(clips: Path, cache: Path, tmp_path: Path) -> None:
    manifest = holed_table(clips, tmp_path, dict.fromkeys(range(5), "audio") | {4: "both"})
    with pytest.raises(DataError) as raised:
        prepare(holed(clips, manifest), cache)
    assert raised.value.problems == [
        "lines 6, 11: no file in columns 'audio', 'visual'",
        "no clip of the train split has audio, and it needs 2 or more; give it some, or leave audio out of the config",
        "no clip of the validation split has audio, and it needs 1 or more; give it some, or leave audio out of the "
        "config",
    ]


def test_a_class_that_no_clip_with_a_modality_has_is_a_warning(clips: Path, cache: Path, tmp_path: Path) -> None:
    manifest = holed_table(clips, tmp_path, {0: "audio"})
    lines = manifest.read_text().splitlines()
    silent = [",".join(["", *line.split(",")[1:]]) if ",low,train," in line else line for line in lines]
    manifest.write_text("\n".join(silent) + "\n")
    warnings = prepare(holed(clips, manifest), cache).warnings
    assert "no training clip with audio is of class low: its head cannot learn it" in warnings


def test_a_comparison_wants_whole_clips(clips: Path, cache: Path, tmp_path: Path) -> None:
    config = holed(clips, holed_table(clips, tmp_path, LACKING))
    with pytest.raises(DataError, match=r"some clips lack a modality \(4 train, 4 validation, 4 test\)"):
        repeats(config, 1, lambda c: prepare(c, cache))


def test_a_joint_training_sees_zeros_and_a_flag(clips: Path, cache: Path, tmp_path: Path) -> None:
    manifest = holed_table(clips, tmp_path, LACKING)
    joint = {"fusion": "concat", "modulation": "ogm_ge", "presence_flag": True, "modality_dropout": 0.3}
    content = document(manifest)["stage1"] | {"objective": "joint", "joint": joint}
    train(holed(clips, manifest, stage1=content), tmp_path / "run", cache_dir=cache)
    run = load_run(tmp_path / "run")
    rows = prepare(run.config, cache).splits["test"].rows
    assert run.joint_head is not None
    inputs = []
    for name, encoder in run.encoders.items():
        has = torch.from_numpy(rows.has(name))[:, None]
        features, _ = encoder(torch.from_numpy(rows.rows(name, slice(None))))
        inputs += [torch.where(has, features, torch.zeros(())), has.float()]
    expected = (torch.cat(inputs, dim=1) @ run.joint_head.linear.weight.T + run.joint_head.linear.bias).argmax(dim=1)
    assert run.metrics["test"]["accuracy"] == pytest.approx(float((expected.numpy() == rows.labels).mean()))
    assert run.joint_head.linear.weight.shape == (2, 18)
