"""Conversion of one row of an ensemble result to the answer for the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dimml.bundle import FUSED_HEAD, Bundle
from dimml.ensemble import EnsembleResult
from dimml.media.types import Decoded, Truncation
from dimml.prediction import Explanation, Prediction
from dimml.prediction_sets.answers import AnswerSets
from dimml.status import ModalityStatus


@dataclass(frozen=True, slots=True)
class InferenceResult:
    """Result that the prediction core returns to a transport: the ensemble's rows, and the time of each stage."""

    bundle: Bundle
    result: EnsembleResult
    queue_s: float
    decode_s: float = 0.0
    #: Range of the media that was predicted, in seconds; None without media.
    start_s: float | None = None
    end_s: float | None = None
    #: Of modalities whose track was cut off, whatever their status; of a result of one row.
    truncations: Mapping[str, Truncation] = field(default_factory=dict)
    #: What was heard of several channels, by modality, of the one row of a recording.
    channels: Mapping[str, str] = field(default_factory=dict)
    #: Where the request asked for it, of the one row of a recording.
    explanation: Explanation | None = None
    #: Prediction sets of the rows; None for a bundle without them.
    sets: AnswerSets | None = None
    #: What was done to the row, by modality, as the request asked for.
    damage: Mapping[str, str] = field(default_factory=dict)

    def of_recording(self, decoded: Decoded, decode_s: float = 0.0) -> InferenceResult:
        """Return a copy that says which range of a recording its row is of, and what was found in it."""
        return replace(
            self,
            decode_s=decode_s,
            start_s=decoded.start_s,
            end_s=decoded.end_s,
            truncations=decoded.truncations,
            channels=decoded.channels,
        )

    @property
    def batch(self) -> int:
        """Number of rows, B."""
        return len(self.result.fused.logits_BC)

    @property
    def degraded(self) -> bool:
        """Whether a requested modality is not ok in any row."""
        return any(status.degrades for column in self.result.statuses.values() for status in column)

    def statuses(self, row: int) -> Mapping[str, ModalityStatus]:
        """Return the status of every modality in one row."""
        return {name: column[row] for name, column in self.result.statuses.items()}


def build_prediction(
    outcome: InferenceResult, *, request_id: str, top_k: int, total_s: float, row: int = 0
) -> Prediction:
    """Build the answer of one row of a result, in which at least one modality must be ok."""
    bundle, result = outcome.bundle, outcome.result
    fused, labels = result.fused, bundle.labels
    probabilities_C = fused.probabilities_BC[row]
    order = np.argsort(-probabilities_C, kind="stable")[:top_k]
    ranked = [
        {"label": labels[i], "probability": _unit(probability)}
        for i, probability in zip(order.tolist(), probabilities_C[order].tolist(), strict=True)
    ]
    statuses = outcome.statuses(row)
    certainty_H, weights_H = fused.certainty_BH[row].tolist(), fused.weights_BH[row].tolist()
    answers: dict[str, dict[str, Any]] = {}
    for head, (name, status) in enumerate(statuses.items()):
        channel = outcome.channels.get(name)
        if not status.ok:
            answers[name] = {
                "status": status.status,
                "reason": status.reason,
                "detail": status.detail,
                "channel": channel,
            }
            continue
        own_C = result.own[name][row]
        vote = int(own_C.argmax())
        answers[name] = {
            "status": status.status,
            "certainty": certainty_H[head],
            "weight": weights_H[head],
            "label": labels[vote],
            "probability": _unit(float(own_C[vote])),
            "channel": channel,
        }
    # At once: models made one by one take twice as long.
    return Prediction.model_validate(
        {
            "request_id": request_id,
            "model": bundle.name,
            "version": bundle.version,
            "label": ranked[0]["label"],
            "probability": ranked[0]["probability"],
            "predictions": ranked,
            "degraded": any(status.degrades for status in statuses.values()),
            "truncated": bool(outcome.truncations),
            "truncations": {
                name: {"held_s": one.held_s, "promised_s": one.promised_s} for name, one in outcome.truncations.items()
            },
            "modalities": answers,
            "fused_head": _fused_head(outcome, row, all(status.ok for status in statuses.values())),
            "start_s": outcome.start_s,
            "end_s": outcome.end_s,
            "timings_ms": {
                "queue": _ms(outcome.queue_s),
                "decode": _ms(outcome.decode_s),
                "encode": _ms(max(result.encode_s.values())),
                "fuse": _ms(result.fuse_s),
                "total": _ms(total_s),
            },
            "explanation": outcome.explanation,
            "damage": outcome.damage or None,
            **_set_of(outcome, row),
        }
    )


def _set_of(outcome: InferenceResult, row: int) -> dict[str, Any]:
    sets = outcome.sets
    if sets is None:
        return {}
    reason = sets.reasons[row]
    labels = sets.labels(row, outcome.bundle.labels, outcome.result.fused.probabilities_BC[row])
    return {"set": labels, "abstained": reason is not None, "abstained_reason": reason}


def _fused_head(outcome: InferenceResult, row: int, votes: bool) -> dict[str, float] | None:
    if FUSED_HEAD not in outcome.bundle.heads:
        return None
    if not votes:
        return {}
    fused = outcome.result.fused
    return {"certainty": float(fused.certainty_BH[row, -1]), "weight": float(fused.weights_BH[row, -1])}


def _unit(probability: float) -> float:
    # A sum in single precision may exceed 1 by a rounding error.
    return min(1.0, probability)


def _ms(seconds: float) -> float:
    return round(seconds * 1000.0, 3)
