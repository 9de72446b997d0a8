"""The numbers behind the report's diagrams: confusion matrices, and confidence against accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dimml.fusion import FloatArray, softmax
from dimml.metrics.classification import SMALLEST_PROBABILITY, CalibrationBins, confusion_matrix
from dimml_training.run.votes import Votes

ANSWER = "answer"

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class HeadDiagrams:
    """One head, or the answer, on one split. ``confusion_CC`` counts clips, rows truth, columns prediction.

    ``after`` is None if nothing was calibrated.
    """

    name: str
    clips: int
    accuracy: float
    confusion_CC: Counts
    before: CalibrationBins
    after: CalibrationBins | None

    @property
    def ece(self) -> float:
        """Calibration error of the probabilities that are served."""
        return (self.after or self.before).ece


def reliability(probabilities_NC: FloatArray, labels_N: Counts) -> CalibrationBins:
    """Compare confidence, the highest probability, with how often its class is the true one."""
    confidence_N = probabilities_NC.max(axis=1)
    right_N = probabilities_NC.argmax(axis=1) == labels_N
    return CalibrationBins.of(confidence_N, right_N)


def diagrams(votes: Votes, classes: int) -> list[HeadDiagrams]:
    """Compute the diagrams of every head, on the clips in which it was present, and of the answer."""
    found = []
    for index, name in enumerate(votes.heads):
        present_N = votes.present_NH[:, index]
        logits_NC, labels_N = votes.logits_NHC[present_N, index], votes.labels_N[present_N]
        temperatures = votes.fusion.head_temperatures
        # A fusion without this head, such as one without the fused head, has no temperature for it.
        own = temperatures[index] if temperatures is not None and index < len(temperatures) else 1.0
        found.append(_of_head(name, softmax(logits_NC), softmax(logits_NC / np.float32(own)), labels_N, classes))
    # Multiplying the logarithm undoes the answer's temperature, up to a constant that softmax removes.
    undone = softmax(
        np.log(np.maximum(votes.answer_NC, SMALLEST_PROBABILITY)) * np.float32(votes.fusion.answer_temperature)
    )
    found.append(_of_head(ANSWER, undone, votes.answer_NC, votes.labels_N, classes))
    return found


def _of_head(name: str, before: FloatArray, after: FloatArray, labels_N: Counts, classes: int) -> HeadDiagrams:
    said_N = after.argmax(axis=1) if len(after) else np.zeros(0, np.int64)
    return HeadDiagrams(
        name=name,
        clips=len(labels_N),
        accuracy=float((said_N == labels_N).mean()) if len(labels_N) else 0.0,
        confusion_CC=confusion_matrix(labels_N, said_N, classes),
        before=reliability(before, labels_N),
        after=None if np.allclose(before, after, atol=1e-6) else reliability(after, labels_N),
    )
