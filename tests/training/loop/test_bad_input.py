"""Bad data, a full disk, foreign checkpoints: each one clear line, with nothing overwritten."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dimml.cli import main
from dimml.errors import ConfigurationError, DataError, SetupError
from dimml_training.config import parse_config
from dimml_training.data.cache import ClipCache
from dimml_training.data.loader import ClipRows, batches
from dimml_training.data.prepare import prepare
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.tiny_training import configured, document


def table(clips: Path, to: Path, keep: object) -> Path:
    """The manifest's lines that ``keep`` says yes to, beside the same media."""
    head, *lines = clips.read_text().splitlines()
    path = to / "clips.csv"
    kept = [f"{clips.parent}/{line}" for line in lines if keep(line)]  # type: ignore[operator]
    path.write_text("\n".join([head, *kept]) + "\n")
    return path


def test_a_class_missing_from_training_is_refused(clips: Path, cache: Path, tmp_path: Path) -> None:
    path = table(clips, tmp_path, lambda line: not line.startswith("train_high"))
    content = document(path)
    content["data"]["labels"] = ["high", "low"]
    with pytest.raises(DataError, match="the train split has no clip of class high"):
        train(parse_config(content, "test"), tmp_path / "run", cache_dir=cache)
    assert not (tmp_path / "run").exists()


def test_a_class_missing_from_another_split_is_a_warning(clips: Path, cache: Path, tmp_path: Path) -> None:
    path = table(clips, tmp_path, lambda line: not line.startswith("test_high"))
    warnings = prepare(configured(path), cache).warnings
    assert "the test split has no clip of class high" in warnings


def test_one_clip_in_a_class_is_a_warning_and_trains(clips: Path, cache: Path, tmp_path: Path) -> None:
    path = table(clips, tmp_path, lambda line: not line.startswith("train_high") or line.startswith("train_high_0"))
    told: list[str] = []
    train(configured(path, epochs=2), tmp_path / "run", cache_dir=cache, tell=told.append)
    warning = next(line for line in told if "only one training clip" in line)
    assert warning.startswith("warning: only one training clip of class high: it is its own class mean")
    assert warning.removeprefix("warning: ") in load_run(tmp_path / "run").training["warnings"]


def test_a_batch_of_one_is_refused(clips: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"stage1\.batch_size: Input should be greater than or equal to 2"):
        configured(clips, batch_size=1)
    path = table(clips, tmp_path, lambda line: not line.startswith("train") or line.startswith("train_high_0"))
    content = document(path)
    content["data"]["labels"] = ["high", "low"]
    with pytest.raises(DataError, match="the train split has no clip of class low"):
        train(parse_config(content, "test"), tmp_path / "run", cache_dir=cache)
    assert not (tmp_path / "run").exists()


def test_one_validation_clip_is_refused_before_training_where_the_fusion_is_chosen(
    clips: Path, cache: Path, tmp_path: Path
) -> None:
    path = table(clips, tmp_path, lambda line: not line.startswith("validation") or "validation_low_0" in line)
    content = document(path)
    del content["fusion"]
    told: list[str] = []
    with pytest.raises(
        SetupError, match="chosen on validation clips, and there is 1: give 2 at least, or fix `fusion`"
    ):
        train(parse_config(content, "test"), tmp_path / "run", cache_dir=cache, tell=told.append)
    assert not any("epoch" in line for line in told)


@pytest.mark.parametrize(("audio", "visual"), [("none", "some"), ("some", "none"), ("all", "all"), ("none", "none")])
def test_dimensions_that_leave_duc_nothing_are_named(clips: Path, cache: Path, audio: str, visual: str) -> None:
    config = configured(clips)
    train_rows = prepare(config, cache).splits["train"].rows
    module = DetachedEncoders(config, 2, train_rows).eval()
    assert module.idle_pairs() == [], "before the separation there is nothing to say"
    chosen = {"none": [], "some": [0, 3], "all": list(range(8))}
    for index, which in enumerate((audio, visual)):
        module.effective_MD[index, chosen[which]] = True
    module.separated.fill_(True)
    idle = module.idle_pairs()
    taught = [
        f"teach {s} from {t}"
        for t, s, own in (("audio", "visual", audio), ("visual", "audio", visual))
        if own == "none" or audio == visual
    ]
    assert [any(text in line for line in idle) for text in taught] == [True] * len(taught)
    assert len(idle) == len(taught)
    duc = module.losses(next(iter(batches(train_rows, 4))))["duc"]
    assert torch.isfinite(duc)
    assert (duc.item() == 0.0) == (len(idle) == 2)


def test_training_says_that_duc_has_nothing_to_do(
    clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As features that all tell the classes apart equally well would have it."""
    monkeypatch.setattr(
        "dimml_training.detached.encoders.effective_dimensions",
        lambda features, *_: torch.zeros(features.shape[1], dtype=bool),
    )
    told: list[str] = []
    train(configured(clips), tmp_path / "run", cache_dir=cache, tell=told.append)
    lines = [line for line in told if "DUC has nothing to teach" in line]
    assert lines[0].endswith("no dimension is effective in audio alone (audio 0, visual 0 of 8)")
    assert len(lines) == 2, "once for each pair, not once an epoch"
    warnings = load_run(tmp_path / "run").training["warnings"]
    assert [f"warning: {warning}" for warning in warnings if "DUC" in warning] == lines


def test_a_full_disk_while_caching_is_one_line(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    """/dev/full is the kernel's own full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    config = configured(clips)
    store = tmp_path / "cache"
    folder = ClipCache(store, config.inputs, config.clip_s, config.quality).folder
    rows = folder / "visual.rows"
    rows.unlink()
    rows.symlink_to("/dev/full")
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(document(clips)))
    command = ["train", str(path), "--out", str(tmp_path / "run"), "--cache-dir", str(store)]
    assert main(command) != 0
    said = capsys.readouterr().err
    assert "No space left on device; free some space or choose another place with --cache-dir" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()
    # Nothing of the clip that did not fit counts, and with space it goes on.
    assert not (folder / "index.jsonl").exists()
    rows.unlink()
    rows.touch()
    again, whole = prepare(config, store), prepare(config, cache)
    for split, data in whole.splits.items():
        for name in ("audio", "visual"):
            np.testing.assert_array_equal(
                again.splits[split].rows.rows(name, slice(None)), data.rows.rows(name, slice(None))
            )


@pytest.mark.parametrize("damage", ["garbage", "odd values", "index gone", "rows gone"])
def test_a_corrupt_cache_is_decoded_anew(clips: Path, cache: Path, tmp_path: Path, damage: str) -> None:
    config, store = configured(clips), tmp_path / "cache"
    prepare(config, store)
    folder = ClipCache(store, config.inputs, config.clip_s, config.quality).folder
    index = folder / "index.jsonl"
    if damage == "garbage":
        index.write_bytes(os.urandom(4096))
    elif damage == "odd values":
        lines = [json.loads(line) for line in index.read_text().splitlines() if line]
        lines[0]["slot"], lines[1]["slot"], lines[2]["crc32"], lines[3]["slot"] = "0", -1, [1], 10**9
        index.write_text("\n".join(["[]", "null", *map(json.dumps, lines)]))
    elif damage == "index gone":
        index.unlink()
    else:
        (folder / "audio.rows").write_bytes(b"")
    healed, whole = prepare(config, store), prepare(config, cache)
    for split, data in whole.splits.items():
        for name in ("audio", "visual"):
            np.testing.assert_array_equal(
                healed.splits[split].rows.rows(name, slice(None)), data.rows.rows(name, slice(None))
            )


def test_a_checkpoint_of_another_config_is_refused(clips: Path, cache: Path, tmp_path: Path) -> None:
    """The folder says the right config, and somebody put another run's checkpoint into it."""
    content = document(clips)
    for modality in content["modalities"]:
        modality["encoder"]["backbone"] = {**modality["encoder"]["backbone"], "hidden_sizes": [4, 12]}
    other = parse_config(content, "test")

    def stop(line: str) -> None:
        if "epoch 1/4" in line:
            raise SetupError("stopped")

    for config, out in ((configured(clips), "run"), (other, "other")):
        with pytest.raises(SetupError, match="stopped"):
            train(config, tmp_path / out, cache_dir=cache, tell=stop)
    last = Path("checkpoints") / "last.ckpt"
    (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
    module = DetachedEncoders(other, 2, ClipRows({}, np.zeros(0, np.int64), np.zeros(0, np.int64)))
    foreign = {"state_dict": module.state_dict(), "epoch": 0}
    torch.save(foreign, tmp_path / "run" / last)
    before = (tmp_path / "run" / last).read_bytes()
    with pytest.raises(SetupError, match=r"last\.ckpt is of another config: its weights do not fit; train anew"):
        train(configured(clips), tmp_path / "run", cache_dir=cache, resume=True)
    assert (tmp_path / "run" / last).read_bytes() == before


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def test_data_larger_than_memory_stream_from_the_cache(tmp_path: Path) -> None:
    """A sparse file of twice this machine's memory, rows of 1 MiB: reading it takes memory for a batch, not for it."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    row = 2**20
    slots = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // row
    with (tmp_path / "visual.rows").open("wb") as file:
        file.truncate(slots * row)
    array = np.memmap(tmp_path / "visual.rows", np.uint8, "r", shape=(slots, row))
    chosen = np.linspace(0, slots - 1, 256).astype(np.int64)
    clips = ClipRows({"visual": array}, chosen, np.zeros(len(chosen), np.int64))
    before, most, read = anonymous_bytes(), 0, 0
    for rows, *_ in batches(clips, 8, seed=0):
        read += rows["visual"].numel()
        most = max(most, anonymous_bytes() - before)
    assert read == 256 * row
    assert most < 64 * row, "a batch is 8 MiB; all that was read is 256"
