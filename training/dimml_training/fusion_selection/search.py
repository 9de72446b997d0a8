"""Search of a fusion on validation clips alone: candidates, guard on clean clips, ties, and the report."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import nn

from dimml.bundle import FUSED_HEAD
from dimml.fusion import LEARNED, BoolArray, Certainty, FloatArray, FusionParameters, FusionSpec, Pooling
from dimml.monitoring.accuracy_estimate import AccuracyEstimate
from dimml_training.config.certainty import CertaintyConfig
from dimml_training.config.corruption_suite import Condition
from dimml_training.fusion_selection.accuracy_fit import HeldOutFits, fit_accuracy
from dimml_training.fusion_selection.candidate_scores import CandidateScorer, CandidateScores, Learned, is_tie
from dimml_training.fusion_selection.condition_rows import ConditionRows, EncodedClips, rows_of
from dimml_training.fusion_selection.cross_fit import CrossFit, cross_fit, head_geometry, row_weights
from dimml_training.fusion_selection.forms import form_key, form_of
from dimml_training.fusion_selection.reliability_fit import Geometry
from dimml_training.fusion_selection.temperature_scaling import calibration_temperature

#: With fewer validation clips no reliability is learned: sixteen hidden units would overfit.
FEWEST_CLIPS: Final = 30


@dataclass(frozen=True)
class ChosenFusion:
    """The chosen fusion, its learned parameters, and a report of what it was compared with (JSON-able).

    ``forms`` has the objective of every form that was tried (``forms.form_key``). ``accuracy`` estimates the chance
    that one of its answers is right; None where their probability does.
    """

    spec: FusionSpec
    parameters: FusionParameters
    report: dict[str, Any]
    forms: dict[str, float]
    accuracy: AccuracyEstimate | None = None


@dataclass(frozen=True)
class Fitted:
    """A learned certainty: its cross-fitting, with the rows that are judged, and whether it was regret-weighted."""

    cross: CrossFit
    judged_R: BoolArray
    regret_weighted: bool = False

    @property
    def held_out_RH(self) -> FloatArray:  # noqa: N802  # shapes stand in names
        """Reliability of the judged rows by fits without their clip and family."""
        return self.cross.held_out_RH[self.judged_R]


def one_line(chosen: ChosenFusion) -> str:
    """Describe the chosen fusion and its validation metrics in one line."""
    spec, metrics = chosen.spec, chosen.report["chosen"]
    weights = "equal weights" if spec.temperature is None else f"T {spec.temperature:g}"
    heads = "with" if spec.fused_head else "without"
    return (
        f"{spec.certainty}, {spec.pooling}, {weights}, {heads} the fused head; validation: clean "
        f"{metrics['clean_accuracy']:.1%}, corrupted {metrics['mean_accuracy']:.1%}, "
        f"regret {100 * metrics['mean_regret']:+.1f} points, of the worst fifth {100 * metrics['cvar20_regret']:+.1f}"
    )


def seen_conditions(conditions: Sequence[Condition], config: CertaintyConfig) -> list[Condition]:
    """Conditions that the choice may see, clean first: seen, without conflict, of the families in the config."""
    return [
        c
        for c in conditions
        if c.seen and c.group != "conflict" and (config.families is None or c.families <= set(config.families))
    ]


def choose_fusion(
    validation: EncodedClips,
    train: EncodedClips,
    fused_head: nn.Linear | None,
    conditions: Sequence[Condition],
    config: CertaintyConfig,
    *,
    seed: int,
) -> ChosenFusion:
    """Choose certainty, pooling, temperature and heads on validation clips under ``conditions`` (seen, clean first).

    Kin conditions, if any, and then composed ones come last: every learned certainty learns from the former,
    'cross_reliability' from both, and nothing is judged on them.

    ``train`` is encoded at least under the clean condition, and gives the class means and covariance of each head's
    features. There is deliberately no parameter for test clips.
    """
    began = time.monotonic()
    learned_rows = rows_of(validation, fused_head, conditions, draws=config.draws, clips=config.clips)
    rows = learned_rows.judged()
    temperatures = head_temperatures(rows)
    clips = len(np.unique(rows.clip_R))
    # A run without a fused head answers without it, whatever is asked for.
    voting = [with_fused for with_fused in dict.fromkeys(config.fused_head) if fused_head is not None or not with_fused]
    voting = voting or [False]
    wanted = voting if config.form is None else [config.form.fused_head and fused_head is not None]
    fits: dict[Learned, Fitted] = {}
    if not set(LEARNED).isdisjoint(config.tried) and clips >= FEWEST_CLIPS:
        known = rows_of(train, fused_head, conditions[:1], draws=1)
        # A fused head of few whole clips may have none among these: it has no reliability then.
        wanted_here = [with_fused for with_fused in wanted if not with_fused or known.present_RH[:, -1].any()]
        fits = _fits(learned_rows, head_geometry(known), temperatures, wanted_here, config, seed=seed)
    scorer = CandidateScorer(rows, {what: fit.held_out_RH for what, fit in fits.items()})
    references = {name: scorer.score(spec) for name, spec in fixed_fusions(rows).items()}
    candidates = [scorer.score(spec) for spec in _candidates(rows, temperatures, wanted, config, fits)]
    allowed = [r for r in references.values() if r.spec.fused_head in voting] or list(references.values())
    if config.form is not None:
        allowed = [r for r in allowed if r.spec.temperature is None]
    chosen = _best(allowed, candidates, config.clean_margin)
    chosen = scorer.score(scorer.calibrated(chosen.spec))
    fit = fits[chosen.spec.certainty, chosen.spec.fused_head] if chosen.spec.learned else None
    best_of = {}
    for certainty in config.certainties:
        of_kind = [c for c in candidates if c.spec.certainty == certainty]
        if of_kind:
            best_of[f"best with {certainty}"] = scorer.metrics(max(of_kind, key=lambda c: c.objective))
    report = {
        "chosen": scorer.metrics(chosen),
        "regret_points": {name: round(100 * regret, 1) for name, regret in chosen.regrets.items()},
        "instead_of": {name: scorer.metrics(scores) for name, scores in references.items()} | best_of,
        "heads_alone": scorer.heads_alone(),
        "better_modality_mean_accuracy": round(scorer.better_modality(), 4),
        "heads": list(rows.heads),
        "candidates": len(candidates) + len(references),
        "validation_clips": clips,
        "conditions": [c.name for c in rows.conditions],
        "composed_conditions": [c.name for c in conditions if c.group == "composed"],
        "kin_conditions": [c.name for c in conditions if c.group == "kin"],
        "regret_weighted": fit is not None and fit.regret_weighted,
        "families": sorted({family for c in rows.conditions for family in c.families}),
        "how": "what is learned is judged on clips and pairs of corruption families that it was not learned from",
    }
    held_out = None if fit is None else HeldOutFits(fit.cross.fits, fit.cross.fit_R[fit.judged_R])
    accuracy, report["accuracy_estimate"] = fit_accuracy(rows, chosen.spec, held_out, folds=config.folds, seed=seed)
    report["seconds"] = round(time.monotonic() - began, 1)
    parameters = FusionParameters(None if fit is None else fit.cross.final)
    forms = {form_key(form_of(c.spec)): round(c.objective, 4) for c in candidates}
    return ChosenFusion(chosen.spec, parameters, report, forms, accuracy)


def fixed_fusions(rows: ConditionRows) -> dict[str, FusionSpec]:
    """The paper's setting and the plain averages, with and without the fused head."""
    found = {}
    for with_fused in (True, False) if rows.heads[-1] == FUSED_HEAD else (False,):
        suffix = "" if with_fused else ", without fused head"
        for name, spec in (
            ("paper", FusionSpec(fused_head=with_fused)),
            ("average of logits", FusionSpec(fused_head=with_fused, temperature=None)),
            (
                "average of probabilities",
                FusionSpec(fused_head=with_fused, temperature=None, pooling="probabilities"),
            ),
        ):
            found[name + suffix] = spec
    return found


def head_temperatures(rows: ConditionRows) -> tuple[float, ...]:
    """Calibration temperature of every head, over the rows of all conditions where it is present."""
    weights_R = row_weights(rows)
    found = []
    for head in range(len(rows.heads)):
        there_R = rows.present_RH[:, head]
        logits_NC = rows.logits_RHC[there_R, head]
        found.append(calibration_temperature(logits_NC, rows.labels_R[there_R], weights_R[there_R]))
    return tuple(round(temperature, 4) for temperature in found)


def _candidates(
    rows: ConditionRows,
    temperatures: tuple[float, ...],
    wanted: Sequence[bool],
    config: CertaintyConfig,
    learned: Collection[Learned],
) -> Iterator[FusionSpec]:
    """Yield the candidates, all with calibrated heads.

    With pooling ``product`` certainty matters even with equal weights, so these are tried for every certainty; with
    other poolings equal weights are one candidate. With a fixed form, it alone.
    """
    for with_fused in wanted:
        heads = len(rows.heads) if with_fused else rows.modalities

        def spec(
            certainty: Certainty,
            pooling: Pooling,
            temperature: float | None,
            heads: int = heads,
            with_fused: bool = with_fused,
        ) -> FusionSpec:
            return FusionSpec(
                certainty=certainty,
                pooling=pooling,
                temperature=temperature,
                fused_head=with_fused,
                head_temperatures=temperatures[:heads],
            )

        if config.form is not None:
            if config.form.certainty not in LEARNED or (config.form.certainty, with_fused) in learned:
                yield spec(config.form.certainty, config.form.pooling, config.form.temperature)
            continue
        for pooling in config.poolings:
            if pooling != "product" and config.certainties:
                yield spec("max_prob", pooling, None)
            for certainty in config.certainties:
                if certainty in LEARNED and (certainty, with_fused) not in learned:
                    continue
                if pooling == "product":
                    yield spec(certainty, pooling, None)
                for temperature in config.temperatures:
                    yield spec(certainty, pooling, temperature)


def _fits(
    rows: ConditionRows,
    geometry: Sequence[Geometry],
    temperatures: tuple[float, ...],
    wanted: Sequence[bool],
    config: CertaintyConfig,
    *,
    seed: int,
) -> dict[Learned, Fitted]:
    """Fit every learned certainty of the config, with the fused head and without as wanted.

    Reliability of the head alone learns from what it is judged on and from kin; that with the other heads in view from
    composed conditions too. Whether the latter is regret-weighted is decided by the best objective, ties go to without.
    """
    judged, uncomposed = rows.judged(), rows.without_composed()
    found: dict[Learned, Fitted] = {}
    for with_fused in wanted:
        one, every = (own if with_fused else own.without_fused_head() for own in (uncomposed, rows))
        heads = len(one.heads)
        given = (geometry[:heads], temperatures[:heads])
        if "reliability" in config.tried:
            fit = cross_fit(one, *given, folds=config.folds, seed=seed)
            found["reliability", with_fused] = Fitted(fit, ~one.learned_only())
        if "cross_reliability" not in config.tried:
            continue
        what: Learned = ("cross_reliability", with_fused)
        only = config.model_copy(update={"certainties": ("cross_reliability",)})
        best = -np.inf
        for weighted in sorted(set(config.regret_weighted)):
            fit = cross_fit(every, *given, folds=config.folds, seed=seed, cross=True, regret_weighted=weighted)
            own = Fitted(fit, ~every.learned_only(), weighted)
            scorer = CandidateScorer(judged, {what: own.held_out_RH})
            specs = (s for s in _candidates(judged, temperatures, [with_fused], only, [what]) if s.learned)
            objective = max(scorer.score(spec).objective for spec in specs)
            if objective > best + 1e-9:
                best, found[what] = objective, own
    return found


def _best(
    references: Sequence[CandidateScores], candidates: Sequence[CandidateScores], margin: float
) -> CandidateScores:
    """Pick the simplest fusion whose error ties with the best one's.

    Only fusions within ``margin`` of the best plain average on clean clips are considered.
    """
    plain = max(r.clean for r in references if r.spec.temperature is None)
    safe = [j for j in (*references, *candidates) if j.clean >= plain - margin - 1e-9]
    least = min(j.error for j in safe)
    return min((j for j in safe if is_tie(j.error, least)), key=lambda j: (*_simplicity(j.spec), j.nll))


def _simplicity(spec: FusionSpec) -> tuple[int, bool, bool]:
    """Sort key of a fusion, the simplest first.

    Static before learned certainty, of the head alone before all in view, equal weights before others, without before
    with the fused head.
    """
    learned = LEARNED.index(spec.certainty) + 1 if spec.learned else 0
    return learned, spec.temperature is not None or spec.pooling == "product", spec.fused_head
