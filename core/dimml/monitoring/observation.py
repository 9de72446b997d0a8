"""What monitoring records of one answered row: the same for the embedded server and Triton's entry models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING, Final

from dimml.bundle import FUSED_HEAD, Bundle
from dimml.fusion import FloatArray
from dimml.monitoring.accuracy import pattern_of

if TYPE_CHECKING:
    from dimml.ensemble import EnsembleResult

#: Labels with a metric series of their own, the first ones of the bundle; all other labels share one series.
MAX_LABELS: Final = 100
OTHER_LABELS: Final = "_other"


@dataclass(frozen=True)
class Observation:
    """What is recorded of one answered row."""

    #: Class index of the answer.
    answer: int
    #: Its probability.
    probability: float
    #: Estimated chance that it is right (``accuracy_estimate``); its probability where the bundle has no estimate.
    chance: float
    #: The modalities that are ok, by ``accuracy.pattern_of``.
    pattern: str
    degraded: bool
    #: By head that voted: certainty and weight.
    heads: Mapping[str, tuple[float, float]]
    #: None where fewer than two modalities are ok.
    disagreement: float | None


def observations(bundle: Bundle, result: EnsembleResult) -> Iterator[Observation]:
    """Make one observation for every row in which at least one modality is ok."""
    fused, estimates = result.fused, bundle.accuracy_estimate
    # Of lists: an index into an array costs as much as the rest of an observation.
    certainty_BH, weights_BH = fused.certainty_BH.tolist(), fused.weights_BH.tolist()
    probability_B = fused.probabilities_BC.max(axis=1).tolist()
    for row, answer in enumerate(fused.probabilities_BC.argmax(axis=1).tolist()):
        statuses = {name: column[row] for name, column in result.statuses.items()}
        votes = {name: status.ok for name, status in statuses.items()}
        if not any(votes.values()):
            continue
        here = [name for name, ok in votes.items() if ok]
        votes[FUSED_HEAD] = all(votes.values())
        heads = {
            name: (certainty_BH[row][head], weights_BH[row][head])
            for head, name in enumerate(bundle.heads)
            if votes[name]
        }
        own = [result.own[name][row] for name in here]
        disagreement = _disagreement(own)
        chance = probability_B[row]
        if (estimate := None if estimates is None else estimates.by_modalities.get(tuple(here))) is not None:
            agrees = {name: int(own_C.argmax()) == answer for name, own_C in zip(here, own, strict=True)}
            certainty = {name: sure for name, (sure, _) in heads.items()}
            chance = estimate.chance(probability_B[row], certainty, agrees, disagreement)
        yield Observation(
            answer=answer,
            probability=probability_B[row],
            chance=chance,
            pattern=pattern_of(here),
            degraded=any(status.degrades for status in statuses.values()),
            heads=heads,
            disagreement=disagreement,
        )


def label_series(bundle: Bundle) -> tuple[str, ...]:
    """List the values of the metric label ``label``: the bundle's labels, and one for all beyond ``MAX_LABELS``."""
    labels = bundle.labels
    return labels if len(labels) <= MAX_LABELS else (*labels[:MAX_LABELS], OTHER_LABELS)


def label_name(bundle: Bundle, answer: int) -> str:
    """Return the value of the metric label ``label`` for a class."""
    return bundle.labels[answer] if answer < MAX_LABELS else OTHER_LABELS


def bundle_info(bundle: Bundle) -> dict[str, str]:
    """Labels of the info metric, beside name and version; ``reference`` says whether drift can be computed."""
    return {
        "created": bundle.created,
        "certainty": bundle.fusion.certainty,
        "reference": "none" if bundle.reference is None else "validation",
    }


def _disagreement(own_MC: Sequence[FloatArray]) -> float | None:
    """Compute what ``dimml.metrics.classification.disagreement`` does, of one row; None of fewer than two heads."""
    same = [float(one_C @ other_C) for one_C, other_C in combinations(own_MC, 2)]
    # Clipped, since rounding in single precision can move a probability out of [0, 1].
    return min(1.0, max(0.0, 1.0 - fmean(same))) if same else None
