"""What `dimml select` is worth against choosing at random: train on few clips, label some more, train again.

    python scripts/labelling_benefit.py training/configs/grid_digit.yaml --out /tmp/benefit --seeds 0 1 2

For each seed some clips of the training split begin, a part of the others is held out with the test split, and the
rest is the pool. The first training's bundle scores the pool; `dimml select` chooses by its rule and, with a random
share of 1, at random; the labels come from the table, through an export as Label Studio writes it and
`dimml read-labels`. Each choice trains anew from the same seed with the clips before. What is done is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import yaml

from dimml_training.config import DataConfig, expand_path, load_config

#: Share of the budget chosen at random, by what is compared.
ARMS: Final = {"dimml select": 0.0, "with a random share of 0.2": 0.2, "at random": 1.0}
COLUMNS: Final = ("id", "media", "label", "split", "start_s", "end_s")
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of clips, and of passes over them."""

    start: int
    budget: int
    held_out: int
    epochs: int


def dimml(*words: str | Path) -> str:
    """Run a command; return its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "dimml", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"dimml {words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def clips_of(data: DataConfig) -> list[Row]:
    """Read the clip table in the columns of a table of labels."""
    columns, table = data.columns, expand_path(data.manifest)
    if not isinstance(columns.media, str) or columns.start_s is None or columns.end_s is None:
        raise SystemExit("the config must have one file and a range for each clip")
    root = table.parent if data.media_root is None else expand_path(data.media_root)
    with table.open(encoding="utf-8-sig", newline="") as file:
        return [
            {
                "id": str(number),
                "media": str((root / row[columns.media]).resolve()),
                "label": row[columns.label],
                "split": next(split for split, name in data.splits.items() if name == row[columns.split]),
                "start_s": row[columns.start_s],
                "end_s": row[columns.end_s],
            }
            for number, row in enumerate(csv.DictReader(file))
        ]


def write_rows(path: Path, rows: Iterable[Mapping[str, str]], columns: Sequence[str] = COLUMNS) -> None:
    """Write some columns of rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def train(config: dict[str, Any], folder: Path, rows: Sequence[Row], seed: int, epochs: int) -> dict[str, float]:
    """Train on a table and evaluate on its test split; the answer's figures."""
    done = folder / "figures.json"
    if done.exists():
        return json.loads(done.read_bytes())  # type: ignore[no-any-return]  # as it was written below
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "clips.csv", rows)
    own = {name: name for name in COLUMNS if name != "id"}
    config = json.loads(json.dumps(config)) | {"name": "benefit", "seed": seed}
    config["data"] |= {"manifest": str(folder / "clips.csv"), "media_root": "/", "columns": own, "splits": None}
    config["data"] = {key: value for key, value in config["data"].items() if value is not None}
    config["stage1"] |= {"epochs": epochs, "warmup_epochs": max(1, epochs // 4)}
    config["stage2"] |= {"epochs": max(1, epochs // 2)}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run = folder / "run"
    if not (run / "run.json").exists():
        dimml("train", folder / "config.yaml", "--out", run, *(["--resume"] if run.exists() else []))
    found = json.loads(dimml("evaluate", run, "--json"))["conditions"]["clean"]
    figures = {name: float(found[name]) for name in ("accuracy", "nll")}
    done.write_text(json.dumps(figures))
    return figures


def chosen_rows(
    folder: Path, table: Path, truth: Mapping[str, Row], *, budget: int, share: float, seed: int
) -> list[Row]:
    """Choose from a score table, have it labelled by the truth, and read the labels back."""
    if not (folder / "selection.json").exists():
        dimml(
            *("select", table, "--budget", str(budget), "--out", folder, "--seed", str(seed)),
            *("--random-share", str(share)),
        )
    tasks = json.loads((folder / "tasks.json").read_bytes())
    for number, task in enumerate(tasks):
        choice = {"from_name": "label", "type": "choices", "value": {"choices": [truth[task["data"]["id"]]["label"]]}}
        task |= {"id": number, "annotations": [{"result": [choice]}], "predictions": []}
    (folder / "export.json").write_text(json.dumps(tasks))
    clips = folder / "clips.csv"
    dimml(
        *("read-labels", folder / "export.json", "--selection", folder / "selection.json", "--out", clips),
        *("--random-split", "train"),
    )
    with clips.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def one_seed(path: Path, out: Path, seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Run all of one seed: the figures of the first training and of each choice."""
    config = yaml.safe_load(path.read_text())
    rows = clips_of(load_config(path).data)
    training = [row for row in rows if row["split"] == "train"]
    random.Random(seed).shuffle(training)  # noqa: S311  # no secret
    held_out, training = training[: sizes.held_out], training[sizes.held_out :]
    first, pool = training[: sizes.start], training[sizes.start :]
    fixed = [*(row for row in rows if row["split"] != "train"), *({**row, "split": "test"} for row in held_out)]
    figures = {"before": train(config, out / "first", [*first, *fixed], seed, sizes.epochs)}
    if not (out / "models").exists():
        dimml("export", out / "first" / "run", "--repository", out / "models")
    manifest, table = out / "pool.csv", out / "scores.parquet"
    write_rows(manifest, [{**row, "path": row["media"]} for row in pool], ("id", "path", "start_s", "end_s"))
    dimml("score", manifest, "--repository", out / "models", "--out", table, "--quiet")
    truth = {row["id"]: row for row in pool}
    for number, (arm, share) in enumerate(ARMS.items()):
        more = chosen_rows(out / f"choice{number}", table, truth, budget=sizes.budget, share=share, seed=seed)
        figures[arm] = train(config, out / f"second{number}", [*first, *more, *fixed], seed, sizes.epochs)
    return figures


def main() -> int:
    """Print accuracy and negative log-likelihood of the held-out clips, by seed and choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--start", type=int, default=100, help="clips of the first training")
    parser.add_argument("--budget", type=int, default=60, help="clips to be labelled")
    parser.add_argument("--held-out", type=int, default=150, help="training clips to test on, beside the test split")
    parser.add_argument("--epochs", type=int, default=12, help="of the encoders")
    options = parser.parse_args()
    sizes = Sizes(options.start, options.budget, options.held_out, options.epochs)
    found = {seed: one_seed(options.config, options.out / str(seed), seed, sizes) for seed in options.seeds}
    arms = ["before", *ARMS]
    print(f"| accuracy (nll) | {' | '.join(arms)} |")
    print(f"|---|{'---|' * len(arms)}")
    for seed, figures in found.items():
        cells = [f"{100 * figures[arm]['accuracy']:.1f} % ({figures[arm]['nll']:.2f})" for arm in arms]
        print(f"| seed {seed} | {' | '.join(cells)} |")
    for arm in list(ARMS)[:-1]:
        gains = [100 * (figures[arm]["accuracy"] - figures["at random"]["accuracy"]) for figures in found.values()]
        print(f"{arm} against random: {', '.join(f'{gain:+.1f}' for gain in gains)}; mean {fmean(gains):+.1f} points")
    return 0


if __name__ == "__main__":
    sys.exit(main())
