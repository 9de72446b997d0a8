"""The prediction set of each answer of a bundle that has thresholds, and whether the answer abstains.

One place for every engine and transport: a set depends on the answer's probabilities and on which modalities are ok.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.errors import InvalidParameterError
from dimml.fusion import BoolArray, FloatArray
from dimml.prediction import AbstainReason
from dimml.prediction_sets.thresholds import in_set
from dimml.request_parameters import ABSTAIN_BELOW, AS_BUNDLED, MAX_SET_SIZE, Abstention
from dimml.status import ModalityStatus


@dataclass(frozen=True, slots=True)
class AnswerSets:
    """Sets of a batch of B answers.

    ``set_BC`` says which labels are in them, and is all false in rows without an answer; ``reasons`` holds why each
    answer abstains, None where it does not.
    """

    set_BC: BoolArray
    reasons: Sequence[AbstainReason | None]

    def labels(self, row: int, labels: Sequence[str], probabilities_C: npt.NDArray[Any]) -> list[str]:
        """Return one row's set, the most probable label first."""
        inside = [index for index, there in enumerate(self.set_BC[row].tolist()) if there]
        if len(inside) > 1:
            # Stable: of labels that are equally probable, the bundle's first comes first.
            p = probabilities_C.tolist()
            inside.sort(key=lambda index: -p[index])
        return [labels[index] for index in inside]

    def answered(self) -> Iterator[tuple[int, AbstainReason | None]]:
        """Yield the size of each answer's set, and why it abstains; rows without an answer are left out."""
        for size, reason in zip(self.set_BC.sum(axis=1).tolist(), self.reasons, strict=True):
            if size:
                yield size, reason


def check_abstention(bundle: Bundle, asked: Abstention) -> None:
    """Raise InvalidParameterError where a request asks a bundle without prediction sets to abstain."""
    for name, value in ((ABSTAIN_BELOW, asked.abstain_below), (MAX_SET_SIZE, asked.max_set_size)):
        if value is not None and bundle.prediction_sets is None:
            raise InvalidParameterError(
                f"{name}: {bundle.name!r} version {bundle.version} has no prediction sets; leave it out, or calibrate "
                "its run (dimml calibrate RUN --coverage 0.9) and export it anew",
                field=name,
            )


def answer_sets(
    bundle: Bundle,
    probabilities_BC: npt.NDArray[Any],
    statuses: Mapping[str, Sequence[ModalityStatus]],
    features: Mapping[str, FloatArray],
    asked: Abstention = AS_BUNDLED,
) -> AnswerSets | None:
    """Compute the sets of a batch; None for a bundle without thresholds.

    ``statuses`` are columns of B entries by modality, ``features`` each modality's own, ``[B, D]``. A limit that is not
    ``asked`` for is the bundle's.
    """
    sets = bundle.prediction_sets
    if sets is None:
        return None
    patterns = [
        tuple(name for name, status in zip(statuses, row, strict=True) if status.ok)
        for row in zip(*statuses.values(), strict=True)
    ]
    known = sets.thresholds
    set_BC = in_set(probabilities_BC, np.array([known.get(pattern, 0.0) for pattern in patterns]))
    if () in patterns:
        set_BC[[not pattern for pattern in patterns]] = False
    below = sets.abstain_below if asked.abstain_below is None else asked.abstain_below
    largest = sets.max_set_size if asked.max_set_size is None else asked.max_set_size
    reasons: list[AbstainReason | None] = [None] * len(patterns)
    # Each of these is computed only where there is a limit to it: a request waits for them. The first that holds comes
    # last, over the others.
    if largest is not None:
        _abstain(reasons, patterns, (size > largest for size in set_BC.sum(axis=1).tolist()), AbstainReason.LARGE_SET)
    if below is not None:
        unsure = (min(1.0, top) < below for top in probabilities_BC.max(axis=1).tolist())
        _abstain(reasons, patterns, unsure, AbstainReason.LOW_PROBABILITY)
    if sets.unknown is not None:
        new = sets.unknown.unknown(features, patterns, probabilities_BC)
        _abstain(reasons, patterns, new, AbstainReason.UNKNOWN_CLASS)
    return AnswerSets(set_BC, reasons)


def _abstain(
    reasons: list[AbstainReason | None], patterns: Sequence[tuple[str, ...]], which: Iterable[bool], why: AbstainReason
) -> None:
    """Set the reason of the rows that are answers, from some modality, and abstain by this limit."""
    for row, (pattern, abstains) in enumerate(zip(patterns, which, strict=True)):
        if pattern and abstains:
            reasons[row] = why
