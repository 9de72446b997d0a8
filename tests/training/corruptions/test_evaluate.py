"""``dimml evaluate --corruptions``: figures by condition, against clips damaged and answered by hand."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dimml.cli import main
from dimml.fusion import fuse
from dimml_training.config.corruption_suite import FAMILIES, conditions
from dimml_training.corruptions import encoding
from dimml_training.corruptions.applying import corrupt
from dimml_training.corruptions.encoding import EncodedModality, encode_conditions
from dimml_training.corruptions.scoring import votes_of
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import prepare
from dimml_training.evaluation.heads import head_logits
from dimml_training.loop.train import train
from dimml_training.run.directory import TrainedRun, load_run
from support.tiny_training import configured


@pytest.fixture(scope="module", autouse=True)
def _encoded_once() -> Iterator[None]:
    """What one command here has encoded is not encoded again for the next, which has the same weights and clips."""
    encode, kept = encoding._encode, {}

    def remembering(
        encoder: nn.Module, modality: Any, clips: ClipRows, key: encoding.Key, **given: Any
    ) -> EncodedModality:
        weights = b"".join(value.numpy().tobytes() for value in encoder.state_dict().values())
        of = (clips.rows(modality.name, slice(None)).tobytes(), clips.has(modality.name).tobytes(), weights)
        asked = (key, repr((modality, given)), *map(zlib.crc32, of))
        if asked not in kept:
            kept[asked] = encode(encoder, modality, clips, key, **given)
        found: EncodedModality = kept[asked]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_encode", remembering)
        yield


@pytest.fixture
def run(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for one test: the command leaves files."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "copy"))


@pytest.fixture(scope="module")
def looked_at(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy that ``found`` was found in, to be read."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "copy"))


@pytest.fixture(scope="module")
def trained(finished: Path) -> TrainedRun:
    return load_run(finished)


@pytest.fixture(scope="module")
def found(looked_at: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("out")
    return evaluated(looked_at, cache, out / "figures.json", "--results", str(out / "results"))


def evaluated(run: Path, cache: Path, out: Path, *options: str) -> dict[str, Any]:
    """What the command prints as JSON."""
    with pytest.MonkeyPatch.context() as patch, out.open("w") as file:
        patch.setattr("sys.stdout", file)
        assert main(["evaluate", str(run), "--corruptions", "--cache-dir", str(cache), "--json", *options]) == 0
    read: dict[str, Any] = json.loads(out.read_text())
    return read


@torch.no_grad()
def test_a_condition_is_what_its_damaged_clips_get(found: dict[str, Any], trained: TrainedRun, cache: Path) -> None:
    rows = prepare(trained.config, cache, splits=("test",)).splits["test"].rows
    audio, visual = trained.modalities
    white = next(f for f in FAMILIES if f.name == "white").at("0db")
    heads, answers = [], []
    assert trained.fused_head is not None
    for draw in range(3):
        sound = rows.rows("audio", slice(None))
        noisy = torch.from_numpy(corrupt(sound, audio, white, clip_ids=range(6), draw=draw, seed=0))
        features = [
            trained.encoders["audio"](noisy),
            trained.encoders["visual"](torch.from_numpy(rows.rows("visual", slice(None)))),
        ]
        fused = trained.fused_head(torch.cat([f for f, _ in features], dim=1))
        logits = torch.stack([*(own for _, own in features), fused], dim=1).numpy()
        answer = fuse(logits, np.ones((6, 3), bool), trained.fusion)
        heads.append(logits.argmax(axis=2) == rows.labels[:, None])
        answers.append(answer.probabilities_BC.argmax(axis=1) == rows.labels)
    told = found["corruptions"]["conditions"]["audio:white_0db"]
    assert told["accuracy"] == pytest.approx(np.mean(answers))
    accuracies = np.mean(heads, axis=(0, 1))
    assert [told["heads"][h]["accuracy"] for h in ("audio", "visual", "fused")] == pytest.approx(list(accuracies))
    assert visual.name == "visual"


def test_clean_is_what_evaluate_says_without_corruptions(found: dict[str, Any]) -> None:
    clean, plain = found["corruptions"]["conditions"]["clean"], found["conditions"]["clean"]
    for figure in ("accuracy", "macro_f1"):
        assert clean[figure] == plain[figure]
    assert clean["nll"] == pytest.approx(plain["nll"], rel=1e-4)
    assert {h: f["accuracy"] for h, f in clean["heads"].items()} == {
        h: f["accuracy"] for h, f in plain["heads"].items()
    }


def test_the_run_keeps_the_figures_for_its_report(found: dict[str, Any], looked_at: Path) -> None:
    kept = json.loads((looked_at / "corruptions.json").read_text())
    assert set(kept) == {"split", "families", "seed", "data", "fusion", *found["corruptions"]}
    assert "frozen_frames" in (looked_at / "report.html").read_text(), "drawn anew"
    assert not list(looked_at.glob("*.part"))


def test_a_narrower_look_leaves_fuller_figures_in_the_run(
    found: dict[str, Any], looked_at: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(looked_at, tmp_path / "copy"))
    before = (copy / "corruptions.json").read_text()
    evaluate = ["evaluate", str(copy), "--corruptions", "--families", "seen", "--cache-dir", str(cache)]
    assert main(evaluate) == 0
    assert "holds more conditions of the same clips" in " ".join(capsys.readouterr().err.split())
    assert main([*evaluate, "--split", "validation"]) == 0
    assert (copy / "corruptions.json").read_text() == before
    for other in ({}, {**json.loads(before), "data": "of other clips"}, {**json.loads(before), "split": "validation"}):
        (copy / "corruptions.json").write_text(json.dumps(other))
        assert main(evaluate) == 0
        kept = json.loads((copy / "corruptions.json").read_text())
        assert (kept["families"], kept["split"]) == ("seen", "test")
    assert "test clips, seen families alone" in (copy / "report.html").read_text()


def test_families_that_the_clips_carry_are_out_of_the_means(run: Path, cache: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["compare"]["contained"] = ["pink"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    told = evaluated(copy, cache, tmp_path / "figures.json", "--families", "development", "--results", str(tmp_path))
    conditions_told = told["corruptions"]["conditions"]
    assert conditions_told["audio:pink_0db"]["in_means"] is False
    counted = sum(c["in_means"] for c in conditions_told.values())
    assert told["corruptions"]["means"]["development"]["conditions"] == counted


def test_a_look_that_is_not_counted_is_told(
    run: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(run), "--corruptions", "--families", "development", "--cache-dir", str(cache)]) == 0
    assert "this look at development families is not counted" in " ".join(capsys.readouterr().err.split())


def test_means_are_over_the_conditions_that_count(found: dict[str, Any]) -> None:
    told = found["corruptions"]
    for which in ("seen", "development"):
        counted = {n: c for n, c in told["conditions"].items() if c["in_means"] and c["seen"] == (which == "seen")}
        assert not {c["group"] for c in counted.values()} & {"clean", "absent", "nosignal", "conflict"}
        means = told["means"][which]
        assert means["conditions"] == len(counted)
        assert means["accuracy"] == pytest.approx(np.mean([c["accuracy"] for c in counted.values()]))
        regrets = {n: c["accuracy"] - c["heads"][c["better"]]["accuracy"] for n, c in counted.items()}
        assert means["regret"] == pytest.approx(np.mean(list(regrets.values())))
        assert regrets[means["worst_condition"]] == pytest.approx(min(regrets.values()))


def test_a_missing_modality_is_not_answered_from(found: dict[str, Any]) -> None:
    told = found["corruptions"]
    for condition in ("audio:absent", "audio:silence"):
        figures = told["conditions"][condition]
        assert figures["heads"]["audio"]["accuracy"] == 0.0
        assert figures["better"] == "visual"
        assert figures["regret"] == 0.0, "sight is all there is"
    assert set(told["confidence_rise"]) == {"audio:absent", "visual:absent"}
    assert set(told["conflict"]) == {"audio:other_clip", "visual:other_clip"}


def test_the_better_modality_is_the_one_on_validation_clips(
    found: dict[str, Any], run: Path, cache: Path, tmp_path: Path
) -> None:
    own = evaluated(run, cache, tmp_path / "figures.json", "--split", "validation", "--families", "seen")
    assert "looks_at_development" not in own
    for name, figures in own["corruptions"]["conditions"].items():
        accuracies = {h: figures["heads"][h]["accuracy"] for h in ("audio", "visual")}
        assert accuracies[found["corruptions"]["conditions"][name]["better"]] == max(accuracies.values())


def test_each_look_at_development_families_is_counted(
    found: dict[str, Any], run: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found["looks_at_development"] == 1
    options = ["evaluate", str(run), "--corruptions", "--cache-dir", str(cache), "--results", str(tmp_path)]
    assert main([*options, "--families", "seen"]) == 0
    assert not (tmp_path / "development.log").exists()
    capsys.readouterr()
    for look in (1, 2):
        assert main([*options, "--families", "development"]) == 0
        assert f"looks at development families on test clips so far: {look}" in capsys.readouterr().out
    assert [line.split()[3:] for line in (tmp_path / "development.log").read_text().splitlines()] == [
        ["stripes", "evaluate"]
    ] * 2


def test_a_look_that_cannot_be_counted_is_not_had(
    finished: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "results").write_text("a file")
    options = ["--corruptions", "--families", "development", "--results", str(tmp_path / "results")]
    assert main(["evaluate", str(run), "--cache-dir", str(cache), *options]) == 1
    told = capsys.readouterr()
    assert "cannot write" in told.err
    assert "regret" not in told.out
    assert not (run / "corruptions.json").exists()


def test_curves_and_table(run: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--corruptions", "--families", "seen", "--detail", "--plots", str(tmp_path), "--cache-dir", str(cache)]
    assert main(["evaluate", str(run), *options]) == 0
    printed = capsys.readouterr().out
    for told in ("audio:white_-10db", "visual:blur_5pct", "(visual:absent)", "mean, seen", "worst regret, seen"):
        assert told in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["severity_audio.svg", "severity_visual.svg"]
    sound = (tmp_path / "severity_audio.svg").read_text()
    assert "another_clip" in sound
    assert "pink" not in sound


def test_votes_on_encodings_are_those_on_clips(trained: TrainedRun, cache: Path) -> None:
    rows = prepare(trained.config, cache, splits=("test",)).splits["test"].rows
    suite = conditions(trained.modalities, "seen")[:1]
    encoded = encode_conditions(trained.encoders, trained.modalities, rows, suite, trained.quality, seed=0)
    ours = votes_of(trained, encoded.get(suite[0], 0), encoded.labels_N)
    theirs = head_logits(trained.encoders, trained.fused_head, trained.modalities, rows, trained.quality)
    assert ours.heads == theirs.heads
    np.testing.assert_allclose(ours.logits_NHC, theirs.logits_NHC, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.present_NH, theirs.present_NH)
    for own, other in zip(ours.features, theirs.features, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_joint_training_answers_by_its_joint_head(clips: Path, cache: Path, tmp_path: Path) -> None:
    train(configured(clips, objective="joint", epochs=1, warmup_epochs=0), tmp_path / "joint", cache_dir=cache)
    told = evaluated(tmp_path / "joint", cache, tmp_path / "figures.json", "--families", "seen")["corruptions"]
    run = load_run(tmp_path / "joint")
    rows = prepare(run.config, cache, splits=("test",)).splits["test"].rows
    features, _ = run.encoders["audio"](torch.from_numpy(rows.rows("audio", slice(None))))
    assert run.joint_head is not None
    votes_N = run.joint_head([features, torch.zeros_like(features)]).argmax(dim=1).numpy()
    assert told["conditions"]["visual:absent"]["accuracy"] == pytest.approx((votes_N == rows.labels).mean())
    assert told["conditions"]["visual:absent"]["heads"] == {}
    assert told["means"]["seen"]["regret"] is None, "no head alone to measure it against"
    assert (
        main(["evaluate", str(tmp_path / "joint"), "--corruptions", "--families", "seen", "--cache-dir", str(cache)])
        == 0
    )


def test_what_does_not_go_together_is_told(
    run: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for options, told in (
        (["--corruptions", "--families", "some"], "choose one of seen, development, all"),
        (["--detail"], "--detail and --plots go with --corruptions"),
        (["--corruptions", "--families", "seen", "--plots", str(tmp_path / "file" / "x")], "cannot write"),
        (["--corruptions", "--results", str(tmp_path / "file")], "cannot write"),
    ):
        assert main(["evaluate", str(run), "--cache-dir", str(cache), *options]) != 0
        assert told in " ".join(capsys.readouterr().err.split())
