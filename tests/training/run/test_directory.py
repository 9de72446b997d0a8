"""Training from real, if small, recordings to a run directory; repeatable, resumable, and whole."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml

from dimml.cli import main
from dimml.errors import ConfigurationError, SetupError
from dimml.fusion import fuse, softmax
from dimml.media import DecodeRequest, decode
from dimml.media.decoders.version import DECODER_VERSION
from dimml.modality import Waveform
from dimml.signal_check import QualityThresholds
from dimml_training.config import parse_config
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run, read_config, write_decoder_version
from support.tiny_training import configured, document, epochs, weights


def test_a_run_directory_is_whole(finished: Path) -> None:
    run = load_run(finished)
    assert (run.name, run.labels, run.clip_s) == ("stripes", ("high", "low"), 0.5)
    assert list(run.encoders) == [m.name for m in run.modalities] == ["audio", "visual"]
    assert not any(m.training for encoder in run.encoders.values() for m in encoder.modules())
    assert run.training["clips"] == {"train": 10, "validation": 6, "test": 6}
    assert run.training["warnings"] == [
        "6 of 10 subjects stand in more than one split (subjects high0, high1, high2, low0, low1 and 1 more): "
        "figures say little about new subjects"
    ]
    assert (run.decoder_version, (finished / "decoder.version").read_text()) == (
        DECODER_VERSION,
        f"{DECODER_VERSION}\n",
    )
    assert run.quality_report["clips"] == 10
    assert run.quality_report["audio"]["false_alarms"] == {"silent": 0, "black": 0, "frozen": 0}
    assert {name: rows.shape for name, rows in run.samples.items()} == {
        "audio": (6, 4000),
        "visual": (6, 3, 24, 24, 3),
    }
    assert sorted(run.sample_labels.tolist()) == [0, 0, 0, 1, 1, 1]
    lines = epochs(finished)
    assert [line["epoch"] for line in lines[:4]] == ["0.0", "1.0", "2.0", "3.0"]
    assert float(lines[0]["train_loss_duc"]) == 0.0
    assert [line["stage2_epoch"] for line in lines[4:]] == ["0.0", "1.0"]
    # Learnt something: a pitch and a width of stripes are not hard.
    assert run.metrics["validation"]["heads"]["audio"]["accuracy"] > 0.6


def test_the_saved_weights_give_the_saved_figures(finished: Path, clips: Path) -> None:
    """Decoded here, clip by clip, through the loaded modules and core's own fusion."""
    run = load_run(finished)
    assert run.fused_head is not None
    right, truth, answers = [], [], []
    with clips.open(newline="") as file:
        for line in csv.DictReader(file):
            if line["split"] != "test":
                continue
            media = clips.parent / line["media"]
            decoded = decode(DecodeRequest(run.modalities, {"audio": media, "visual": media}, 0.5, 0.0, None))
            rows = {name: torch.from_numpy(track.row)[None] for name, track in decoded.tracks.items()}
            encoded = [run.encoders[m.name](rows[m.name]) for m in run.modalities]
            fused_logits = run.fused_head(torch.cat([features for features, _ in encoded], dim=1))
            logits = torch.stack([*(own for _, own in encoded), fused_logits], dim=1).detach().numpy()
            answer = fuse(logits, np.ones((1, 3), np.bool_))
            answers.append(answer.probabilities_BC[0])
            truth.append(line["label"])
            right.append(run.labels[int(answers[-1].argmax())] == line["label"])
    assert run.metrics["test"]["accuracy"] == pytest.approx(np.mean(right))
    expected_nll = -np.mean([np.log(p[run.labels.index(y)]) for p, y in zip(answers, truth, strict=True)])
    assert run.metrics["test"]["nll"] == pytest.approx(expected_nll, rel=1e-3)


def test_the_same_seed_gives_the_same_run(finished: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    train(configured(clips), tmp_path / "again", cache_dir=cache)
    first, again = weights(finished), weights(tmp_path / "again")
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert epochs(finished) == epochs(tmp_path / "again")
    train(configured(clips).model_copy(update={"seed": 1}), tmp_path / "other", cache_dir=cache)
    other = weights(tmp_path / "other")
    assert not any(torch.equal(first[key], other[key]) for key in first if key.endswith("head.weight"))


@pytest.mark.slow(reason="trains in a process of its own, then here")
@pytest.mark.parametrize("at", ["epoch 3/4", "stage 2"])
def test_a_killed_run_resumes_to_the_same_end(
    finished: Path, clips: Path, cache: Path, tmp_path: Path, at: str
) -> None:
    out, config = tmp_path / "run", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document(clips)))
    command = [sys.executable, "-m", "dimml", "train", str(config), "--out", str(out), "--cache-dir", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if at in line:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(SetupError, match=r"not a finished training run: run.json is missing; finish it with"):
        load_run(out)
    told: list[str] = []
    metrics = train(configured(clips), out, cache_dir=cache, resume=True, tell=told.append)
    assert not any("epoch 1/4" in line for line in told), "it began anew"
    assert any("stage 1" in line for line in told) == (at != "stage 2")
    assert metrics == json.loads((finished / "metrics.json").read_text())
    first, resumed = weights(finished), weights(out)
    assert all(torch.equal(first[key], resumed[key]) for key in first)
    assert epochs(finished) == epochs(out)


def test_a_run_is_not_overwritten(finished: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    config = configured(clips)
    for out, options, message in (
        (finished, {}, "already holds a finished run; choose another place"),
        (finished, {"resume": True}, "is finished"),
        (clips.parent, {}, "is no run directory"),
        (tmp_path / "nothing", {"resume": True}, "nothing to resume"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            train(config, out, cache_dir=cache, **options)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text((finished / "config.yaml").read_text())
    with pytest.raises(ConfigurationError, match="already holds a run; --resume goes on with it"):
        train(config, unfinished, cache_dir=cache)
    for began_with in (1, 7):  # no file: a run that was started before there was one
        with pytest.raises(
            ConfigurationError,
            match=f"clips of decoder version {began_with}, and this dimml has version {DECODER_VERSION}: finish",
        ):
            train(config, unfinished, cache_dir=cache, resume=True)
        (unfinished / "decoder.version").write_text("7\n")
    (unfinished / "decoder.version").write_text(f"{DECODER_VERSION}\n")
    with pytest.raises(ConfigurationError, match="the clips, labels or splits have changed"):
        train(config, unfinished, cache_dir=cache, resume=True)
    (unfinished / "data.sha256").write_text((finished / "data.sha256").read_text())
    with pytest.raises(ConfigurationError, match="another config"):
        train(configured(clips, lambda_duc=0.5), unfinished, cache_dir=cache, resume=True)
    (unfinished / "checkpoints").mkdir()
    (unfinished / "checkpoints" / "last.ckpt").write_bytes(b"half a checkpoint")
    with pytest.raises(SetupError, match=r"last\.ckpt cannot be read"):
        train(config, unfinished, cache_dir=cache, resume=True)


def test_an_encoder_that_cannot_be_built_leaves_no_run_behind(clips: Path, cache: Path, tmp_path: Path) -> None:
    content = document(clips)
    content["modalities"][0]["encoder"]["spectrogram"]["window_ms"] = 5000
    with pytest.raises(ConfigurationError, match="modality 'audio': encoder: "):
        train(parse_config(content, "test"), tmp_path / "run", cache_dir=cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epoch", ["epoch 1/4", "epoch 4/4"])
def test_a_disk_that_fills_up_is_told_with_its_place_and_the_run_goes_on(
    finished: Path, clips: Path, cache: Path, tmp_path: Path, epoch: str
) -> None:
    """A limit on the size of a file stands for the disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(line: str) -> None:
        if epoch in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    out = tmp_path / "run"
    try:
        with pytest.raises(
            SetupError, match=rf"cannot write to {out}: File too large; free some space, then `--resume"
        ):
            train(configured(clips), out, cache_dir=cache, tell=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(out.rglob("*.part"))
    if epoch == "epoch 4/4":  # checkpoints of the first three epochs are whole
        metrics = train(configured(clips), out, cache_dir=cache, resume=True)
        assert metrics == json.loads((finished / "metrics.json").read_text())


def test_a_run_is_not_resumed_with_other_data(finished: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    """The table is a copy that is edited in place: the config says nothing of it."""
    content = document(tmp_path / "clips.csv")
    content["data"]["media_root"] = str(clips.parent)
    config = parse_config(content, "test")
    lines = clips.read_text().splitlines()
    (tmp_path / "clips.csv").write_text(clips.read_text())
    out = tmp_path / "run"

    def stop(line: str) -> None:
        if "epoch 1/4" in line:
            raise SetupError("stopped")

    with pytest.raises(SetupError, match="stopped"):
        train(config, out, cache_dir=cache, tell=stop)
    moved = [*lines[:1], lines[1].replace(",train,", ",validation,"), *lines[2:]]
    relabelled = [*lines[:1], lines[1].replace(",low,", ",high,"), *lines[2:]]
    for changed in (moved, relabelled, lines[:-1]):
        (tmp_path / "clips.csv").write_text("\n".join(changed) + "\n")
        with pytest.raises(ConfigurationError, match=r"have changed since the run in .* was started; train anew"):
            train(config, out, cache_dir=cache, resume=True)
    (tmp_path / "clips.csv").write_text(clips.read_text())
    assert train(config, out, cache_dir=cache, resume=True) == json.loads((finished / "metrics.json").read_text())


def test_a_loss_that_is_not_finite_ends_training(clips: Path, cache: Path, tmp_path: Path) -> None:
    config = configured(clips, optimiser={"kind": "sgd", "lr": 1e30})
    with pytest.raises(SetupError, match=r"not finite; train anew with a lower stage1\.optimiser\.lr and ano"):
        train(config, tmp_path / "run", cache_dir=cache)


@pytest.mark.parametrize("broken", ["weights.safetensors", "run.json", "samples.safetensors"])
def test_a_damaged_run_is_refused(finished: Path, tmp_path: Path, broken: str) -> None:
    for path in finished.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes()[: 100 if path.name == broken else None])
    with pytest.raises(SetupError, match="is damaged"):
        load_run(tmp_path)


def test_a_run_of_an_unknown_form_is_refused(finished: Path, tmp_path: Path) -> None:
    for path in finished.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    record = json.loads((finished / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "schema_version": 2}))
    with pytest.raises(SetupError, match="schema_version"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k != "schema_version"}))
    assert load_run(tmp_path).labels


def test_a_run_says_which_decoder_made_its_rows(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "decoder.version").unlink()  # as in runs made before it
    assert load_run(run).decoder_version == 1
    write_decoder_version(run, 7)
    assert load_run(run).decoder_version == 7
    (run / "decoder.version").write_text("seven")
    with pytest.raises(SetupError, match=r"decoder\.version holds 'seven', not a version"):
        load_run(run)


def test_a_run_of_before_decodes_as_it_was_trained(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields of decoder version 2 have their historic values in a run of version 1, not their defaults."""
    monkeypatch.setattr(Waveform, "HISTORIC_DEFAULTS", {"tensor": "SOUND"})
    monkeypatch.setattr(QualityThresholds, "HISTORIC_DEFAULTS", {"black_mean": 7.0})
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["modalities"][0]["input"]["tensor"], config["quality"]["black_mean"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    write_decoder_version(run, 1)
    before = read_config(run)
    assert (before.inputs[0].tensor, before.quality.black_mean) == ("SOUND", 7.0)
    write_decoder_version(run, 2)
    now = read_config(run)
    assert (now.inputs[0].tensor, now.quality) == ("WAVEFORM", QualityThresholds())


def test_evaluate_gives_the_figures_of_training_and_a_row_per_clip(
    finished: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    options = ["--cache-dir", str(cache), "--noise-db", "0", "--noise-db", "-30", "--predictions", str(rows), "--json"]
    assert main(["evaluate", str(finished), *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["conditions"]["clean"] == json.loads((finished / "metrics.json").read_text())["test"]
    assert set(answer["conditions"]) == {"clean", "white_0db", "white_-30db"}
    clean, noisy = answer["conditions"]["clean"]["heads"], answer["conditions"]["white_-30db"]["heads"]
    assert noisy["audio"]["mean_certainty"] != clean["audio"]["mean_certainty"]
    assert noisy["visual"]["accuracy"] == clean["visual"]["accuracy"]
    with rows.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6
    # As labelled, without the margin, which a bundle adds.
    assert {(line["start_s"], line["end_s"]) for line in lines} == {("0.2", "0.7")}
    run = load_run(finished)
    line = lines[0]
    media = Path(line["path_audio"])
    decoded = decode(DecodeRequest(run.modalities, {"audio": media}, run.clip_s, 0.2, 0.7, margin_s=0.3))
    _, logits = run.encoders["audio"](torch.from_numpy(decoded.tracks["audio"].row)[None])
    probabilities = softmax(logits.detach().numpy())[0]
    assert run.labels[int(probabilities.argmax())] == line["label_audio"]
    assert float(line["probability_audio"]) == pytest.approx(float(probabilities.max()), abs=1e-4)


def test_commands_name_what_is_wrong(
    finished: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["evaluate", str(tmp_path)], "is not a finished training run"),
        (["evaluate", str(finished), "--split", "dev"], "choose one of train, validation, test"),
        (["train", str(tmp_path / "none.yaml")], "cannot read"),
        (["evaluate", str(finished), "--families", "seen"], "go with --corruptions"),
        (["evaluate", str(finished), "--noise-db", "nan"], "--noise-db takes decibels"),
        (
            ["evaluate", str(finished), "--cache-dir", str(cache), "--predictions", str(tmp_path / "no" / "x.csv")],
            "cannot write",
        ),
    ):
        assert main(words) == 1
        assert message in capsys.readouterr().err
    assert main(["evaluate", str(finished), "--seed=-1"]) == 2
    assert "greater than or equal to 0" in " ".join(capsys.readouterr().err.split())


def test_encoders_whose_code_has_changed_since_are_found_out(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights fit as they did: only what the encoder makes of a clip tells."""
    run = load_run(finished)
    assert run.verified
    kept = safetensors.numpy.load_file(finished / "samples.safetensors")
    with torch.no_grad():
        for name, encoder in run.encoders.items():
            np.testing.assert_allclose(
                kept[f"logits.{name}"], encoder(torch.from_numpy(run.samples[name]))[1], atol=1e-5
            )
    monkeypatch.setattr("dimml_training.models.spectrogram.CLIP_POWER_FLOOR", 1.0)
    with pytest.raises(
        SetupError, match=r"its audio encoder says other things .* \(trained with dimml \d.*train it anew"
    ):
        load_run(finished)
    # A run from before the logits were kept still loads, to be scored.
    early = shutil.copytree(finished, tmp_path / "early")
    without = {name: array for name, array in kept.items() if not name.startswith("logits.")}
    safetensors.numpy.save_file(without, early / "samples.safetensors")
    assert not load_run(early).verified
