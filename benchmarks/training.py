"""What a step of stage 1 costs by part; DUC and separation against a plain loop; the loader against tensors in memory.

    python benchmarks/training.py training/configs/grid_digit.yaml [--json]

Modalities, encoders, augmentation and losses are the config's, one thread; clips are random numbers of the same shapes
in a memory-mapped file, so no data is needed. Times are processor time, so that other work on the machine does not
count; the loader is compared by the clock on the wall too. What is compared is interleaved, and compared by medians.
The plain loops say the same as the reference code (github fanyunfeng-bit/DI-MML): DUC sample by sample, separation clip
by clip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dimml_training.config import TrainConfig, load_config, with_fields
from dimml_training.data.augment import augment
from dimml_training.data.loader import Batch, ClipRows, batches
from dimml_training.detached.dimension_separation import effective_dimensions
from dimml_training.detached.encoders import DetachedEncoders
from dimml_training.detached.losses import duc_loss
from dimml_training.lightning.encoder_module import build_optimiser

CLASSES = 10
PARTS = ("load", "augment", "forward", "own", "shared", "duc", "backward", "optimiser")


class Clock:
    """Milliseconds by name, a list of them each: of this process's processor time, or of the clock on the wall."""

    def __init__(self, now: Callable[[], float] = time.process_time) -> None:
        self.now = now
        self.ms: dict[str, list[float]] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, and a note of how long it took."""
        began = self.now()
        found = work()
        self.ms.setdefault(name, []).append(1000 * (self.now() - began))
        return found

    def medians(self) -> dict[str, float]:
        """One number by name, without the first, which warms up."""
        return {name: statistics.median(ms[1:] or ms) for name, ms in self.ms.items()}


def random_clips(config: TrainConfig, clips: int, folder: Path) -> ClipRows:
    """Rows on disk, mapped as the cache maps them."""
    rng = np.random.default_rng(0)
    arrays = {}
    for modality in config.inputs:
        path, shape = folder / f"{modality.name}.rows", (clips, *modality.shape)
        file = np.memmap(path, modality.dtype, "w+", shape=shape)
        for row in file:
            drawn = rng.standard_normal(modality.shape, np.float32) * 0.1
            row[...] = drawn if modality.dtype == np.float32 else np.clip(128 + 400 * drawn, 0, 255)
        file.flush()
        arrays[modality.name] = np.memmap(path, modality.dtype, "r", shape=shape)
    return ClipRows(arrays, rng.permutation(clips), np.arange(clips) % CLASSES)


def forever(clips: ClipRows, batch_size: int) -> Iterator[Batch]:
    """Full batches, epoch after epoch."""
    while True:
        for batch in batches(clips, batch_size, seed=0):
            if len(batch.labels_B) == batch_size:
                yield batch


def corrupted(config: TrainConfig, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch as training sees it."""
    return {m.input.name: augment(m.input, m.augment, rows[m.input.name]) for m in config.modalities}


def step_by_part(module: DetachedEncoders, clips: ClipRows, batch_size: int, steps: int) -> dict[str, Any]:
    """Medians of every part of a step. ``duc`` holds its share of the backward pass too, which is measured alone and
    stands in ``backward`` a second time."""
    config, stage = module.config, module.config.stage1
    optimiser = build_optimiser(module.parameters(), stage.optimiser)
    clock, loader = Clock(), forever(clips, batch_size)

    def duc_alone(features_MBD: Tensor) -> Tensor:
        loss = stage.lambda_duc * duc_loss(features_MBD, module.effective_MD, stage.duc_temperature)
        torch.autograd.grad(loss, features_MBD)
        return loss

    for _ in range(steps + 1):
        rows, labels_B, *_ = clock.time("load", lambda: next(loader))
        rows = clock.time("augment", lambda rows=rows: corrupted(config, rows))
        encoded = clock.time("forward", lambda rows=rows: [module.encode(name, rows[name]) for name in module.names])
        features_MBD = torch.stack([features for features, _ in encoded])
        own = clock.time(
            "own",
            lambda e=encoded, y=labels_B: torch.stack([cross_entropy(logits, y) for _, logits in e]).sum(),
        )
        shared = clock.time(
            "shared",
            lambda f=features_MBD, y=labels_B: (
                stage.lambda_shared * torch.stack([cross_entropy(module.shared_head(of_one), y) for of_one in f]).sum()
            ),
        )
        clock.time("duc", lambda f=features_MBD: duc_alone(f.detach().requires_grad_()))
        duc = stage.lambda_duc * duc_loss(features_MBD, module.effective_MD, stage.duc_temperature)
        optimiser.zero_grad()
        clock.time("backward", lambda total=own + shared + duc: torch.autograd.backward(total))
        clock.time("optimiser", optimiser.step)
    ms = clock.medians()
    step_ms = sum(ms[part] for part in PARTS)
    return {"step_ms": step_ms, "ms": ms, "share": {part: ms[part] / step_ms for part in PARTS}}


def looped_duc(features_MBD: Tensor, effective_MD: Tensor, temperature: float) -> Tensor:
    """DUC pair by pair and sample by sample."""
    total = features_MBD.new_zeros(())
    for teacher in range(len(features_MBD)):
        for student in range(len(features_MBD)):
            private = torch.nonzero(effective_MD[teacher] & ~effective_MD[student])[:, 0].tolist()
            if teacher == student or not private:
                continue
            taught_BP, learning_BP = features_MBD[teacher][:, private].detach(), features_MBD[student][:, private]
            for sample in range(len(learning_BP)):
                own = torch.exp(learning_BP[sample] @ taught_BP[sample] / temperature)
                every = torch.exp(taught_BP @ learning_BP[sample] / temperature).sum()
                total = total - torch.log(own / every) / len(learning_BP)
    return total


def duc_against_loop(module: DetachedEncoders, batch_size: int, repeats: int) -> dict[str, float]:
    """Loss and gradient, ours and looped, on the same random features."""
    clock = Clock()
    generator = torch.Generator().manual_seed(0)
    for _ in range(repeats + 1):
        shape = (len(module.names), batch_size, module.effective_MD.shape[1])
        features = torch.randn(shape, generator=generator)
        found = []
        for name, loss in (("batched_ms", duc_loss), ("loop_ms", looped_duc)):
            leaf = features.clone().requires_grad_()

            def with_gradient(loss: Any = loss, leaf: Tensor = leaf) -> Tensor:
                value: Tensor = loss(leaf, module.effective_MD, module.config.stage1.duc_temperature)
                torch.autograd.grad(value, leaf)
                return value

            found.append(float(clock.time(name, with_gradient).detach()))
        assert abs(found[0] - found[1]) < 1e-3 * abs(found[1]), found
    ms = clock.medians()
    return {**ms, "speedup": ms["loop_ms"] / ms["batched_ms"]}


@torch.no_grad()
def looped_separation(module: DetachedEncoders, clips: ClipRows) -> None:
    """Every clip on its own through every encoder, then the distances."""
    labels_N = torch.from_numpy(clips.labels)
    for name in module.names:
        features = [module.encode(name, rows[name])[0] for rows, _, *_ in batches(clips, 1)]
        effective_dimensions(torch.cat(features), labels_N, module.classes)


def separation_against_loop(module: DetachedEncoders, repeats: int) -> dict[str, float]:
    """One pass over all clips, ours and clip by clip."""
    clock = Clock()
    for _ in range(repeats + 1):
        clock.time("batched_ms", module.separate)
        module.eval()
        clock.time("loop_ms", lambda: looped_separation(module, module.train_clips))
        module.train()
    ms = clock.medians()
    return {**ms, "clips": len(module.train_clips), "speedup": ms["loop_ms"] / ms["batched_ms"]}


def loader_against_memory(module: DetachedEncoders, clips: ClipRows, batch_size: int, steps: int) -> dict[str, float]:
    """Clips per second of processor time in whole steps: fed by the loader, and by one batch that is there already."""
    config = module.config
    optimiser = build_optimiser(module.parameters(), config.stage1.optimiser)
    # Waiting for a page of the file costs no processor time, so the wall's clock is looked at too.
    wall, clock, loader = Clock(time.perf_counter), Clock(), forever(clips, batch_size)
    ready = next(loader)

    def step(batch: Batch) -> None:
        corrupt = batch._replace(rows=corrupted(config, batch.rows))
        total = torch.stack(list(module.losses(corrupt).values())).sum()
        optimiser.zero_grad()
        torch.autograd.backward(total)
        optimiser.step()

    for _ in range(steps + 1):
        wall.time("loader", lambda: clock.time("loader", lambda: step(next(loader))))
        wall.time("memory", lambda: clock.time("memory", lambda: step(ready)))
    ms, wall_ms = clock.medians(), wall.medians()
    return {
        "loader_clips_s": 1000 * batch_size / ms["loader"],
        "memory_clips_s": 1000 * batch_size / ms["memory"],
        "ratio": ms["memory"] / ms["loader"],
        "wall_ratio": wall_ms["memory"] / wall_ms["loader"],
    }


def measure(config: TrainConfig, batch_sizes: list[int], clips: int, repeats: int) -> dict[str, Any]:
    """All figures of one config."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    answer: dict[str, Any] = {"config": config.name, "clips": clips, "batch": {}}
    with tempfile.TemporaryDirectory() as folder:
        rows = random_clips(config, clips, Path(folder))
        for batch_size in batch_sizes:
            sized = with_fields(config, {"stage1.batch_size": batch_size}, "--batch")
            module = DetachedEncoders(sized, CLASSES, rows).train()
            module.separate()
            answer["batch"][batch_size] = {
                "step": step_by_part(module, rows, batch_size, repeats),
                "duc": duc_against_loop(module, batch_size, repeats),
                "loader": loader_against_memory(module, rows, batch_size, repeats),
                "separation": separation_against_loop(module, 2),
            }
            step_ms = answer["batch"][batch_size]["step"]["step_ms"]
            epoch_ms = step_ms * clips / batch_size
            answer["batch"][batch_size]["separation"]["epochs"] = (
                answer["batch"][batch_size]["separation"]["batched_ms"] / epoch_ms
            )
    return answer


def main() -> None:
    """Measure, and print tables in Markdown or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    answer = measure(load_config(arguments.config), arguments.batch, arguments.clips, arguments.repeats)
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return
    print(f"| batch | step | {' | '.join(PARTS)} |\n|{'---|' * (len(PARTS) + 2)}")
    for size, found in answer["batch"].items():
        shares = " | ".join(f"{found['step']['share'][part]:.2%}" for part in PARTS)
        print(f"| {size} | {found['step']['step_ms']:.1f} ms | {shares} |")
    print(
        "\n| batch | DUC | looped | | loader | in memory | ratio | on the wall | separation | clip by clip | | epochs |"
    )
    print(f"|{'---|' * 12}")
    for size, found in answer["batch"].items():
        duc, loader, separation = found["duc"], found["loader"], found["separation"]
        print(
            f"| {size} | {duc['batched_ms']:.2f} ms | {duc['loop_ms']:.1f} ms | {duc['speedup']:.0f}x "
            f"| {loader['loader_clips_s']:.0f}/s | {loader['memory_clips_s']:.0f}/s "
            f"| {loader['ratio']:.3f} | {loader['wall_ratio']:.3f} "
            f"| {separation['batched_ms'] / 1000:.2f} s | {separation['loop_ms'] / 1000:.2f} s "
            f"| {separation['speedup']:.1f}x | {separation['epochs']:.2f} |"
        )


if __name__ == "__main__":
    main()
