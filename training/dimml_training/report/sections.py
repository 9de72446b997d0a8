"""Contents of the report's sections, from a run's files; a section without contents is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimml.bundle import FUSED_HEAD
from dimml.look.charts import Series, confusion_chart, line_chart, reliability_chart
from dimml.look.palette import css_class
from dimml.metrics.classification import perfect_ece
from dimml_training.evaluation.remarks import duc_remarks, metric_remarks
from dimml_training.report.diagrams import ANSWER, HeadDiagrams, diagrams
from dimml_training.report.parts import Figure, Table, Tile, chance, head_colours
from dimml_training.report.reading import RunFiles
from dimml_training.run.directory import read_data_digest

#: Number of most confused pairs in the list.
CONFUSIONS = 8


def tested(files: RunFiles) -> list[HeadDiagrams]:
    """Diagrams of the test split; empty if there are no votes yet."""
    votes = files.votes.get("test")
    return diagrams(votes, len(files.labels)) if votes is not None and files.labels else []


def data_name(files: RunFiles) -> str:
    """Name the clip table, and the digest of the clips, labels and splits that were used, where it is recorded."""
    digest = read_data_digest(files.folder)
    table = str(files.config.data.manifest)
    return table if digest is None else f"{table} ({digest[:12]})"


def summary(files: RunFiles, heads: Sequence[HeadDiagrams]) -> list[Tile]:
    """Tiles of the summary: the metrics that a reader wants first."""
    test, training = files.metrics.get("test"), files.training
    tiles = []
    if test:
        tiles.append(Tile("test accuracy", f"{test['accuracy']:.1%}", f"{test['clips']} clips"))
        single = {
            head: own["accuracy"]
            for head, own in test["heads"].items()
            if head != FUSED_HEAD and own["accuracy"] is not None
        }
        if single:
            best = max(single, key=lambda head: single[head])
            tiles.append(Tile("best modality alone", f"{single[best]:.1%}", best))
        tiles.append(Tile("macro-F1", f"{test['macro_f1']:.3f}"))
        tiles.append(Tile("NLL", f"{test['nll']:.3f}"))
    answer = next((head for head in heads if head.name == ANSWER), None)
    if answer is not None:
        # On so few clips even a perfect calibrator shows some error by chance.
        perfect = perfect_ece(files.votes["test"].answer_NC.max(axis=1))
        tiles.append(Tile("calibration error", f"{answer.ece:.3f}", f"ECE of the answer; perfect: up to {perfect:.3f}"))
    clips = training.get("clips")
    if clips:
        tiles.append(Tile("clips", str(sum(clips.values())), ", ".join(f"{n} {split}" for split, n in clips.items())))
    tiles.append(Tile("classes", str(len(files.labels)) if files.labels else "?"))
    if "seconds" in training:
        tiles.append(Tile("training", _duration(training["seconds"]), f"epoch {_epoch(training)} was chosen"))
    return tiles


def remarks(files: RunFiles) -> list[str]:
    """Remarks on the metrics of each split, and on the loss."""
    of_splits = [
        f"{split}: {remark}"
        for split, found in files.metrics.items()
        if "confusion" in found
        for remark in metric_remarks(found, files.labels)
    ]
    return [*of_splits, *duc_remarks(files.epochs)]


def heads_table(files: RunFiles, heads: Sequence[HeadDiagrams]) -> Table | None:
    """Table of every head and the answer on validation and test."""
    if not files.metrics:
        return None
    errors = {head.name: f"{head.ece:.3f}" for head in heads}
    splits = [split for split in ("validation", "test") if split in files.metrics]
    columns = ["head"]
    for split in splits:
        columns += [f"{split} accuracy", "macro-F1"]
    columns += ["mean weight", "ECE"]
    last = files.metrics[splits[-1]]
    rows = []
    for head in last["heads"]:
        own = [files.metrics[split]["heads"][head] for split in splits]
        row = [head]
        for figures in own:
            row += [_shown(figures["accuracy"], ".1%"), _shown(figures["macro_f1"], ".3f")]
        rows.append([*row, _shown(own[-1]["mean_weight"], ".2f"), errors.get(head, "")])
    row = [ANSWER]
    for split in splits:
        row += [f"{files.metrics[split]['accuracy']:.1%}", f"{files.metrics[split]['macro_f1']:.3f}"]
    return Table(columns, [*rows, [*row, "", errors.get(ANSWER, "")]])


def presence(files: RunFiles) -> Table | None:
    """Table of how many clips of each split have each modality, and all of them; None if no clip lacks any."""
    found = files.training.get("present")
    if not found:
        return None
    clips = files.training["clips"]
    rows = [
        [name, *(f"{counts[name]} of {clips[split]}" for split, counts in found.items())]
        for name in next(iter(found.values()))
    ]
    return Table(["clips with", *found], rows)


def learning_curves(files: RunFiles) -> list[Figure]:
    """Charts of losses and of validation accuracy by head over the epochs of stage 1, and of stage 2."""
    stage1 = [row for row in files.epochs if "epoch" in row]
    stage2 = [row for row in files.epochs if "stage2_epoch" in row]
    colours = head_colours(files)
    marks = []
    chosen = files.training.get("selected_epoch")
    if chosen is not None:
        marks.append((float(chosen), "chosen"))
    stage = files.config.stage1
    if files.training.get("effective_dimensions") and 0 < stage.warmup_epochs < stage.epochs and stage.lambda_duc > 0:
        marks.append((float(stage.warmup_epochs), "DUC starts"))
    losses = [
        _series(stage1, "epoch", key, key.removeprefix("train_loss_"), css_class(index - 1))
        if key != "train_loss"
        else _series(stage1, "epoch", key, "whole", "answer")
        for index, key in enumerate(_columns(stage1, "train_loss"))
    ]
    accuracies = _by_head(stage1, "epoch", "val_accuracy_", colours)
    validation = _by_head(stage1, "epoch", "val_loss_", colours)
    figures = [
        _curves("Training loss, by part", losses, "epoch", "loss", marks),
        _curves("Validation accuracy", accuracies, "epoch", "accuracy", marks, chance=chance(files)),
        _curves("Validation loss", validation, "epoch", "cross entropy", marks),
        _curves(
            "Stage 2: validation accuracy",
            _by_head(stage2, "stage2_epoch", "val_accuracy_", colours),
            "epoch",
            "accuracy",
            chance=chance(files),
        ),
    ]
    return [figure for figure in figures if figure.chart]


def confusion_matrices(files: RunFiles, heads: Sequence[HeadDiagrams]) -> list[Figure]:
    """Confusion matrices of the answer and then of every head."""
    ordered = sorted(heads, key=lambda head: head.name != ANSWER)
    return [
        Figure(
            head.name,
            confusion_chart(head.confusion_CC, files.labels),
            note=f"{head.accuracy:.1%} of {head.clips} clips",
        )
        for head in ordered
        if head.clips
    ]


def worst_confusions(files: RunFiles, heads: Sequence[HeadDiagrams]) -> Table | None:
    """Table of the pairs of classes that the answer confuses most."""
    answer = next((head for head in heads if head.name == ANSWER), None)
    if answer is None:
        return None
    wrong_CC = answer.confusion_CC - np.diag(np.diag(answer.confusion_CC))
    totals_C = answer.confusion_CC.sum(axis=1)
    order = np.argsort(-wrong_CC, axis=None, kind="stable")[:CONFUSIONS]
    rows = []
    for place in order:
        truth, predicted = divmod(int(place), len(files.labels))
        if wrong_CC[truth, predicted]:
            share = wrong_CC[truth, predicted] / totals_C[truth]
            clips = str(wrong_CC[truth, predicted])
            rows.append([files.labels[truth], files.labels[predicted], clips, f"{share:.0%}"])
    return Table(["class", "taken for", "clips", "of its clips"], rows) if rows else None


def reliability_diagrams(files: RunFiles, heads: Sequence[HeadDiagrams]) -> list[tuple[str, list[Figure]]]:
    """Reliability diagrams per head: before calibration, and after it if there was any."""
    colours = head_colours(files)
    found = []
    for head in heads:
        if not head.clips:
            continue
        css = colours.get(head.name, "c0")
        figures = [Figure("before calibration" if head.after else "as trained", reliability_chart(head.before, css))]
        notes = [head.before.ece]
        if head.after is not None:
            figures.append(Figure("after calibration", reliability_chart(head.after, css)))
            notes.append(head.after.ece)
        named = [Figure(f.title, f.chart, note=f"ECE {error:.3f}") for f, error in zip(figures, notes, strict=True)]
        found.append((head.name, named))
    return found


def effective_dimensions(files: RunFiles) -> list[tuple[str, str, int, int]]:
    """Effective dimensions as rows (modality, CSS class, effective dimensions, D)."""
    counts: Mapping[str, int] = files.training.get("effective_dimensions", {})
    colours = head_colours(files)
    width = files.config.modalities[0].encoder.width
    return [(name, colours[name], int(count), width) for name, count in counts.items() if name in colours]


def _shown(value: float | None, form: str) -> str:
    """A metric as text; a head without clips has none."""
    return "–" if value is None else format(value, form)


def _columns(rows: Sequence[Mapping[str, float]], start: str) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith(start)))


def _series(rows: Sequence[Mapping[str, float]], x: str, y: str, name: str, css: str) -> Series:
    return Series(name, css, [row[x] for row in rows], [row.get(y, float("nan")) for row in rows])


def _by_head(rows: Sequence[Mapping[str, float]], x: str, start: str, colours: Mapping[str, str]) -> list[Series]:
    keys = _columns(rows, start)
    return [
        # A column that is not a head's is the answer of all heads together.
        _series(rows, x, key, key.removeprefix(start), colours.get(key.removeprefix(start), "answer"))
        for key in keys
    ]


def _curves(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    *,
    chance: float | None = None,
) -> Figure:
    """Draw curves over epochs: of accuracy with the share that guessing gets, of losses without."""
    per_cent = y_label == "accuracy"
    chart = line_chart(series, x_label=x_label, y_label=y_label, per_cent=per_cent, marks=marks, chance=chance)
    return Figure(title, chart, [(one.name, one.colour) for one in series])


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _epoch(training: Mapping[str, Any]) -> str:
    chosen = training.get("selected_epoch")
    return "?" if chosen is None else str(int(chosen) + 1)
