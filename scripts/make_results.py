"""Make docs/results.md of the cells under docs/results: `python scripts/make_results.py`.

Everything on the page but docs/results/notes.md, which stands first and is written by hand, comes from the cells; a
page made twice of the same cells is the same page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dimml.errors import DimmlError
from dimml_training.compare import tables, targets
from dimml_training.compare.cells import Cell, write_text
from dimml_training.compare.coverage import Coverage, coverage
from dimml_training.compare.methods import chosen_methods
from dimml_training.compare.packed_cells import read_cells
from dimml_training.compare.plots import write_plots
from dimml_training.compare.rivals.two_by_two import two_by_two_markdown
from dimml_training.compare.summary import Summary
from dimml_training.config import load_config

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
NOTES = OUT / "notes.md"
CONFIGS = ROOT / "training" / "configs" / "compare"
#: How a config begins the lines of its head that are commands.
COMMAND = "#   "

#: Data set, what it is, and which methods are wanted of it.
WANTED = (
    ("grid_digit", "GRID, which digit is said: sound and lips, 5 folds of one talker", "all"),
    ("avmnist_hard", "AV-MNIST in its hard form: pictures without 75 % of their energy, noise on the sound", "all"),
    ("modelnet10", "ModelNet10: front and rear view", "all"),
    ("grid_letter", "GRID, which of 25 letters is said: sound and lips, 5 folds", "main"),
    ("grid_lips_flow", "GRID digit without sound: lips and their optical flow, 5 folds", "main"),
    ("avmnist", "AV-MNIST: a written and a spoken digit", "main"),
    ("utd_mhad", "UTD-MHAD, 27 actions: a depth camera and an inertial sensor, people never seen", "all"),
)

HOW_TO_READ = """\
Every method has the same encoders, data, epochs, augmentation, seeds and corrupted test clips; the methods, and in
what else they differ, are in [comparing.md](comparing.md), the conditions in [robustness.md](robustness.md).
Accuracy in %, with the 95 % interval of a paired bootstrap over clips in brackets and the standard deviation over
repeats after ±. *Seen* and *development families* are means over conditions; training and every choice knew of the seen
ones only. A family that the recordings carry themselves (pink noise in AV-MNIST's hard form) is in neither mean.
*Regret*: accuracy minus that of the better single modality, the one better on validation clips of the same condition,
in points. *ECE* of clean answers, in parentheses the 95th percentile of what a perfect calibrator would show on as
many clips of the same confidences. *AUROC*: a head's certainty against whether it is right, clean and under every
development family, those that the recordings carry among them. n: repeats.
"""


def main() -> int:
    """Write tables, plots and the page."""
    try:
        carried = {data: load_config(CONFIGS / f"{data}.yaml").compare.contained for data, *_ in WANTED}
        found = {summary.data: summary for summary in tables.summaries(read_cells(OUT), carried)}
        for summary in found.values():
            tables.write_tables(summary, OUT)
            write_plots(summary, OUT)
        write_text(PAGE, page(found))
    except DimmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{PAGE.relative_to(ROOT)}: {len(found)} data sets")
    return 0


def page(found: dict[str, Summary]) -> str:
    """The whole page."""
    notes = NOTES.read_text(encoding="utf-8").strip() if NOTES.is_file() else ""
    covered = {data: covers(data, methods, found[data]) for data, _, methods in WANTED if data in found}
    parts = ["# Results", notes, HOW_TO_READ.strip(), overview(found, covered)]
    for data, what, _ in WANTED:
        parts += [f"## {what}", commands(data)]
        parts += [left_to_run(covered[data]), *data_set(found[data])] if data in found else ["Not run yet."]
    others = [summary for data, summary in found.items() if data not in {wanted for wanted, *_ in WANTED}]
    for summary in others:
        parts += [f"## {summary.data}", *data_set(summary)]
    commit = "The page itself: `python scripts/make_results.py`."
    return "\n\n".join(part for part in [*parts, commit] if part) + "\n"


def commands(data: str) -> str:
    """The commands that make a data set's cells, as the head of its config names them."""
    lines = (CONFIGS / f"{data}.yaml").read_text(encoding="utf-8").splitlines()
    commands_of = [line.removeprefix(COMMAND) for line in lines if line.startswith(COMMAND)]
    return "\n".join(("```", *commands_of, "```"))


def covers(data: str, methods: str, summary: Summary) -> Coverage:
    """What of the wanted cells is there."""
    config = load_config(CONFIGS / f"{data}.yaml")
    return coverage(config, chosen_methods(config, [methods]), summary.cells | summary.trials)


def left_to_run(covered: Coverage) -> str:
    """What is not run yet, or not again since the config changed; nothing where all is there."""

    def named(repeats_of: dict[str, list[int]]) -> str:
        return ", ".join(f"`{method}` ({', '.join(map(str, repeats))})" for method, repeats in repeats_of.items())

    missing = f"**Not run yet**, by repeat: {named(covered.missing)}." if covered.missing else ""
    outdated = f"**Of another state of the config**, by repeat: {named(covered.outdated)}." if covered.outdated else ""
    return " ".join(part for part in (missing, outdated) if part)


def overview(found: dict[str, Summary], covered: dict[str, Coverage]) -> str:
    """Which target is met where; a verdict on a comparison that is not whole is marked as of now."""
    judged = {data: targets.targets(found[data]) if data in found else [] for data, *_ in WANTED}
    asked = next((of_data for of_data in judged.values() if len(of_data) > 1), None)
    if asked is None:
        return "## Targets\n\nNothing to judge them by has been run yet."
    so_far = {data: "" if data in covered and covered[data].whole else " (so far)" for data in judged}
    lines = [
        "## Targets",
        "",
        "| target | " + " | ".join(judged) + " |",
        "|---" * (len(judged) + 1) + "|",
    ]
    for index, target in enumerate(asked):
        cells = [
            of_data[index].verdict + (so_far[data] if of_data[index].asked and of_data[index].met is not None else "")
            if len(of_data) > index
            else "not run yet"
            for data, of_data in judged.items()
        ]
        lines.append(f"| {target.what} | " + " | ".join(cells) + " |")
    together = targets.above_rivals_together([found[data] for data in judged if data in found])
    lines += ["", targets.markdown([together])]
    if any(so_far.values()):
        lines += ["*So far*: methods or repeats are still to be run, or to be run again; see below.", ""]
    lines.append(tables.seen_how_often(OUT))
    return "\n".join(lines)


def data_set(summary: Summary) -> list[str]:
    """All that is said of one data set."""
    cells = [cell for of_method in summary.cells.values() for cell in of_method.values()]
    first = cells[0]
    trained = sorted({cell.trained_commit or "unknown" for cell in cells})
    scored = sorted({f"{cell.commit or 'unknown'}{'+' if cell.dirty else ''}" for cell in cells})
    clips = sorted({cell.clips for cell in cells})
    minutes = [cell.seconds_training / 60 for cell in by_training(cells)]
    facts = (
        f"{first.classes} classes; {first.clips_train} training, {first.clips_validation} validation and "
        f"{'/'.join(map(str, clips))} test clips a repeat; {len(minutes)} trainings, {sum(minutes):.0f} minutes "
        f"in all, the longest {max(minutes):.0f}. Trained at commits {', '.join(trained)}, scored at "
        f"{', '.join(scored)} (+: with changes). {tables.seen_how_often(OUT, summary.data)}"
    )
    if summary.outdated:
        facts += f" {summary.outdated} cells of an older suite of conditions are left out."
    data = summary.data
    return [
        facts,
        tables.markdown(summary).strip(),
        targets.markdown(targets.targets(summary)).strip(),
        chosen(summary),
        tables.differences_markdown(summary).strip(),
        *filter(None, [two_by_two_markdown(summary).strip()]),
        tables.trust_markdown(summary).strip(),
        f"Accuracy under every condition: [table](results/tables/{data}_conditions.md), "
        f"[CSV with intervals](results/tables/{data}.csv).",
        *(
            f"![{name}](results/plots/{data}_{name}.svg)"
            for name in ("methods", "regret")
            if (OUT / "plots" / f"{data}_{name}.svg").is_file()
        ),
    ]


def chosen(summary: Summary) -> str:
    """Which fusion ours came to on each repeat."""
    choices = []
    for repeat, cell in summary.cells.get(tables.OURS, {}).items():
        spec = (cell.fusion or {}).get("spec")
        if spec is not None:
            weights = "equal weights" if spec["temperature"] is None else f"T = {spec['temperature']:g}"
            heads = "with" if spec["fused_head"] else "without"
            choices.append(f"{repeat}: {spec['certainty']}, {spec['pooling']}, {weights}, {heads} the fused head")
    return f"Chosen for `{tables.OURS}` by validation clips, by repeat: {'; '.join(choices)}." if choices else ""


def by_training(cells: list[Cell]) -> list[Cell]:
    """One cell of each training."""
    return list({cell.training: cell for cell in cells}.values())


if __name__ == "__main__":
    sys.exit(main())
