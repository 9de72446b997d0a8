"""Make docs/results.md of the cells under docs/results: `python scripts/make_results.py`.

Everything on the page but docs/results/notes.md, which stands first and is written by hand, comes from the cells; a
page made twice of the same cells is the same page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dimml.errors import SetupError
from dimml_training.compare import tables, targets
from dimml_training.compare.cells import read_cells
from dimml_training.compare.plots import write_plots
from dimml_training.compare.summary import Summary
from dimml_training.compare.unseen import looks

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
NOTES = OUT / "notes.md"

#: Data set, what it is, and which methods are wanted of it.
WANTED = (
    ("grid_digit", "GRID, which digit is said: sound and lips, 5 folds of one talker", "all"),
    ("avmnist_hard", "AV-MNIST in its hard form: pictures without 75 % of their energy, noise on the sound", "all"),
    ("modelnet10", "ModelNet10: front and rear view", "all"),
    ("grid_letter", "GRID, which of 25 letters is said: sound and lips, 5 folds", "main"),
    ("grid_lips_flow", "GRID digit without sound: lips and their optical flow, 5 folds", "main"),
    ("avmnist", "AV-MNIST: a written and a spoken digit", "main"),
)

HOW_TO_READ = """\
Every method has the same encoders, data, epochs, augmentation, seeds and corrupted test clips. Accuracy in %, with the
95 % interval of a paired bootstrap over clips in brackets and the standard deviation over repeats behind ±. *Seen* and
*unseen families* are means over conditions; training and every choice knew of the seen ones only. *Regret*: accuracy
minus that of the better single modality, the one better on validation clips of the same condition, in points. *ECE* of
clean answers, in parentheses the 95th percentile of what a perfect calibrator would show on as many clips of the same
confidences. *AUROC*: a head's certainty against whether it is right, clean and unseen. n: repeats. The methods are
described in [comparing.md](comparing.md), the conditions in [robustness.md](robustness.md).
"""


def main() -> int:
    """Write tables, plots and the page."""
    try:
        found = {summary.data: summary for summary in tables.summaries(read_cells(OUT))}
        for summary in found.values():
            tables.write_tables(summary, OUT)
            write_plots(summary, OUT)
        tables.write_text(PAGE, page(found))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{PAGE.relative_to(ROOT)}: {len(found)} data sets")
    return 0


def page(found: dict[str, Summary]) -> str:
    """The whole page."""
    notes = NOTES.read_text(encoding="utf-8").strip() if NOTES.is_file() else ""
    parts = ["# Results", notes, HOW_TO_READ.strip(), overview(found)]
    for data, what, methods in WANTED:
        parts += [f"## {what}", f"`dimml compare training/configs/compare/{data}.yaml --methods {methods}`"]
        parts += data_set(found[data]) if data in found else ["Not run yet."]
    others = [summary for data, summary in found.items() if data not in {wanted for wanted, *_ in WANTED}]
    for summary in others:
        parts += [f"## {summary.data}", *data_set(summary)]
    commit = "The page itself: `python scripts/make_results.py`."
    return "\n\n".join(part for part in [*parts, commit] if part) + "\n"


def overview(found: dict[str, Summary]) -> str:
    """Which target is met where."""
    judged = {data: targets.targets(found[data]) if data in found else [] for data, *_ in WANTED}
    asked = next((of_data for of_data in judged.values() if len(of_data) > 1), [])
    says = {True: "yes", False: "**no**", None: "not run yet"}
    lines = [
        "## Targets",
        "",
        "| target | " + " | ".join(judged) + " |",
        "|---" * (len(judged) + 1) + "|",
    ]
    for index, target in enumerate(asked):
        cells = [says[of_data[index].met] if len(of_data) > index else says[None] for of_data in judged.values()]
        lines.append(f"| {target.what} | " + " | ".join(cells) + " |")
    lines += ["", f"The unseen families have been scored {looks(OUT)} times (docs/results/unseen.log)."]
    return "\n".join(lines)


def data_set(summary: Summary) -> list[str]:
    """All that is said of one data set."""
    cells = [cell for of_method in summary.cells.values() for cell in of_method.values()]
    first = cells[0]
    commits = sorted({cell.commit or "none" for cell in cells})
    clips = sorted({cell.clips for cell in cells})
    minutes = sum(cell.seconds_training for cell in by_training(cells)) / 60
    facts = (
        f"{first.classes} classes; {first.clips_train} training, {first.clips_validation} validation and "
        f"{'/'.join(map(str, clips))} test clips a repeat; {minutes:.0f} minutes of training in all;"
        f" commits {', '.join(commits)}; unseen families scored "
        f"{looks(OUT, summary.data)} times."
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
    told = []
    for repeat, cell in summary.cells.get(tables.OURS, {}).items():
        spec = (cell.fusion or {}).get("spec")
        if spec is not None:
            weights = "equal weights" if spec["temperature"] is None else f"T = {spec['temperature']:g}"
            heads = "with" if spec["fused_head"] else "without"
            told.append(f"{repeat}: {spec['certainty']}, {spec['pooling']}, {weights}, {heads} the fused head")
    return f"Chosen for `{tables.OURS}` by validation clips, by repeat: {'; '.join(told)}." if told else ""


def by_training(cells: list) -> list:
    """One cell of each training."""
    return list({cell.training: cell for cell in cells}.values())


if __name__ == "__main__":
    sys.exit(main())
