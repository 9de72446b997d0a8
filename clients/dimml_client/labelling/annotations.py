"""Label Studio's export read back: one label for each task that has one, checked against the selection.

Format ``JSON`` of its export. Of predictions that holds ids only (1.23), so that the answers are those of the
selection; where an export has them whole, they are checked as the annotations are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dimml.errors import DataError
from dimml_client.labelling.selection import Chosen, Selection
from dimml_client.labelling.tasks import KEY, LABEL

#: Problems named in an error, at most.
_NAMED: Final = 20


@dataclass
class Labelled:
    """Labels by chosen recording, in the order of the export, and the tasks that have none by what they lack."""

    labels: list[tuple[Chosen, str]] = field(default_factory=list)
    #: Keys of tasks that were skipped, or not labelled yet.
    unlabelled: list[str] = field(default_factory=list)
    #: Keys of tasks to which annotators gave different labels, without one of them marked as ground truth.
    disputed: list[str] = field(default_factory=list)


class _TaskError(Exception):
    """What is wrong with one task."""


def read_export(path: Path, selection: Selection) -> Labelled:
    """Read an export.

    Raises DataError if it is no export in the format JSON, and with a list of all faulty tasks: a recording that is not
    of the selection or stands twice, a label that the bundle does not have, several labels, a prediction with such a
    label or a score outside of 0 to 1.
    """
    found, problems = Labelled(), []
    chosen = {one.key: one for one in selection.chosen}
    seen: set[str] = set()
    for number, task in enumerate(_tasks(path), start=1):
        name = f"task {task.get('id', number)}"
        try:
            one = _chosen(task, chosen, seen)
            _check_predictions(task, selection)
            labels = list(_labels(task, selection))
        except _TaskError as error:
            problems.append(f"{name}: {error}")
            continue
        decided = {label for label, truth in labels if truth} or {label for label, _ in labels}
        if not decided:
            found.unlabelled.append(one.key)
        elif len(decided) > 1:
            found.disputed.append(one.key)
        else:
            found.labels.append((one, decided.pop()))
    if problems:
        more = [f"and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
        raise DataError(
            f"{path} does not fit the selection: {len(problems)} faulty task{'s' if len(problems) > 1 else ''}",
            problems=[*problems[:_NAMED], *more],
            field=str(path),
        )
    return found


def _tasks(path: Path) -> list[Mapping[str, Any]]:
    way_out = "choose the format JSON in Label Studio's export"
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", field=str(path)) from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}; {way_out}", field=str(path)) from error
    if not isinstance(document, list) or not all(isinstance(task, Mapping) for task in document):
        raise DataError(f"{path} is no list of tasks: {way_out}", field=str(path))
    if any(not isinstance(task.get("data"), Mapping) or "annotations" not in task for task in document):
        # JSON-MIN puts the fields of ``data`` into the task.
        raise DataError(f"{path} has tasks without data or annotations: {way_out}, not JSON-MIN", field=str(path))
    return document


def _chosen(task: Mapping[str, Any], chosen: Mapping[str, Chosen], seen: set[str]) -> Chosen:
    key = task["data"].get(KEY)
    if not isinstance(key, str) or key not in chosen:
        raise _TaskError(f"its {KEY} {key!r} is not in the selection; give the selection whose tasks were imported")
    if key in seen:
        raise _TaskError(f"{key!r} stands twice; were its tasks imported twice? Remove one in Label Studio")
    seen.add(key)
    return chosen[key]


def _check_predictions(task: Mapping[str, Any], selection: Selection) -> None:
    for prediction in task.get("predictions") or ():
        if not isinstance(prediction, Mapping):
            continue  # Its id.
        for label in _choices(prediction, selection, "a prediction"):
            _check_label(label, selection, "a prediction")
        score = prediction.get("score")
        if score is not None and not (isinstance(score, int | float) and 0.0 <= score <= 1.0):
            raise _TaskError(f"a prediction has the score {score!r}, which is not from 0 to 1")


def _labels(task: Mapping[str, Any], selection: Selection) -> Iterator[tuple[str, bool]]:
    """Yield the label of each annotation that has one, and whether it is marked as ground truth."""
    annotations = task["annotations"]
    if not isinstance(annotations, list) or not all(isinstance(one, Mapping) for one in annotations):
        raise _TaskError("its annotations are no list of objects")
    for annotation in annotations:
        if annotation.get("was_cancelled"):
            continue
        labels = list(dict.fromkeys(_choices(annotation, selection, "an annotation")))
        if len(labels) > 1:
            raise _TaskError(f"an annotation has {len(labels)} labels, {', '.join(map(repr, labels))}; a clip has one")
        for label in labels:
            yield label, bool(annotation.get("ground_truth"))


def _choices(of: Mapping[str, Any], selection: Selection, what: str) -> Iterator[str]:
    results = of.get("result")
    if not isinstance(results, list):
        raise _TaskError(f"{what} has no result")
    for result in results:
        if not isinstance(result, Mapping) or result.get("from_name") != LABEL:
            continue  # Another question of the interface.
        value = result.get("value")
        choices = value.get("choices") if isinstance(value, Mapping) else None
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise _TaskError(f"{what} has {value!r} for a choice")
        for choice in choices:
            _check_label(choice, selection, what)
            yield choice


def _check_label(label: str, selection: Selection, what: str) -> None:
    if label not in selection.labels:
        raise _TaskError(
            f"{what} has the label {label!r}, which {selection.bundle}:{selection.version} does not know; it has "
            f"{', '.join(selection.labels)}"
        )
