"""Training from real, if small, recordings to a run directory; repeatable, resumable, and honest about its data."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

from dimml.cli import main
from dimml.errors import ConfigurationError, DataError, SetupError
from dimml.fusion import fuse, softmax
from dimml.media import DecodeRequest, decode
from dimml_training.cache import ClipCache
from dimml_training.config import TrainConfig, parse_config
from dimml_training.prepare import prepare
from dimml_training.run_directory import load_run
from dimml_training.training import train
from support.media_maker import Picture, tone, write_clip

BACKBONE = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "stem": "strided"}
OPTIMISER = {"kind": "adamw", "lr": 0.01, "schedule": "cosine"}


def stripes(wide: int) -> Picture:
    """Vertical stripes that drift from picture to picture."""

    def picture(index: int) -> npt.NDArray[np.uint8]:
        lit = ((np.arange(96) + 3 * index) // wide) % 2
        return np.broadcast_to((40 + 160 * lit)[None, :, None], (64, 96, 3)).astype(np.uint8)

    return picture


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes told apart by pitch and by stripes, cut from recordings of 0.8 s by a time range."""
    folder = tmp_path_factory.mktemp("clips")
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["media", "label", "split", "subject", "start_s", "end_s"])
        for split, each in (("train", 5), ("validation", 3), ("test", 3)):
            for label, (pitch_hz, wide) in {"low": (300, 6), "high": (1500, 24)}.items():
                for number in range(each):
                    name = f"{split}_{label}_{number}.mp4"
                    sound = tone(pitch_hz + 40 * number, 0.2 + 0.05 * number)
                    write_clip(folder / name, 0.8, sound=sound, picture=stripes(wide + number))
                    table.writerow([name, label, split, f"{label}{number}", 0.2, 0.7])
    return folder / "clips.csv"


def document(manifest: Path, **stage1: Any) -> dict[str, Any]:
    columns = {"subject": "subject", "start_s": "start_s", "end_s": "end_s"}
    return {
        "name": "stripes",
        "clip_s": 0.5,
        "threads": 1,
        # The margin reaches past the end of the recording, where it must stop.
        "data": {"manifest": str(manifest), "columns": columns, "margin_s": 0.3},
        "modalities": [
            {
                "input": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 4000},
                "encoder": {"backbone": BACKBONE, "spectrogram": {"mels": 16, "mask_time": 0.2}, "dropout": 0.1},
                "augment": {"noise_probability": 0.5, "shift_ms": 5},
            },
            {
                "input": {"kind": "frames", "name": "visual", "frames": 3, "height": 24, "width": 24},
                "encoder": {"backbone": BACKBONE, "pooling": {"kind": "temporal_conv", "dropout": 0.1}},
                "augment": {"shift": 0.1, "brightness": 10},
            },
        ],
        "stage1": {"epochs": 4, "warmup_epochs": 1, "batch_size": 4, "optimiser": OPTIMISER, **stage1},
        "stage2": {"epochs": 2, "optimiser": OPTIMISER},
    }


def configured(manifest: Path, **stage1: Any) -> TrainConfig:
    return parse_config(document(manifest, **stage1), "test")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, shared by tests that only read it."""
    out = tmp_path_factory.mktemp("runs") / "stripes"
    torch.set_num_threads(1)
    train(configured(clips), out, cache_dir=cache)
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    run = load_run(out)
    assert run.fused_head is not None
    modules: dict[str, torch.nn.Module] = {**run.encoders, "shared": run.shared_head, "fused": run.fused_head}
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def epochs(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_a_killed_run_resumes_to_the_same_end(finished: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "run", tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document(clips)))
    command = [sys.executable, "-m", "dimml", "train", str(config), "--out", str(out), "--cache-dir", str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 3/4" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(SetupError, match=r"not a finished training run: run.json is missing; finish it with"):
        load_run(out)
    told: list[str] = []
    metrics = train(configured(clips), out, cache_dir=cache, resume=True, tell=told.append)
    assert not any("epoch 1/4" in line for line in told), "it began anew"
    assert metrics == json.loads((finished / "metrics.json").read_text())
    first, resumed = weights(finished), weights(out)
    assert all(torch.equal(first[key], resumed[key]) for key in first)
    assert epochs(finished) == epochs(out)


def test_a_run_is_not_overwritten(finished: Path, clips: Path, cache: Path, tmp_path: Path) -> None:
    config = configured(clips)
    for out, options, message in (
        (finished, {}, "already holds a run"),
        (finished, {"resume": True}, "is finished"),
        (clips.parent, {}, "is no run directory"),
        (tmp_path / "nothing", {"resume": True}, "nothing to resume"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            train(config, out, cache_dir=cache, **options)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_text((finished / "config.yaml").read_text())
    with pytest.raises(ConfigurationError, match="another config"):
        train(configured(clips, lambda_duc=0.5), unfinished, cache_dir=cache, resume=True)
    (unfinished / "checkpoints").mkdir()
    (unfinished / "checkpoints" / "last.ckpt").write_bytes(b"half a checkpoint")
    with pytest.raises(SetupError, match=r"last\.ckpt cannot be read"):
        train(config, unfinished, cache_dir=cache, resume=True)


def test_a_loss_that_is_not_finite_ends_training(clips: Path, cache: Path, tmp_path: Path) -> None:
    config = configured(clips, optimiser={"kind": "sgd", "lr": 1e30})
    with pytest.raises(SetupError, match=r"not finite; lower stage1\.optimiser\.lr"):
        train(config, tmp_path / "run", cache_dir=cache)


@pytest.mark.parametrize("broken", ["weights.safetensors", "run.json", "samples.safetensors"])
def test_a_damaged_run_is_refused(finished: Path, tmp_path: Path, broken: str) -> None:
    for path in finished.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes()[: 100 if path.name == broken else None])
    with pytest.raises(SetupError, match="is damaged"):
        load_run(tmp_path)


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
    # The margin went past the end of the recording: the range is left open there, as a server must be asked.
    assert {(line["start_s"], line["end_s"]) for line in lines} == {("0.0", "")}
    run = load_run(finished)
    line = lines[0]
    media = Path(line["path_audio"])
    decoded = decode(DecodeRequest(run.modalities, {"audio": media}, run.clip_s, float(line["start_s"])))
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
        (
            ["evaluate", str(finished), "--cache-dir", str(cache), "--predictions", str(tmp_path / "no" / "x.csv")],
            "cannot write",
        ),
    ):
        assert main(words) == 1
        assert message in capsys.readouterr().err


def test_media_that_cannot_be_used_stand_in_one_report_with_the_rest(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for source in clips.parent.glob("*.mp4"):
        (folder / source.name).symlink_to(source)
    write_clip(folder / "silent.mp4", 0.8, sound="silence")
    write_clip(folder / "mute.mp4", 0.8, sound=None)
    write_clip(folder / "frozen.mp4", 0.8, picture="frozen")
    (folder / "broken.mp4").write_bytes(b"this is no recording")
    extra = [
        *(f"{name}.mp4,low,train,x,0.2,0.7" for name in ("silent", "mute", "frozen", "broken", "gone")),
        "train_low_0.mp4,low,train,x,0.9,1.4",
        "train_low_0.mp4,low,train,x,0.2,5",
    ]
    manifest = folder / "clips.csv"
    manifest.write_text(clips.read_text() + "\n".join(extra) + "\n")
    with pytest.raises(DataError) as raised:
        prepare(configured(manifest), tmp_path / "cache")
    report = raised.value.message
    for expected in (
        "silent.mp4: audio unusable:silent",
        "mute.mp4: audio absent:no_track",
        "frozen.mp4: visual unusable:frozen",
        "broken.mp4: audio unusable:undecodable, visual unusable:undecodable",
        "missing file " + str(folder / "gone.mp4"),
        "line 29: " + str(folder / "train_low_0.mp4"),
        "its end (5 s) is past the end of the recording",
    ):
        assert expected in report
    assert len(raised.value.problems) == 7
    assert raised.value.problems[-1] not in raised.value.problems[:-1]


def test_the_cache_follows_content(clips: Path, tmp_path: Path) -> None:
    """Decoded once, whatever the file is called; again when what is in it changes."""
    folder, store = tmp_path / "clips", tmp_path / "cache"
    folder.mkdir()
    for source in (clips, *clips.parent.glob("*.mp4")):
        (folder / source.name).write_bytes(source.read_bytes())
    decoded: list[int] = []

    def count(done: int, total: int) -> None:
        decoded.append(done)

    config = configured(folder / "clips.csv")
    first = prepare(config, store, progress=count)
    assert decoded == list(range(1, 11)), "22 clips, of which the splits share some: 10 different contents"
    decoded.clear()
    prepare(config, store, progress=count)
    assert decoded == []
    (folder / "train_low_0.mp4").rename(folder / "moved.mp4")
    (folder / "clips.csv").write_text((folder / "clips.csv").read_text().replace("train_low_0.mp4", "moved.mp4"))
    prepare(config, store, progress=count)
    assert decoded == []
    write_clip(folder / "moved.mp4", 0.8, sound=tone(700), picture=stripes(9))
    changed = prepare(config, store, progress=count)
    assert decoded == [1]
    before, after = first.splits["train"].rows, changed.splits["train"].rows
    differ = [not np.array_equal(before.rows("audio", [i]), after.rows("audio", [i])) for i in range(10)]
    assert differ == [clip.media["audio"].name == "moved.mp4" for clip in changed.splits["train"].clips]
    # A damaged row is decoded again; the sound ones are not.
    expected = changed.splits["test"].rows.rows("visual", slice(None))
    folder_of_rows = ClipCache(store, config.inputs, config.clip_s, config.quality).folder
    with (folder_of_rows / "visual.rows").open("rb+") as file:
        file.write(b"\x00" * 10)
    decoded.clear()
    healed = prepare(config, store, progress=count)
    assert decoded == [1]
    np.testing.assert_array_equal(healed.splits["test"].rows.rows("visual", slice(None)), expected)
