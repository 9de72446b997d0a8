"""Several processes make the training of one: losses, gradients, separation, batches; and `dimml train` under torchrun.

The processes are real, on loopback with gloo.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, distributed, nn

from dimml.errors import ConfigurationError, SetupError
from dimml_training.config import TrainConfig, parse_config
from dimml_training.data.loader import Batch, ClipRows, EpochSampler, batches
from dimml_training.data.prepare import prepare
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.distributed import Ranks, average_statistics, connected, mean_of_all, rows_of_all
from dimml_training.loop.epoch_log import EpochLog
from dimml_training.loop.fit_encoders import fit_stage1
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from support.tiny_training import configured, document, epochs

CLASSES, CLIPS, BATCH = 3, 40, 16


def three() -> TrainConfig:
    """Sound, frames and flow; no dropout, so that only the sharing could make a difference."""
    backbone = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "stem": "plain"}
    picture = {"frames": 2, "height": 12, "width": 12}
    content = {
        "name": "three",
        "clip_s": 0.25,
        "data": {"manifest": "none.csv"},
        "modalities": [
            {
                "input": {"kind": "waveform", "name": "audio", "sample_rate_hz": 8000, "samples": 2000},
                "encoder": {"backbone": backbone, "spectrogram": {"mels": 8}},
            },
            {"input": {"kind": "frames", "name": "visual", **picture}, "encoder": {"backbone": backbone}},
            {"input": {"kind": "flow", "name": "motion", **picture}, "encoder": {"backbone": backbone}},
        ],
        "stage1": {"epochs": 2, "warmup_epochs": 1, "batch_size": BATCH, "duc_temperature": 5.0},
    }
    return parse_config(content, "test")


def random_clips(config: TrainConfig, *, holes: bool = False) -> ClipRows:
    """With holes, many clips lack sound or motion, more in one process's part of a batch than in the other's."""
    rng = np.random.default_rng(0)
    arrays = {
        m.name: rng.standard_normal((CLIPS, *m.shape)).astype(np.float32) * 0.1
        if m.kind == "waveform"
        else rng.integers(0, 256, (CLIPS, *m.shape), dtype=np.uint8)
        for m in config.inputs
    }
    has = {"audio": rng.random(CLIPS) < 0.4, "motion": rng.random(CLIPS) < 0.6} if holes else {}
    if holes:
        arrays["audio"][~has["audio"]] = np.nan
    return ClipRows(arrays, np.arange(CLIPS), np.arange(CLIPS) % CLASSES, has)


class Step(nn.Module):
    """One step's loss as the forward pass: what DistributedDataParallel wraps."""

    def __init__(self, module: DetachedEncoders) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        parts = self.module.losses(batch)
        return torch.stack(list(parts.values())).sum(), parts


def one_step(ranks: Ranks, *, holes: bool = False) -> dict[str, Tensor]:
    """Losses, gradients and effective dimensions of the first step after the separation, over all processes."""
    config = three()
    torch.manual_seed(0)
    clips = random_clips(config, holes=holes)
    module = DetachedEncoders(config, CLASSES, clips)
    module.separate()
    module.eval()
    step = Step(module)
    wrapped = (
        nn.parallel.DistributedDataParallel(step, broadcast_buffers=False, find_unused_parameters=holes)
        if ranks.size > 1
        else step
    )
    batch = next(iter(batches(clips, BATCH, seed=0, ranks=ranks)))
    assert len(batch.labels_B) == BATCH // ranks.size
    total, parts = wrapped(batch)
    torch.autograd.backward(total)
    losses = mean_of_all({name: float(part.detach()) for name, part in parts.items()})
    return {
        **{f"loss.{name}": torch.tensor(value, dtype=torch.float64) for name, value in losses.items()},
        **{f"gradient.{name}": p.grad for name, p in module.named_parameters() if p.grad is not None},
        "effective": module.effective_MD,
    }


def process(rank: int, port: int, folder: Path) -> None:
    """One of two processes; what it saw goes into a file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    ranks = connected()
    assert ranks == Ranks(rank, 2)
    # Parts of unequal length come together in order.
    assert rows_of_all(torch.arange(3) if rank == 0 else torch.arange(3, 5)).tolist() == [0, 1, 2, 3, 4]
    norm = nn.BatchNorm1d(2)
    norm(torch.tensor([[0.0, 1.0], [2.0, 5.0]]) + rank)
    mean_before = rows_of_all(norm.running_mean[None]).mean(dim=0)
    average_statistics(norm)
    assert torch.equal(norm.running_mean, mean_before)
    norm.running_mean.fill_(2.0 + rank)
    average_statistics(norm, rows=3 - 2 * rank)
    assert norm.running_mean.tolist() == [2.25, 2.25], "three rows of 2 and one of 3"
    torch.save(one_step(ranks), folder / f"{rank}.pt")
    torch.save(one_step(ranks, holes=True), folder / f"{rank}_holes.pt")
    distributed.barrier()
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.slow(reason="steps in two processes, each with torch to import")
@pytest.mark.timeout(300)  # interpreters that start on a busy machine
def test_two_processes_of_8_make_the_step_of_one_of_16(tmp_path: Path) -> None:
    port = str(free_port())
    command = [sys.executable, __file__]
    running = [
        subprocess.Popen([*command, str(rank), port, str(tmp_path)], env=environment(), stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for one in running:
        _, said = one.communicate(timeout=280)
        assert one.returncode == 0, said.decode()
    # In the first batch, the two parts differ in how many clips have a modality.
    first = next(iter(batches(random_clips(three(), holes=True), BATCH, seed=0)))
    for there in first.present.values():
        assert there[: BATCH // 2].sum() != there[BATCH // 2 :].sum()
    for holes, kept in ((False, ""), (True, "_holes")):
        alone = one_step(Ranks(), holes=holes)
        assert alone["loss.duc"] > 0.1
        assert 0 < alone["effective"].sum() < alone["effective"].numel()
        for rank in range(2):
            shared = torch.load(tmp_path / f"{rank}{kept}.pt", weights_only=True)
            assert set(shared) == set(alone)
            assert torch.equal(shared["effective"], alone["effective"])
            for name, value in alone.items():
                if name.startswith("loss."):
                    assert float(shared[name]) == pytest.approx(float(value), rel=1e-6), name
                elif name.startswith("gradient."):
                    assert (shared[name] - value).abs().max() < 1e-5, name


@pytest.mark.parametrize(("clips", "size"), [(40, 2), (41, 2), (35, 2), (40, 4), (16, 1), (17, 1)])
def test_processes_share_every_batch_evenly(clips: int, size: int) -> None:
    parts = [list(EpochSampler(clips, BATCH, seed=3, ranks=Ranks(rank, size, size))) for rank in range(size)]
    whole = list(EpochSampler(clips, BATCH, seed=3))
    assert [len(EpochSampler(clips, BATCH, seed=3, ranks=Ranks(r, size))) for r in range(size)] == [
        len(parts[0])
    ] * size
    steps = list(zip(*parts, strict=True))
    for together, batch in zip(steps, whole, strict=False):
        assert len({len(part) for part in together}) == 1
        assert len(together[0]) >= 2
        # The same clips in the same step; only what cannot be shared is missing.
        shared = [clip for part in together for clip in part]
        assert shared == batch[: len(shared)]
        assert len(batch) - len(shared) < size
    assert sum(len(batch) for batch in whole[len(steps) :]) < 2 * size
    for rank in range(size):
        stretch = [c for batch in EpochSampler(clips, 4, seed=None, ranks=Ranks(rank, size)) for c in batch]
        assert stretch == list(range(clips * rank // size, clips * (rank + 1) // size))


def test_what_processes_cannot_share_is_refused(
    clips: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torchrun's environment would have it, before anything is written."""
    balanced = {"objective": "joint", "joint": {"modulation": "ogm_ge"}}
    for stage1, size, field, message in (
        ({}, 3, "stage1.batch_size", "4 clips in a step cannot be shared evenly among 3 processes"),
        ({}, 4, "stage1.batch_size", "take a multiple of 4, 8 at least"),
        (balanced, 2, "stage1.joint.modulation", "ogm_ge balances the gradients of one process"),
    ):
        told = {"TORCHELASTIC_RUN_ID": "x", "RANK": 0, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        for name, value in told.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(ConfigurationError, match=message) as raised:
            train(configured(clips, **stage1), tmp_path / "run", cache_dir=cache)
        assert raised.value.field == field
    assert not (tmp_path / "run").exists()
    # So few clips that a process would go without.
    config = configured(clips, batch_size=16)
    data = prepare(config, cache)
    alone = {"resume": False, "tell": lambda _: None, "bar": False}
    with pytest.raises(SetupError, match="at least 2 training clips for each of 8 processes, and there are 10"):
        fit_stage1(config, data, tmp_path, EpochLog([]), **alone, ranks=Ranks(0, 8, 8))


def torchrun(config: Path, *options: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(free_port())]
    return subprocess.run(
        [sys.executable, *launcher, "-m", "dimml", "train", str(config), *options],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow(reason="trains in two processes, each with torch to import")
@pytest.mark.timeout(300)
def test_dimml_train_under_torchrun(clips: Path, cache: Path, tmp_path: Path, finished: Path) -> None:
    config, out = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(document(clips)))
    options = ("--out", str(out), "--cache-dir", str(cache), "--json")
    done = torchrun(config, *options)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)  # said once, by the first process
    assert metrics["test"] == json.loads((out / "metrics.json").read_text())["test"]
    assert done.stderr.count("epoch 1/4") == 1
    assert "Warning" not in done.stderr
    run = load_run(out)
    assert run.training["clips"]["train"] == 10
    assert all(0 < count < 8 for count in run.training["effective_dimensions"].values())
    lines = epochs(out)
    assert len(lines) == len(epochs(finished))
    assert all(float(line["train_loss_duc"]) > 0.0 for line in lines[1:4])
    # What the processes found together of their parts of the validation clips is what one finds of all of them.
    chosen = lines[run.training["selected_epoch"]]
    for name in ("audio", "visual"):
        alone = metrics["validation"]["heads"][name]["accuracy"]
        assert float(chosen[f"val_accuracy_{name}"]) == pytest.approx(alone)
    with (out / "metrics.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 7


if __name__ == "__main__":
    process(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
