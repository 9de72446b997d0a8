"""Fit the numbers of a chosen fusion anew on fewer clips, for scores of the clips that were left out.

The form of the fusion (certainty, pooling, weighting temperature, heads) stays: with another form the scores would be
of another answer than the one that is served. All that was fitted to clips is fitted again: calibration of the heads,
learned reliability, calibration of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from dimml.fusion import FloatArray, FusionParameters, FusionSpec, HeadReliability
from dimml_training.config.certainty import CertaintyConfig
from dimml_training.fusion_selection.candidate_scores import CandidateScorer
from dimml_training.fusion_selection.condition_rows import ConditionRows
from dimml_training.fusion_selection.cross_fit import cross_fit
from dimml_training.fusion_selection.reliability_fit import Geometry
from dimml_training.fusion_selection.search import head_temperatures


def refit_rows(
    rows: ConditionRows, geometry: Sequence[Geometry], spec: FusionSpec, config: CertaintyConfig, *, seed: int
) -> tuple[FusionSpec, FusionParameters]:
    """Fit ``spec`` to ``rows`` of some clips under the seen conditions, as the choice of a fusion does.

    ``geometry`` is of the heads' features on training clips (``head_geometry``); only a learned certainty needs it.
    """
    own = rows if spec.fused_head else rows.without_fused_head()
    temperatures = head_temperatures(own)
    if spec.head_temperatures is not None:
        spec = spec.model_copy(update={"head_temperatures": temperatures})
    held_out: dict[bool, FloatArray] = {}
    learned: tuple[HeadReliability, ...] | None = None
    if spec.certainty == "reliability":
        fit = cross_fit(own, geometry[: len(own.heads)], temperatures, folds=config.folds, seed=seed)
        held_out[spec.fused_head], learned = fit.held_out_RH, fit.final
    return CandidateScorer(rows, held_out).calibrated(spec), FusionParameters(learned)
