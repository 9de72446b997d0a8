"""Figures of heads and answer on the same clips before and after, and which of them forbid an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.fusion import BoolArray, FloatArray, Fused, FusionSpec, softmax
from dimml.metrics.classification import ece, nll
from dimml_training.evaluation.heads import HeadLogits

#: Largest loss of accuracy of any head and of the answer.
MOST_ACCURACY_LOST: Final = 0.005
#: Largest rise of the answer's expected calibration error.
MOST_ECE_ADDED: Final = 0.01
#: Comparisons are of sums in floating point: a loss of exactly the bound is none too many.
_ROUNDING: Final = 1e-9

Figures = dict[str, Any]


def figures_of(votes: HeadLogits, fused: Fused, fusion: FusionSpec) -> Figures:
    """Accuracy and ECE of every head on the clips in which it votes, and accuracy, ECE and NLL of the answer.

    Heads' probabilities are those of the fusion, at its temperatures. The answer is judged on clips in which any head
    votes. A head that votes in no clip has None.
    """
    heads: dict[str, Any] = {}
    for index, head in enumerate(votes.heads):
        there_N = votes.present_NH[:, index]
        temperature = 1.0 if fusion.head_temperatures is None else fusion.head_temperatures[index]
        own = votes.logits_NHC[there_N, index] / np.float32(temperature)
        heads[head] = _of(softmax(own), votes.labels_N[there_N]) if there_N.any() else {"accuracy": None, "ece": None}
    answered_N = votes.present_NH.any(axis=1)
    probabilities, labels = fused.probabilities_BC[answered_N], votes.labels_N[answered_N]
    answer = _of(probabilities, labels) | {"nll": nll(probabilities, labels)}
    return {**answer, "heads": heads}


def agreement(before: tuple[HeadLogits, Fused], after: tuple[HeadLogits, Fused]) -> dict[str, float]:
    """Share of clips with the same label before and after, of each head and of the answer."""
    votes = before[0]
    found = {
        head: _same(votes.logits_NHC[:, h], after[0].logits_NHC[:, h], votes.present_NH[:, h])
        for h, head in enumerate(votes.heads)
    }
    answered_N = np.asarray(votes.present_NH.any(axis=1))
    return {**found, "answer": _same(before[1].logits_BC, after[1].logits_BC, answered_N)}


def faults(before: Figures, after: Figures) -> list[str]:
    """Say what the reduced precision costs too much, with the figures; empty where it may be exported."""
    heads_lost = head_losses(before, after)
    found = [
        f"the {head} head's accuracy falls from {before['heads'][head]['accuracy']:.1%} to "
        f"{after['heads'][head]['accuracy']:.1%}"
        for head, lost in heads_lost.items()
        if lost > MOST_ACCURACY_LOST + _ROUNDING
    ]
    # Written so that a NaN fails too.
    if not before["accuracy"] - after["accuracy"] <= MOST_ACCURACY_LOST + _ROUNDING:
        found.append(f"the answer's accuracy falls from {before['accuracy']:.1%} to {after['accuracy']:.1%}")
    if not after["ece"] - before["ece"] <= MOST_ECE_ADDED + _ROUNDING:
        found.append(f"the answer's calibration error rises from {before['ece']:.3f} to {after['ece']:.3f}")
    return found


def head_losses(before: Figures, after: Figures) -> dict[str, float]:
    """Accuracy that each head loses; heads that vote in no clip are left out."""
    return {
        head: own["accuracy"] - after["heads"][head]["accuracy"]
        for head, own in before["heads"].items()
        if own["accuracy"] is not None
    }


def answer_loss(before: Figures, after: Figures) -> float:
    """Accuracy that the answer loses, or the rise of its ECE on the same scale, whichever is nearer to its bound."""
    calibration = (after["ece"] - before["ece"]) * MOST_ACCURACY_LOST / MOST_ECE_ADDED
    return float(max(before["accuracy"] - after["accuracy"], calibration))


def harmful(losses: Mapping[str, float]) -> list[str]:
    """Name the heads that lose more than they may."""
    return [head for head, lost in losses.items() if lost > MOST_ACCURACY_LOST + _ROUNDING]


def _of(probabilities_NC: FloatArray, labels_N: npt.NDArray[np.int64]) -> dict[str, float]:
    right_N = probabilities_NC.argmax(axis=1) == labels_N
    return {"accuracy": float(right_N.mean()), "ece": ece(probabilities_NC.max(axis=1), right_N)}


def _same(before_NC: FloatArray, after_NC: FloatArray, which_N: BoolArray) -> float:
    if not which_N.any():
        return 1.0
    return float((before_NC[which_N].argmax(axis=1) == after_NC[which_N].argmax(axis=1)).mean())
