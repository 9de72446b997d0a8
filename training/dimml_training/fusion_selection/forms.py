"""The form of a fusion (certainty, pooling, weighting, heads), fixed by the data sets that it is not used on.

Some 150 forms are tried on a hundred clips, and the best of them is best by luck, too. So a data set's form is the one
that does best on the validation clips of all *other* data sets; its own clips choose between that and a plain average,
and fit the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dimml.errors import DataError
from dimml.fusion import FusionSpec
from dimml_training.config.certainty import FusionForm

#: By form (``form_key``): its objective on the validation clips of one repeat.
Objectives = Mapping[str, float]


@dataclass(frozen=True)
class FixedForm:
    """The form for one data set: how far its error is above each data set's best, in the mean, as a ratio."""

    form: FusionForm
    excess: float
    others: tuple[str, ...]


def form_of(spec: FusionSpec) -> FusionForm:
    """What of a spec is its form: all that is not fitted to clips."""
    return FusionForm(
        certainty=spec.certainty, pooling=spec.pooling, temperature=spec.temperature, fused_head=spec.fused_head
    )


def form_key(form: FusionForm) -> str:
    """One line that names a form, such as ``reliability product 0.5 fused``."""
    weights = "equal" if form.temperature is None else f"{form.temperature:g}"
    return f"{form.certainty} {form.pooling} {weights} {'fused' if form.fused_head else 'own'}"


def read_form_key(key: str) -> FusionForm:
    """Read what ``form_key`` wrote."""
    certainty, pooling, weights, heads = key.split(" ")
    document = {"certainty": certainty, "pooling": pooling, "fused_head": heads == "fused"}
    return FusionForm.model_validate(document | {"temperature": None if weights == "equal" else float(weights)})


def form_of_others(objectives: Mapping[str, Sequence[Objectives]], data: str) -> FixedForm:
    """Choose the form for ``data`` by the objectives of the repeats of every other data set.

    The measure is the error (1 minus the objective) over the error of the repeat's best form: the mean over repeats,
    then over data sets. Forms that a repeat has not tried are out. Raises DataError without another data set.
    """
    others = tuple(sorted(name for name, repeats in objectives.items() if name != data and repeats))
    if not others:
        raise DataError(f"the form for {data} is fixed by other data sets, and there is none with a choice of forms")
    shared = set.intersection(*(set(repeat) for name in others for repeat in objectives[name]))
    if not shared:
        raise DataError(f"{', '.join(others)} have tried no form in common")
    excess = {
        key: float(np.mean([np.mean([_excess(repeat, key) for repeat in objectives[name]]) for name in others]))
        for key in shared
    }
    best = min(sorted(excess), key=lambda key: excess[key])
    return FixedForm(read_form_key(best), excess[best], others)


def _excess(repeat: Objectives, key: str) -> float:
    """Error of a form over that of the repeat's best, less 1; an error below a thousandth counts as that."""
    return max(1.0 - repeat[key], 1e-3) / max(1.0 - max(repeat.values()), 1e-3) - 1.0
