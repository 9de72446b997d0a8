"""Fit the numbers of a chosen fusion anew on fewer clips, for scores of the clips that were left out.

The form of the fusion (certainty, pooling, weighting temperature, heads) stays: with another form the scores would be
of another answer than the one that is served. All that was fitted to clips is fitted again: calibration of the heads,
learned reliability, calibration of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from dimml.fusion import FloatArray, FusionParameters, FusionSpec, HeadReliability
from dimml_training.config.certainty import CertaintyConfig
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.corruptions.kin.applying import WithKin
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import Progress
from dimml_training.fusion_selection.candidate_scores import CandidateScorer, Learned
from dimml_training.fusion_selection.choose import MOST_TRAIN_CLIPS, choice_conditions, spread
from dimml_training.fusion_selection.condition_rows import LEARNED_ONLY, ConditionRows, rows_of
from dimml_training.fusion_selection.cross_fit import cross_fit, head_geometry
from dimml_training.fusion_selection.reliability_fit import Geometry
from dimml_training.fusion_selection.search import head_temperatures
from dimml_training.run.directory import TrainedRun


def choice_rows(
    run: TrainedRun,
    encoders: Mapping[str, nn.Module],
    train: ClipRows,
    validation: ClipRows,
    *,
    progress: Progress | None = None,
) -> tuple[ConditionRows, list[Geometry]]:
    """Encode by ``encoders`` what the choice of the run's fusion sees, for ``refit_rows``.

    That is these validation clips under its conditions, and the geometry of the heads' features on clean training
    clips, empty unless the run's certainty is learned. ``progress`` is called with the encodings done and their total.
    """
    config, suite = run.config, choice_conditions(run.config)
    if run.fusion.certainty != "cross_reliability":
        suite = [c for c in suite if c.group not in ({"composed"} if run.fusion.learned else LEARNED_ONLY)]

    def encoded(clips: ClipRows, conditions: int, draws: int, progress: Progress | None) -> ConditionRows:
        found = encode_conditions(
            encoders,
            config.inputs,
            clips,
            suite[:conditions],
            config.quality,
            seed=config.seed,
            progress=progress,
            damage=WithKin(train),
        )
        return rows_of(found, run.voting_fused_head, suite[:conditions], draws=draws)

    rows = encoded(validation, len(suite), config.certainty.draws, progress)
    if not run.fusion.learned:
        return rows, []
    return rows, head_geometry(encoded(spread(train, MOST_TRAIN_CLIPS), 1, 1, None))


def refit_rows(
    rows: ConditionRows,
    geometry: Sequence[Geometry],
    spec: FusionSpec,
    config: CertaintyConfig,
    *,
    seed: int,
    regret_weighted: bool = False,
) -> tuple[FusionSpec, FusionParameters]:
    """Fit ``spec`` to ``rows`` of some clips under the seen conditions, as the choice of a fusion does.

    ``geometry`` is of the heads' features on training clips (``head_geometry``); only a learned certainty needs it.
    ``regret_weighted`` is what the choice found for 'cross_reliability' (``regret_weighted`` of its report).
    """
    own = rows if spec.fused_head else rows.without_fused_head()
    judged = rows.judged()
    temperatures = head_temperatures(own.judged())
    if spec.head_temperatures is not None:
        spec = spec.model_copy(update={"head_temperatures": temperatures})
    held_out: dict[Learned, FloatArray] = {}
    learned: tuple[HeadReliability, ...] | None = None
    if spec.learned:
        learned_from = own if spec.certainty == "cross_reliability" else own.without_composed()
        fit = cross_fit(
            learned_from,
            geometry[: len(own.heads)],
            temperatures,
            folds=config.folds,
            seed=seed,
            cross=spec.certainty == "cross_reliability",
            regret_weighted=regret_weighted,
        )
        held_out[spec.certainty, spec.fused_head] = fit.held_out_RH[~learned_from.learned_only()]
        learned = fit.final
    return CandidateScorer(judged, held_out).calibrated(spec), FusionParameters(learned)
