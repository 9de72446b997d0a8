"""What monitoring records of one answered row: the same for the embedded server and Triton's entry models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from dimml.bundle import FUSED_HEAD, Bundle
from dimml.fusion import softmax
from dimml.metrics.classification import disagreement

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
    degraded: bool
    #: By head that voted: certainty and weight.
    heads: Mapping[str, tuple[float, float]]
    #: None where fewer than two modalities are ok.
    disagreement: float | None


def observations(bundle: Bundle, result: EnsembleResult) -> Iterator[Observation]:
    """Make one observation for every row in which at least one modality is ok."""
    fused = result.fused
    for row, answer in enumerate(fused.probabilities_BC.argmax(axis=1)):
        statuses = {name: column[row] for name, column in result.statuses.items()}
        votes = {name: status.ok for name, status in statuses.items()}
        if not any(votes.values()):
            continue
        here = [name for name, ok in votes.items() if ok]
        votes[FUSED_HEAD] = all(votes.values())
        yield Observation(
            answer=int(answer),
            degraded=any(status.degrades for status in statuses.values()),
            heads={
                name: (float(fused.certainty_BH[row, head]), float(fused.weights_BH[row, head]))
                for head, name in enumerate(bundle.heads)
                if votes[name]
            },
            disagreement=_disagreement(np.stack([result.logits[name][row] for name in here])),
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


def _disagreement(logits_MC: npt.NDArray[Any]) -> float | None:
    if len(logits_MC) < 2:
        return None
    # Clipped, since rounding in single precision can move a probability out of [0, 1].
    return min(1.0, max(0.0, float(disagreement(softmax(logits_MC)[None])[0])))
