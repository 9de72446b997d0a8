"""What training clips that lack a modality are worth: all rows of a holed table against the whole rows of it alone.

    python benchmarks/absent_rows.py training/configs/grid_digit.yaml --work runs/absent_rows [--seeds 0 1 2]

A third of the training clips lose their sound, another third their picture, drawn anew for each seed; validation and
test clips stay whole, so that both trainings choose and are scored on the same ones. The config is the same for both,
epochs included: ``all rows`` makes three times the steps of ``whole rows``, so ``whole rows, as many steps`` has three
times the epochs. Every training is kept under ``--work`` and not made again: an interrupted one is resumed, a finished
one is only scored. The result is a table in Markdown, and ``absent_rows.json``.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimml_training.config import TrainConfig, expand_path, load_config, with_fields
from dimml_training.data.cache import default_cache_dir
from dimml_training.data.prepare import prepare
from dimml_training.evaluation.heads import figures, fused_answer, head_logits
from dimml_training.loop.train import train
from dimml_training.run.directory import CONFIG_FILE, RUN_FILE, load_run

#: Signal-to-noise ratios of white noise on the sound, None for clean.
NOISE_DB = (None, -10.0)


@dataclass(frozen=True)
class Arm:
    """One way to train: on whole rows alone or on all, and how many times the config's epochs."""

    name: str
    whole_only: bool
    times: int = 1

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.name.replace(",", "").replace(" ", "_")


ARMS = (
    Arm("whole rows", whole_only=True),
    Arm("all rows", whole_only=False),
    Arm("whole rows, as many steps", whole_only=True, times=3),
)


def holed(config: TrainConfig, seed: int, folder: Path, *, whole_only: bool) -> Path:
    """Write the config's clip table with a column per modality: holes in two thirds of the training rows, or without
    those rows."""
    columns, train_split = config.data.columns, config.data.splits["train"]
    names = [m.name for m in config.inputs]
    with expand_path(config.data.manifest).open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    training = [index for index, line in enumerate(lines) if line[columns.split] == train_split]
    # Thirds at random: third k > 0 lacks modality k - 1.
    third = dict(zip(np.random.default_rng(seed).permutation(training).tolist(), range(len(training)), strict=True))
    path = folder / ("whole.csv" if whole_only else "holed.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*names, *lines[0]])
        writer.writeheader()
        for index, line in enumerate(lines):
            lacks = third[index] % (1 + len(names)) - 1 if index in third else -1
            if whole_only and lacks >= 0:
                continue
            cells = {name: "" if place == lacks else line[str(columns.media)] for place, name in enumerate(names)}
            writer.writerow({**cells, **line})
    return path


def run_of(config: TrainConfig, arm: Arm, seed: int, work: Path, epochs: int) -> Path:
    """Train an arm, or finish its training; return its run directory."""
    folder = work / f"seed{seed}" / arm.folder
    folder.mkdir(parents=True, exist_ok=True)
    of_arm = with_fields(
        config,
        {
            "seed": seed,
            "data.manifest": str(holed(config, seed, folder, whole_only=arm.whole_only).resolve()),
            "data.media_root": config.data.media_root or str(expand_path(config.data.manifest).parent),
            "data.columns.media": {m.name: m.name for m in config.inputs},
            "stage1.epochs": arm.times * epochs,
            "stage1.warmup_epochs": arm.times * round(config.stage1.warmup_epochs * epochs / config.stage1.epochs),
        },
        "absent_rows",
    )
    out = folder / "run"
    if not (out / RUN_FILE).exists():
        resume = (out / CONFIG_FILE).exists()
        train(of_arm, out, cache_dir=default_cache_dir(), resume=resume, tell=lambda line: print(line, file=sys.stderr))
    return out


def scored(run: Path) -> dict[str, Any]:
    """Accuracy of every head and of the answer on the test clips, by noise; and what training had."""
    trained = load_run(run)
    rows = prepare(trained.config, default_cache_dir(), splits=["test"], labels=trained.labels).splits["test"].rows
    found: dict[str, Any] = {}
    for noise in NOISE_DB:
        votes = head_logits(
            trained.encoders, trained.voting_fused_head, trained.modalities, rows, trained.quality, noise_db=noise
        )
        metrics = figures(votes, fused_answer(votes, trained.fusion, trained.fusion_parameters), trained.labels)
        heads = {head: own["accuracy"] for head, own in metrics["heads"].items()}
        found["clean" if noise is None else f"{noise:g} dB"] = {**heads, "answer": metrics["accuracy"]}
    clips = trained.training["clips"]["train"]
    there = trained.training.get("present", {}).get("train") or {m.name: clips for m in trained.modalities}
    return {"accuracy": found, "train": {"clips": clips, **there}, "seconds": trained.training["seconds"]}


def table(found: dict[str, dict[str, Any]], seeds: list[int]) -> str:
    """Accuracy by arm, head and noise, a number per seed and their mean."""
    conditions = [f"{head}, {noise}" for noise, of in _first(found)["accuracy"].items() for head in of]
    lines = ["| per cent right, seeds " + " / ".join(map(str, seeds)) + " | " + " | ".join(found) + " |"]
    lines.append("|---" * (1 + len(found)) + "|")
    for condition in conditions:
        head, noise = condition.rsplit(", ", 1)
        cells = []
        for of_arm in found.values():
            values = [100 * of_arm[str(seed)]["accuracy"][noise][head] for seed in seeds if str(seed) in of_arm]
            cells.append(" / ".join(f"{v:.1f}" for v in values) + f" (mean {np.mean(values):.1f})")
        lines.append(f"| {condition} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _first(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    first: dict[str, Any] = next(iter(next(iter(found.values())).values()))
    return first


def main() -> None:
    """Train what is missing, score everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=[arm.folder for arm in ARMS], choices=[arm.folder for arm in ARMS])
    parser.add_argument("--epochs", type=int, help="of stage 1, instead of the config's; the warm-up in proportion")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    arms = [arm for arm in ARMS if arm.folder in arguments.arms]
    found: dict[str, dict[str, Any]] = {}
    # Seed by seed: what is there after an interruption compares every arm.
    for seed in arguments.seeds:
        for arm in arms:
            run = run_of(config, arm, seed, arguments.work, arguments.epochs or config.stage1.epochs)
            found.setdefault(arm.name, {})[str(seed)] = scored(run)
            (arguments.work / "absent_rows.json").write_text(json.dumps(found, indent=1) + "\n")
            print(f"seed {seed}, {arm.name}: {json.dumps(found[arm.name][str(seed)])}", file=sys.stderr)
    print(table(found, arguments.seeds))


if __name__ == "__main__":
    main()
