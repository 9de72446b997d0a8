"""Scoring a run under the corruption suite: every head and the answer, condition by condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dimml.bundle import FUSED_HEAD
from dimml.fusion import BoolArray, FloatArray, Fused, heads_present
from dimml.metrics.classification import auroc_or_none, ece, macro_f1, nll
from dimml_training.config.corruption_suite import Condition
from dimml_training.corruptions.encoding import Encoded, EncodedModality
from dimml_training.evaluation.answer_chance import answer_chances
from dimml_training.evaluation.heads import HeadLogits, fused_answer, head_probabilities
from dimml_training.evaluation.metrics import confidence_rise, conflict
from dimml_training.run.directory import TrainedRun

Labels = npt.NDArray[np.int64]
CLEAN = "clean"


@dataclass(frozen=True)
class Answers:
    """A run's answers under one condition, its draws one after another.

    Clips that lack a modality, and of which the condition leaves nothing, are not scored: there is no answer to give.
    """

    votes: HeadLogits
    fused: Fused
    #: Whether any modality was present to answer from.
    answered_N: BoolArray
    #: Whether the clip has any modality under the condition, or had all of them before it.
    scored_N: BoolArray
    #: Chance of each answer of being right, as a server estimates it.
    chance_N: npt.NDArray[np.float64]

    def of_head(self, head: int) -> BoolArray:
        """The clips that a head is scored on, ``[N]``."""
        return np.asarray(self.scored_N & self.votes.of_head(head))

    def right(self) -> BoolArray:
        """Which clips were answered correctly, ``[N]``."""
        return np.asarray(self.answered_N & (self.fused.logits_BC.argmax(axis=1) == self.votes.labels_N))

    def heads_right(self) -> BoolArray:
        """The same for every head alone, ``[N, H]``."""
        guesses_NH = self.votes.logits_NHC.argmax(axis=2)
        return np.asarray(self.votes.present_NH & (guesses_NH == self.votes.labels_N[:, None]))

    def confidence(self) -> FloatArray:
        """Probability of the answer, ``[N]``."""
        return np.asarray(self.fused.probabilities_BC.max(axis=1))


def answers_to(run: TrainedRun, encoded: Encoded, condition: Condition) -> Answers:
    """Compute the run's answers to all draws of a condition."""
    draws = [encoded.get(condition, draw) for draw in range(condition.draws)]
    together = {
        m.name: EncodedModality(
            np.concatenate([draw[m.name].features_ND for draw in draws]),
            np.concatenate([draw[m.name].logits_NC for draw in draws]),
            np.concatenate([draw[m.name].present_N for draw in draws]),
        )
        for m in run.modalities
    }
    has_NM = np.tile(encoded.has(), (condition.draws, 1))
    votes = votes_of(run, together, np.tile(encoded.labels_N, condition.draws))
    if run.own_heads and not has_NM.all():
        votes = replace(votes, has_NH=heads_present(has_NM, run.voting_fused_head is not None))
    fused = fused_answer(votes, run.fusion, run.fusion_parameters)
    present_NM = np.stack([e.present_N for e in together.values()], axis=1)
    answered_N = np.asarray(present_NM.any(axis=1))
    own = len(run.modalities) if run.own_heads else 0
    chance_N = answer_chances(votes, fused, own, run.accuracy_estimate)
    return Answers(votes, fused, answered_N, np.asarray(answered_N | has_NM.all(axis=1)), chance_N)


@torch.no_grad()
def votes_of(run: TrainedRun, encoded: Mapping[str, EncodedModality], labels_N: Labels) -> HeadLogits:
    """The heads' votes on encoded modalities; the same as ``evaluation.head_logits`` of the clips themselves."""
    ordered = [encoded[m.name] for m in run.modalities]
    present_NM = np.stack([e.present_N for e in ordered], axis=1)
    names = [m.name for m in run.modalities] if run.own_heads else []
    features = [e.features_ND for e in ordered] if run.own_heads else []
    logits = [e.logits_NC for e in ordered] if run.own_heads else []
    if run.voting_fused_head is not None:
        names.append(FUSED_HEAD)
        features.append(np.concatenate(features, axis=1))
        logits.append(run.voting_fused_head(torch.from_numpy(features[-1])).float().numpy())
    joint_NC = None
    if run.joint_head is not None:
        joined = [torch.from_numpy(e.features_ND) for e in ordered]
        present = torch.from_numpy(present_NM).unbind(dim=1)
        joint_NC = run.joint_head.answer(joined, present).float().numpy()
    none = np.zeros((len(labels_N), 0, len(run.labels)), np.float32)
    return HeadLogits(
        heads=tuple(names),
        logits_NHC=np.stack(logits, axis=1) if logits else none,
        present_NH=heads_present(present_NM, run.voting_fused_head is not None) if run.own_heads else present_NM[:, :0],
        labels_N=labels_N,
        features=tuple(features),
        joint_logits_NC=joint_NC,
    )


def score(run: TrainedRun, encoded: Encoded, validation: Encoded, suite: Sequence[Condition]) -> dict[str, Any]:
    """Metrics of a split's clips under every condition of ``suite`` (clean first), and their means, JSON-able.

    ``validation`` holds the validation clips under the same conditions: regret is measured against the modality that is
    better on them.
    """
    answers = {c.name: answers_to(run, encoded, c) for c in suite}
    own = [m.name for m in run.modalities] if run.own_heads else []
    found = {c.name: _of_condition(c, answers[c.name], len(run.labels)) for c in suite}
    for c in suite:
        index = _better(answers_to(run, validation, c), len(own))
        if index is not None and answers[c.name].of_head(index).any():
            there_N = answers[c.name].of_head(index)
            head = float(answers[c.name].heads_right()[there_N, index].mean())
            regret = float(answers[c.name].right()[there_N].mean()) - head
            found[c.name] |= {"better": own[index], "regret": regret}
    clean = answers[CLEAN]
    return {
        "conditions": found,
        "means": {
            which: _means({c.name: found[c.name] for c in suite if c.in_means and c.seen == (which == "seen")})
            for which in ("seen", "development")
        },
        "certainty_auroc": _certainty_auroc([answers[c.name] for c in suite if c.in_means or c.group == CLEAN]),
        "confidence_rise": {c.name: _rise(clean, answers[c.name]) for c in suite if c.group == "absent"},
        "conflict": {c.name: _conflict(clean, answers[c.name], len(own)) for c in suite if c.group == "conflict"},
    }


def _better(answers: Answers, modalities: int) -> int | None:
    """The modality whose head is right most often on its clips; None without any head that has clips."""
    right_NH = answers.heads_right()
    shares = [
        float(right_NH[answers.of_head(index), index].mean()) if answers.of_head(index).any() else -1.0
        for index in range(min(modalities, right_NH.shape[1]))
    ]
    return int(np.argmax(shares)) if shares and max(shares) >= 0.0 else None


def _of_condition(condition: Condition, answers: Answers, classes: int) -> dict[str, Any]:
    labels_N, fused, kept_N = answers.votes.labels_N, answers.fused, answers.scored_N
    return {
        "group": condition.group,
        "seen": condition.seen,
        "in_means": condition.in_means,
        "draws": condition.draws,
        "accuracy": float(answers.right()[kept_N].mean()),
        "macro_f1": macro_f1(labels_N[kept_N], fused.logits_BC[kept_N].argmax(axis=1), classes),
        "nll": nll(fused.probabilities_BC[kept_N], labels_N[kept_N]),
        "ece": ece(answers.confidence()[kept_N], answers.right()[kept_N]),
        "confidence": float(answers.confidence()[kept_N].mean()),
        "estimated_accuracy": float(answers.chance_N[kept_N].mean()),
        "heads": {
            head: {
                "accuracy": float(answers.heads_right()[own_N, index].mean()),
                "mean_weight": float(fused.weights_BH[own_N, index].mean()),
                "mean_certainty": float(fused.certainty_BH[own_N, index].mean()),
            }
            for index, head in enumerate(answers.votes.heads)
            if (own_N := answers.of_head(index)).any()
        },
    }


def _means(of: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean accuracy and mean regret over conditions, and the worst regret with its condition."""
    if not of:
        return None
    regrets = {name: figures["regret"] for name, figures in of.items() if "regret" in figures}
    worst = min(regrets, key=lambda name: regrets[name], default=None)
    return {
        "conditions": len(of),
        "accuracy": float(np.mean([figures["accuracy"] for figures in of.values()])),
        "regret": float(np.mean(list(regrets.values()))) if regrets else None,
        "worst_regret": None if worst is None else regrets[worst],
        "worst_condition": worst,
    }


def _certainty_auroc(answers: Sequence[Answers]) -> dict[str, float | None]:
    """AUROC of each head's certainty as a predictor of a correct vote, over the answers in which it is present.

    None for a head that is always or never right.
    """
    found: dict[str, float | None] = {}
    for index, head in enumerate(answers[0].votes.heads):
        there = [a.votes.present_NH[:, index] for a in answers]
        certainty = np.concatenate([a.fused.certainty_BH[t, index] for a, t in zip(answers, there, strict=True)])
        right = np.concatenate([a.heads_right()[t, index] for a, t in zip(answers, there, strict=True)])
        found[head] = auroc_or_none(certainty, right)
    return found


def _rise(clean: Answers, without: Answers) -> float:
    return confidence_rise(clean.confidence(), without.confidence(), clean.answered_N & without.answered_N)


def _conflict(clean: Answers, conflicting: Answers, modalities: int) -> dict[str, float]:
    own = [head_probabilities(a.votes)[:, :modalities] for a in (clean, conflicting)]
    return conflict(clean.confidence(), conflicting.confidence(), *own)
