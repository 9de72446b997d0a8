"""The report's sections on the fusion: how it was chosen, how it stands under corruption and beside other methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimml.errors import ConfigurationError
from dimml.fusion import PAPER, FusionSpec
from dimml_training.report.charts import Series, dot_chart, line_chart
from dimml_training.report.diagrams import ANSWER
from dimml_training.report.parts import Figure, Table, head_colours
from dimml_training.report.reading import RunFiles


def fusion_table(files: RunFiles) -> Table | None:
    """How the heads' votes become the answer; None for a joint training, which has one head."""
    if files.config.stage1.objective == "joint":
        return None
    spec = _spec(files)
    rows = []
    for name, value in spec.model_dump().items():
        shown = ", ".join(f"{v:.3g}" for v in value) if isinstance(value, tuple) else _shown(value)
        rows.append([name, shown, " ".join((type(spec).model_fields[name].description or "").split())])
    return Table(["field", "value", "what"], rows)


def outdated(files: RunFiles) -> bool:
    """Whether the fusion was chosen anew after the test clips were answered."""
    votes = files.votes.get("test")
    return votes is not None and votes.fusion != _spec(files)


def fusion_rivals(files: RunFiles) -> Table | None:
    """The fusion that was chosen on validation clips and what it beat there; None where the config fixed it."""
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


def corruption_overview(files: RunFiles) -> list[Figure]:
    """Every head and the answer under every condition, one figure for what befalls each modality, clean at
    its top."""
    groups: dict[str, list[tuple[str, list[tuple[str, str, float]]]]] = {}
    colours = head_colours(files)
    for name, found in _conditions(files).items():
        dots = [(head, colours.get(head, "c0"), float(own["accuracy"])) for head, own in found["heads"].items()]
        where, _, what = name.rpartition(":")
        groups.setdefault(where, []).append((what, [*dots, (ANSWER, "answer", float(found["accuracy"]))]))
    clean = groups.pop("", [])
    figures = []
    for where, rows in groups.items():
        heads = dict.fromkeys(what for _, dots in rows for what, _, _ in dots)
        legend = [(head, colours.get(head, "c0")) for head in heads]
        figures.append(Figure(where, dot_chart([*clean, *rows]), legend))
    return figures


def corruption_curves(files: RunFiles) -> list[Figure]:
    """Accuracy over severity, for families of which several were scored, in the order they were scored in."""
    families: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, found in _conditions(files).items():
        family, _, severity = name.rpartition("_")
        if family and "+" not in name and found.get("in_means", True):
            families.setdefault(family, []).append((severity, found))
    colours = head_colours(files)
    figures = []
    for family, steps in families.items():
        if len(steps) < 2:
            continue
        xs = [float(index) for index in range(len(steps))]
        series = [
            Series(head, colours.get(head, "c0"), xs, [float(found["heads"][head]["accuracy"]) for _, found in steps])
            for head in steps[0][1]["heads"]
        ]
        series.append(Series(ANSWER, "answer", xs, [float(found["accuracy"]) for _, found in steps]))
        names = [severity for severity, _ in steps]
        chart = line_chart(series, x_label="severity", y_label="accuracy", per_cent=True, x_names=names)
        figures.append(Figure(family.replace("_", " ").replace(":", ": "), chart))
    return figures


def corruption_table(files: RunFiles) -> Table | None:
    """The same in numbers, with the regret against the better modality."""
    conditions = _conditions(files)
    if not conditions:
        return None
    heads = list(dict.fromkeys(head for found in conditions.values() for head in found["heads"]))
    rows = []
    for name, found in conditions.items():
        own = [f"{found['heads'][head]['accuracy']:.1%}" if head in found["heads"] else "" for head in heads]
        regret = f"{100 * found['regret']:+.1f}" if found.get("regret") is not None else ""
        seen = "" if name == "clean" else "seen" if found.get("seen") else "unseen"
        rows.append([name, seen, *own, f"{found['accuracy']:.1%}", str(found.get("better", "")), regret])
    return Table(["condition", "family", *heads, ANSWER, "better modality", "regret, points"], rows)


def comparison(files: RunFiles, results: Path) -> Table:
    """All methods that ``dimml compare`` scored on this run's data. Raises ConfigurationError where there are none."""
    from dimml_training.compare.cells import read_cells
    from dimml_training.compare.tables import rows, summaries

    found = summaries(cell for cell in read_cells(results) if cell.data == files.config.name)
    if not found:
        raise ConfigurationError(
            f"{results} holds no comparison of data named {files.config.name!r}; `dimml compare` makes one",
            field="--results",
        )
    lines = [
        [
            row.method,
            f"{row.clean.value:.1%} ({row.clean.low:.1%} to {row.clean.high:.1%})",
            "" if row.seen is None else f"{row.seen.value:.1%}",
            "" if row.unseen is None else f"{row.unseen.value:.1%}",
            "" if row.mean_regret is None else f"{100 * row.mean_regret.value:+.1f}",
            f"{row.ece.value:.3f} ({row.ece_bound:.3f})",
            str(row.repeats),
        ]
        for row in rows(found[0])
    ]
    return Table(["method", "clean", "seen families", "unseen families", "regret, unseen", "ECE (perfect)", "n"], lines)


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
