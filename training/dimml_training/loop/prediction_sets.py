"""Thresholds of prediction sets for a finished run, from validation clips that did not fit what scores them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from dimml.errors import SetupError
from dimml.modality import patterns_of
from dimml.prediction_sets.thresholds import (
    MOST_MODALITIES,
    PredictionSets,
    conformal_rank,
    in_set,
    pattern_threshold,
    scores_of,
)
from dimml.prediction_sets.unknown import MOST_FEATURES, UnknownClass
from dimml.system.files import StrPath
from dimml_training.data.cache import default_cache_dir
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import PreparedData, Progress, prepare
from dimml_training.evaluation.heads import head_logits
from dimml_training.fusion_selection.choose import MOST_TRAIN_CLIPS, spread, spread_over
from dimml_training.fusion_selection.condition_rows import ConditionRows, IntArray
from dimml_training.fusion_selection.held_out import (
    FOLDS,
    Fusion,
    HeldOutFusions,
    PatternAnswers,
    held_out_folds,
    pattern_answers,
)
from dimml_training.fusion_selection.refit_rows import choice_rows, refit_rows
from dimml_training.fusion_selection.reliability_fit import Geometry
from dimml_training.fusion_selection.unknown_fit import fit_unknown
from dimml_training.run.directory import TrainedRun, load_run
from dimml_training.run.fusion import read_fusion
from dimml_training.run.prediction_sets import SetsRecord, fusion_sha256, write_sets


def calibrate_sets(
    run: StrPath,
    coverage: Decimal,
    *,
    false_alarms: Decimal | None = None,
    cache_dir: StrPath | None = None,
    decoding: Progress | None = None,
    corrupting: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> SetsRecord:
    """Compute the thresholds for a coverage on a run's validation clips, and write them into its directory.

    The run's fusion stays as it is. Clips that chose it are scored by fusions of the same form, fitted on the other
    clips; where the config fixes the fusion, none was fitted. Absence is simulated: every clip counts for each pattern
    of modalities that it has. With ``false_alarms``, answers to classes that no encoder knows are recognised, and at
    most that share of answers to known classes is taken for such. ``decoding`` and ``corrupting`` are called with the
    number done and the total, ``tell`` with a line for each fold.

    Raises SetupError for a run that does not load, is a joint training, or has too many modalities; DataError for
    problems of the data, and where a pattern has too few clips for the coverage.
    """
    folder = Path(run)
    trained = load_run(folder)
    if trained.joint_head is not None:
        raise SetupError(f"{folder} is a joint training, which is no bundle: it has no prediction sets")
    names = [modality.name for modality in trained.modalities]
    if len(names) > MOST_MODALITIES:
        raise SetupError(
            f"{folder} has {len(names)} modalities: prediction sets need a threshold for each of their "
            f"{2 ** len(names) - 1} combinations, and are made for at most {MOST_MODALITIES} modalities"
        )
    widest = max(encoder.width for encoder in trained.config.encoders.values())
    if false_alarms is not None and widest > MOST_FEATURES:
        raise SetupError(
            f"{folder} has features of {widest} numbers: at most {MOST_FEATURES} do to recognise unknown "
            "classes; leave --false-alarms out"
        )
    data = prepare(trained.config, cache_dir or default_cache_dir(), labels=trained.labels, progress=decoding)
    # Before the long part: presence of a signal can only leave fewer clips than there are.
    _check_enough(data.splits["validation"].rows, names, coverage)
    folds = FOLDS if read_fusion(folder) is not None else 0
    answers = held_out_answers(trained, data, folds, corrupting=corrupting, tell=tell)
    sets = PredictionSets(
        coverage=coverage,
        patterns=tuple(
            pattern_threshold(one.modalities, scores_of(one.probabilities_KC, one.labels_K), coverage)
            for one in answers
        ),
        folds=folds,
        unknown=None if false_alarms is None else _unknown(trained, data, false_alarms, answers),
    )
    fusion = fusion_sha256(trained.fusion, trained.fusion_parameters)
    record = SetsRecord(fusion_sha256=fusion, sets=sets, report={"patterns": _report(sets, answers)})
    write_sets(folder, record)
    return record


def _unknown(
    run: TrainedRun, data: PreparedData, false_alarms: Decimal, answers: Sequence[PatternAnswers]
) -> UnknownClass:
    """Fit what recognises an unknown class on the run's clean training clips, and on answers to validation clips."""
    train, validation = (
        head_logits(run.encoders, None, run.modalities, rows, run.quality)
        for rows in (spread(data.splits["train"].rows, MOST_TRAIN_CLIPS), data.splits["validation"].rows)
    )
    names = [modality.name for modality in run.modalities]
    return fit_unknown(train, validation, names, classes=len(run.labels), false_alarms=false_alarms, answers=answers)


def held_out_answers(
    run: TrainedRun,
    data: PreparedData,
    folds: int,
    *,
    corrupting: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[PatternAnswers]:
    """Answer a run's clean validation clips for every pattern of modalities, the whole one first.

    The clips that chose the fusion are parted in ``folds``, each answered by a fusion fitted on the others; the rest,
    or all without folds, by the run's own.
    """
    names = [modality.name for modality in run.modalities]
    train, validation = data.splits["train"].rows, data.splits["validation"].rows
    fusions: Sequence[Fusion] = ()
    fold_N = np.full(len(validation), -1, np.int64)
    if folds:
        chosen_by = spread_over(len(validation), run.config.certainty.clips)
        fold_N = held_out_folds(len(validation), chosen_by, folds, run.config.seed)
        rows, geometry = choice_rows(run, run.encoders, train, validation.take(chosen_by), progress=corrupting)
        fusions = _fold_fusions(run, rows, geometry, fold_N[chosen_by], tell)
    votes = head_logits(run.encoders, run.voting_fused_head, run.modalities, validation, run.quality)
    held_out = HeldOutFusions(fold_N, fusions, (run.fusion, run.fusion_parameters))
    return [pattern_answers(votes, names, pattern, held_out) for pattern in patterns_of(names)]


def _check_enough(validation: ClipRows, names: Sequence[str], coverage: Decimal) -> None:
    """Raise DataError where some pattern of modalities has too few clips, whatever their scores."""
    has_NM = np.stack([validation.has(name) for name in names], axis=1)
    for pattern in patterns_of(names):
        clips = int(has_NM[:, [names.index(name) for name in pattern]].all(axis=1).sum())
        if conformal_rank(clips, coverage) > clips:
            pattern_threshold(pattern, np.zeros(clips), coverage)


def _fold_fusions(
    run: TrainedRun,
    rows: ConditionRows,
    geometry: Sequence[Geometry],
    fold_N: IntArray,
    tell: Callable[[str], None],
) -> list[Fusion]:
    """Fit the run's fusion once for each fold, on the clips of all others."""
    config = run.config
    # Runs chosen by an earlier version have no such entry.
    weighted = run.fusion_report.get("regret_weighted") is True
    fusions = []
    folds = int(fold_N.max()) + 1
    for fold in range(folds):
        tell(f"fitting the fusion without part {fold + 1} of {folds}")
        others = rows.take(fold_N[rows.clip_R] != fold)
        fusions.append(
            refit_rows(others, geometry, run.fusion, config.certainty, seed=config.seed, regret_weighted=weighted)
        )
    return fusions


def _report(sets: PredictionSets, answers: Sequence[PatternAnswers]) -> list[dict[str, Any]]:
    """What the held-out answers of each pattern looked like: accuracy, and size and coverage of their sets."""
    found = []
    for pattern, one in zip(sets.patterns, answers, strict=True):
        set_KC = in_set(one.probabilities_KC, np.full(len(one.labels_K), pattern.threshold))
        sizes_K = set_KC.sum(axis=1)
        found.append(
            {
                "modalities": list(one.modalities),
                "accuracy": float((one.probabilities_KC.argmax(axis=1) == one.labels_K).mean()),
                "covered": float(set_KC[np.arange(len(sizes_K)), one.labels_K].mean()),
                "mean_size": float(sizes_K.mean()),
                "single": float((sizes_K == 1).mean()),
            }
        )
    return found
