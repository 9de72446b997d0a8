"""The metrics of a method's answers that get bootstrap replicates, and their names in the cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dimml.bundle import FUSED_HEAD
from dimml.metrics.classification import disagreement, log_losses
from dimml_training.compare import replicates
from dimml_training.compare.answers import Answer
from dimml_training.compare.bootstrap import FloatArray
from dimml_training.compare.cells import pack_samples
from dimml_training.config.corruption_suite import Condition

#: Metrics of the clean answers.
MACRO_F1, NLL, CONFIDENCE = "macro_f1", "nll", "confidence"
#: Mean over heads of ``Cell.certainty_auroc``.
CERTAINTY_AUROC = "certainty_auroc"
#: Means over the conflict conditions.
CONFLICT_CONFIDENCE, DISAGREEMENT_AUROC = "conflict_confidence", "disagreement_auroc"
Labels = npt.NDArray[np.int64]


def rise_metric(condition: str) -> str:
    """Name of the rise of confidence under a condition in which a modality is absent."""
    return f"rise_{condition}"


def certainty_answers(suite: Sequence[Condition], answers: Mapping[str, Sequence[Answer]]) -> list[Answer]:
    """Answers on which certainty is compared with correctness: clean, and the development conditions in the means."""
    return [a for c in suite if c.group == "clean" or (c.in_means and not c.seen) for a in answers[c.name]]


def replicates_of(
    suite: Sequence[Condition],
    answers: Mapping[str, Sequence[Answer]],
    labels_N: Labels,
    classes: int,
    weights_SN: FloatArray,
) -> dict[str, str]:
    """Packed replicates by metric, without metrics that a method does not have. ``suite`` begins with clean."""
    clean = answers[suite[0].name][0]
    confidence_N = clean.probabilities_NC.max(axis=1)
    truth_N = clean.probabilities_NC[np.arange(len(labels_N)), labels_N]
    conflicts = [answers[c.name] for c in suite if c.group == "conflict"]
    found: dict[str, FloatArray | None] = {
        MACRO_F1: replicates.macro_f1s(labels_N, clean.probabilities_NC.argmax(axis=1), classes, weights_SN),
        NLL: replicates.means(log_losses(truth_N), weights_SN),
        CONFIDENCE: replicates.means(confidence_N, weights_SN),
        CERTAINTY_AUROC: _certainty(certainty_answers(suite, answers), labels_N, weights_SN),
        CONFLICT_CONFIDENCE: replicates.mean_of(
            [replicates.means(_confidence_of_draws(draws).mean(axis=0), weights_SN) for draws in conflicts]
        ),
        DISAGREEMENT_AUROC: replicates.mean_of(
            [s for draws in conflicts if (s := _disagreement(clean, draws, weights_SN)) is not None]
        ),
    }
    for condition in suite:
        if condition.group == "absent":
            without = answers[condition.name][0]
            both_N = clean.answered_N & without.answered_N
            rises_N = without.probabilities_NC.max(axis=1) > confidence_N
            found[rise_metric(condition.name)] = replicates.means(np.where(both_N, rises_N, np.nan), weights_SN)
    return {name: pack_samples(s) for name, s in found.items() if s is not None and np.isfinite(s).any()}


def _certainty(judged: Sequence[Answer], labels_N: Labels, weights_SN: FloatArray) -> FloatArray | None:
    """Mean over heads of the AUROC of the head's certainty as a predictor of a correct vote."""
    of_heads = []
    for index in range(len(judged[0].heads)):
        certainty_AN = np.stack([a.certainty_NH[:, index] for a in judged])
        there_AN = np.stack([a.present_NH[:, index] for a in judged])
        right_AN = np.stack([a.own_NHC[:, index].argmax(axis=1) == labels_N for a in judged])
        if there_AN.any():
            samples_S = replicates.aurocs(certainty_AN, right_AN, there_AN, weights_SN)
            if np.isfinite(samples_S).all():
                of_heads.append(samples_S)
    return replicates.mean_of(of_heads)


def _disagreement(clean: Answer, conflicting: Sequence[Answer], weights_SN: FloatArray) -> FloatArray | None:
    """AUROC with which the disagreement of the modalities' heads separates conflict from clean."""
    own = [index for index, head in enumerate(clean.heads) if head != FUSED_HEAD]
    if len(own) < 2:
        return None
    scores_AN = np.stack([disagreement(a.own_NHC[:, own]) for a in (clean, *conflicting)])
    conflict_AN = np.zeros(scores_AN.shape, np.bool_)
    conflict_AN[1:] = True
    return replicates.aurocs(scores_AN, conflict_AN, np.ones_like(conflict_AN), weights_SN)


def _confidence_of_draws(draws: Sequence[Answer]) -> npt.NDArray[np.float32]:
    return np.stack([a.probabilities_NC.max(axis=1) for a in draws])
