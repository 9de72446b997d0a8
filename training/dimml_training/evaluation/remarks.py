"""Remarks on metrics: heads no better than chance, figures that rest on one clip, and the jump of the loss by DUC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

#: Most clips of a split of which each one moves the accuracy so far that it is worth a remark.
FEW_CLIPS: Final = 20
#: Most classes named in a remark.
_NAMED: Final = 5
_ANSWER: Final = "the answer"


def metric_remarks(found: Mapping[str, Any], labels: Sequence[str] = ()) -> list[str]:
    """Remarks on the metrics of one split or condition (``evaluation.heads.figures``), one line each.

    ``labels`` are the classes, to name those with one clip. Chance is the most frequent class's share of the clips:
    that much is right without looking at any.
    """
    counts = [sum(row) for row in found["confusion"]]
    clips = sum(counts)
    if not clips:
        return []
    # A head that some clips lack is right on others than the answer: it cannot be held against it.
    accuracies = {head: own["accuracy"] for head, own in found["heads"].items() if own.get("clips", clips) == clips} | {
        _ANSWER: found["accuracy"]
    }
    right = {head: round(accuracy * clips) for head, accuracy in accuracies.items()}
    remarks = []
    blind = [head for head, count in right.items() if count <= max(counts)]
    if blind:
        remarks.append(
            f"{_listed(blind)} {'is' if len(blind) == 1 else 'are'} no better than always answering the most frequent "
            f"class, which is right on {max(counts)} of {clips} clips"
        )
    if clips <= FEW_CLIPS:
        remarks.append(f"{clips} clip{'s' if clips > 1 else ''}: each moves an accuracy by {100 / clips:.0f} points")
    single = [labels[index] if labels else str(index) for index, count in enumerate(counts) if count == 1]
    if single:
        remarks.append(
            f"macro-F1 rests on one clip for {'class' if len(single) == 1 else 'each of the classes'} {_listed(single)}"
        )
    heads = {head: count for head, count in right.items() if head != _ANSWER}
    if heads:
        best = max(heads, key=lambda head: heads[head])
        if abs(right[_ANSWER] - heads[best]) == 1:
            more = "more" if right[_ANSWER] > heads[best] else "fewer"
            remarks.append(f"the answer is right on one clip {more} than {best} alone: that may be chance")
    return remarks


def duc_remarks(epochs: Sequence[Mapping[str, float]]) -> list[str]:
    """Explain the rise of stage 1's loss in the epoch in which DUC joins it, at most one line.

    ``epochs`` are rows of ``metrics.csv``, or its last two.
    """
    stage1 = [row for row in epochs if "train_loss_duc" in row]
    for before, after in pairwise(stage1):
        jump = after["train_loss"] - before["train_loss"]
        if before["train_loss_duc"] == 0.0 and after["train_loss_duc"] > 0.0 and jump > 0.0:
            return [
                f"the loss rises from {before['train_loss']:.3f} to {after['train_loss']:.3f} in epoch "
                f"{int(after['epoch']) + 1} because DUC joins it, with {after['train_loss_duc']:.3f}: as intended; "
                "compare it with later epochs only"
            ]
    return []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
