"""Report sections on the fusion: its choice, accuracy under corruption, and comparison with other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimml.errors import ConfigurationError
from dimml.fusion import PAPER, FusionSpec
from dimml.look.charts import DotRow, Series, dot_chart, line_chart
from dimml_training.report.diagrams import ANSWER
from dimml_training.report.parts import Figure, Table, chance, head_colours
from dimml_training.report.reading import Comparison, RunFiles
from dimml_training.run.directory import read_data_digest, read_decoder_version

if TYPE_CHECKING:
    from dimml_training.compare.cells import Cell


def fusion_table(files: RunFiles) -> Table | None:
    """Table of how the heads' votes become the answer; None for a joint training, which has one head."""
    if files.config.stage1.objective == "joint":
        return None
    spec = _spec(files)
    rows = []
    for name, value in spec.model_dump().items():
        shown = ", ".join(f"{v:.3g}" for v in value) if isinstance(value, tuple) else _shown(value)
        rows.append([name, shown, " ".join((type(spec).model_fields[name].description or "").split())])
    return Table(["field", "value", "what"], rows)


def outdated(files: RunFiles) -> bool:
    """Whether the fusion was chosen again after the test clips were answered."""
    votes = files.votes.get("test")
    return votes is not None and votes.fusion != _spec(files)


def fusion_rivals(files: RunFiles) -> Table | None:
    """Table of the fusion chosen on validation clips and the ones it was compared with; None if the config fixed it."""
    report = (files.fusion or {}).get("report") or {}
    if "chosen" not in report:
        return None
    judged = {"chosen": report["chosen"], **report.get("instead_of", {})}
    rows = []
    for name, found in judged.items():
        spec = found.get("spec", {})
        temperature = spec.get("temperature")
        rows.append(
            [
                name.replace("_", " "),
                str(spec.get("certainty", "")),
                str(spec.get("pooling", "")),
                "equal" if temperature is None else f"{temperature:g}",
                f"{found['clean_accuracy']:.1%}",
                f"{found['mean_accuracy']:.1%}",
                f"{100 * found['mean_regret']:+.1f}",
                f"{100 * found['worst_regret']:+.1f}",
                f"{found['clean_ece']:.3f}",
            ]
        )
    columns = ["fusion", "certainty", "pooling", "T", "clean", "corrupted", "mean regret", "worst regret", "ECE"]
    return Table(columns, rows)


def corruption_scope(files: RunFiles) -> str:
    """Name the clips and families of the metrics under corruption."""
    families = (files.corruptions or {}).get("families", "all")
    # As runs that were scored while they were called unseen have it.
    families = "development" if families == "unseen" else families
    named = "seen and development families" if families == "all" else f"{families} families alone"
    return f"{(files.corruptions or {}).get('split', 'test')} clips, {named}"


def corruption_overview(files: RunFiles) -> list[Figure]:
    """Charts of every head and the answer under every condition, one per damaged modality, with clean at the top.

    A diamond marks families that neither training nor choice had seen.
    """
    groups: dict[str, list[DotRow]] = {}
    colours = head_colours(files)
    for name, found in _conditions(files).items():
        dots = [(head, colours.get(head, "c0"), float(own["accuracy"])) for head, own in found["heads"].items()]
        where, _, what = name.rpartition(":")
        dots.append((ANSWER, "answer", float(found["accuracy"])))
        groups.setdefault(where, []).append(DotRow(what, dots, marked=name != "clean" and not found.get("seen")))
    clean = groups.pop("", [])
    figures = []
    for where, rows in groups.items():
        heads = dict.fromkeys(what for row in rows for what, _, _ in row.dots)
        legend = [(head, colours.get(head, "c0")) for head in heads]
        figures.append(Figure(where, dot_chart([*clean, *rows], chance=chance(files)), legend))
    return figures


def corruption_curves(files: RunFiles) -> list[Figure]:
    """Charts of accuracy over severity, for families scored at several severities, in the order of scoring."""
    families: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, found in _conditions(files).items():
        family, _, severity = name.rpartition("_")
        if family and "+" not in name and found.get("group") not in ("absent", "nosignal", "conflict"):
            families.setdefault(family, []).append((severity, found))
    colours = head_colours(files)
    figures = []
    for family, steps in families.items():
        if len(steps) < 2:
            continue
        xs = [float(index) for index in range(len(steps))]
        series = [
            Series(head, colours.get(head, "c0"), xs, [_accuracy(found, head) for _, found in steps])
            for head in steps[0][1]["heads"]
        ]
        series.append(Series(ANSWER, "answer", xs, [float(found["accuracy"]) for _, found in steps]))
        names = [severity for severity, _ in steps]
        chart = line_chart(
            series, x_label="severity", y_label="accuracy", per_cent=True, x_names=names, chance=chance(files)
        )
        figures.append(Figure(family.replace("_", " ").replace(":", ": "), chart))
    return figures


def corruption_table(files: RunFiles) -> Table | None:
    """Table of accuracy under every condition, with the regret against the better modality."""
    conditions = _conditions(files)
    if not conditions:
        return None
    heads = list(dict.fromkeys(head for found in conditions.values() for head in found["heads"]))
    rows = []
    for name, found in conditions.items():
        own = [f"{found['heads'][head]['accuracy']:.1%}" if head in found["heads"] else "" for head in heads]
        regret = f"{100 * found['regret']:+.1f}" if found.get("regret") is not None else ""
        seen = "" if name == "clean" else "seen" if found.get("seen") else "development"
        rows.append([name, seen, *own, f"{found['accuracy']:.1%}", str(found.get("better", "")), regret])
    return Table(["condition", "family", *heads, ANSWER, "better modality", "regret, points"], rows)


def comparison(files: RunFiles, results: Path) -> Comparison:
    """Tabulate the methods that ``dimml compare`` scored on data of this run's name.

    Raises ConfigurationError if there are none.
    """
    from dimml_training.compare.packed_cells import read_cells
    from dimml_training.compare.tables import percent, plain, points, rows, summaries

    name = files.config.name
    found = summaries(
        (cell for cell in read_cells(results) if cell.data == name), {name: files.config.compare.contained}
    )
    if not found:
        raise ConfigurationError(
            f"{results} holds no comparison of data named {name!r}; `dimml compare` makes one",
            field="--results",
        )
    lines = tuple(
        (
            row.method,
            percent(row.clean),
            percent(row.seen),
            percent(row.development),
            points(row.mean_regret),
            f"{plain(row.ece)} ({row.ece_bound:.3f})",
            str(row.repeats),
        )
        for row in rows(found[0])
    )
    columns = (
        *("method", "clean, %", "seen families, %", "development families, %", "regret, development"),
        *("ECE (perfect)", "n"),
    )
    cells = [cell for of_method in found[0].cells.values() for cell in of_method.values()]
    return Comparison(columns=columns, rows=lines, note=_apart(files, cells))


def _apart(files: RunFiles, cells: Sequence[Cell]) -> str:
    """Write the note on the table: its date, and how this run differs from the trainings in it."""
    from dimml_training.compare.plan import training_key

    until = f"As of {max(cell.date for cell in cells)[:10]}."
    data = read_data_digest(files.folder)
    if data is None:
        return f"{until} It is unknown whether they used the same clips: this run does not record which clips it used."
    if data not in {cell.data_digest for cell in cells}:
        return (
            f"{until} They were trained and tested on other clips, labels or splits than this run, or in another order."
        )
    if training_key(files.config, data, read_decoder_version(files.folder)) not in {cell.training for cell in cells}:
        return f"{until} The same clips, but this run's training is not among them: its settings or seed differ."
    return until


def _accuracy(found: Mapping[str, Any], head: str) -> float:
    """Accuracy of a head under a condition; NaN where no clip has it."""
    own = found["heads"].get(head)
    return float("nan") if own is None else float(own["accuracy"])


def _spec(files: RunFiles) -> FusionSpec:
    if files.fusion is not None and "spec" in files.fusion:
        return FusionSpec.model_validate(files.fusion["spec"])
    votes = files.votes.get("test")
    return (files.config.fusion or PAPER) if votes is None else votes.fusion


def _conditions(files: RunFiles) -> dict[str, Any]:
    found: dict[str, Any] = (files.corruptions or {}).get("conditions", {})
    return found


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
