"""Scoring a finished training: the cells of its methods."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.bundle import FUSED_HEAD
from dimml.digests import historic, historic_repr
from dimml.metrics.classification import auroc_or_none, ece, log_losses, macro_f1
from dimml.modality import Modality
from dimml_training.compare.answers import Answer, Fusion, answer
from dimml_training.compare.cells import (
    TIME_FORMAT,
    Cell,
    ConditionRecord,
    pack_bits,
    pack_confidences,
    pack_lines,
    write_cell,
)
from dimml_training.compare.development_log import log_development
from dimml_training.compare.encodings import KeptEncodings, encodings, suite_digest
from dimml_training.compare.methods import ChosenFusion, FittedRival, Method
from dimml_training.compare.plan import TrainingJob, digest
from dimml_training.compare.provenance import provenance, versions
from dimml_training.compare.replicated_metrics import certainty_answers, replicates_of
from dimml_training.compare.replicates import clip_weights
from dimml_training.compare.rivals.fits import fitted_rivals
from dimml_training.config import Split, TrainConfig
from dimml_training.config.corruption_suite import Condition, conditions
from dimml_training.corruptions.applying import corrupt
from dimml_training.corruptions.encoding import Damage
from dimml_training.corruptions.kin.applying import WithKin
from dimml_training.evaluation.metrics import confidence_rise, conflict
from dimml_training.fusion_selection.choose import MOST_TRAIN_CLIPS, choice_conditions, spread
from dimml_training.fusion_selection.search import choose_fusion
from dimml_training.rivals.choose import ChosenRival
from dimml_training.run.directory import TrainedRun, load_run

#: File in the run directory that names the commit with which it was trained.
TRAINED_BY = "trained_by.json"
Tell = Callable[[str], None]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Suite:
    """Families of damage and the clips that are scored under them."""

    conditions: tuple[Condition, ...]
    damage: Damage
    #: The split that is scored.
    split: Split = "test"
    #: Begins the names of the files of encodings.
    prefix: str = ""


def development(modalities: Sequence[Modality]) -> Suite:
    """The suite that ``dimml compare`` scores: seen families, and those kept for development."""
    return Suite(tuple(conditions(modalities, "all")), corrupt)


def answer_key(training: str, config: TrainConfig, method: Method, suite: Suite | None = None) -> str:
    """Key of all that a cell depends on, sixteen hex digits; a cell with the same key need not be made again.

    ``training`` is the key of the training, ``config`` the config of the repeat, ``suite`` by default the one of
    ``development``. What is chosen or fitted on validation clips depends on the conditions of that choice too.
    """
    on = suite or development(config.inputs)
    document: list[Any] = [training, historic_repr(method.answer), suite_digest(on.conditions), config.seed]
    if on.split != "test":
        document.append(on.split)
    if isinstance(method.answer, ChosenFusion | FittedRival):
        document.append(config.model_dump(mode="json", include={"fusion", "certainty"}, exclude=historic(config)))
        if isinstance(method.answer, FittedRival) or config.fusion is None:
            document.append(suite_digest(choice_conditions(config)))
    return digest(document)


def score_job(job: TrainingJob, folder: Path, out: Path, *, tell: Tell) -> None:
    """Score every method of a job on the test clips under every condition of the suite, and write its cells."""
    names = " ".join(method.name for method in job.methods)
    log_development(out, job.config.name, digest(job.repeat.config.model_dump(mode="json")), f"compare {names}")
    score_suite(job, folder, out, development(job.config.inputs), tell=tell)


def score_suite(job: TrainingJob, folder: Path, out: Path, suite: Suite, *, tell: Tell) -> list[Path]:
    """Score every method of a job under ``suite``; write its cells and return their paths."""
    run = load_run(folder)
    splits, seed = job.repeat.data.splits, job.repeat.config.seed
    began = time.monotonic()

    def encoded(split: Split) -> KeptEncodings:
        name = f"{suite.prefix}{split}"
        return encodings(folder, name, run, splits[split].rows, suite.conditions, seed=seed, damage=suite.damage)

    scored, validation = encoded(suite.split), None
    if any(method.scored_on_validation for method in job.methods):
        validation = encoded("validation")
    chosen, encoding_s = None, time.monotonic() - began
    tell(f"  conditions encoded in {encoding_s:.0f} s")
    if any(isinstance(method.answer, ChosenFusion) for method in job.methods):
        began = time.monotonic()
        chosen = _choose(job, folder, run)
        tell(f"  fusion chosen in {time.monotonic() - began:.0f} s, encoding included")
    fitted = fitted_rivals(job, folder, run)
    weights_SN = clip_weights(_lines(job, suite.split))
    written = []
    for method in job.methods:
        began = time.monotonic()
        learned = fitted.get(method.name, chosen if isinstance(method.answer, ChosenFusion) else None)
        of_method = Scored(run, method, suite.conditions, learned)
        answers = of_method.by_condition(scored)
        cell = Cell(
            **_about(job, method, run, folder, suite),
            **of_method.test(scored, answers),
            replicates=replicates_of(suite.conditions, answers, scored.labels_N, len(run.labels), weights_SN),
            validation=of_method.accuracies(validation)
            if method.scored_on_validation and validation is not None
            else None,
            seconds_scoring=round(encoding_s + time.monotonic() - began, 1),
            fusion=None if learned is None else learned.report,
        )
        written.append(write_cell(out, cell))
    return written


def _choose(job: TrainingJob, folder: Path, run: TrainedRun) -> Fusion:
    """Return the fusion that the config fixes, or choose one on validation clips under seen conditions."""
    config, splits = job.repeat.config, job.repeat.data.splits
    if config.fusion is not None:
        return Fusion(config.fusion, report={"fixed": config.fusion.model_dump(mode="json")})
    seen = choice_conditions(config)
    damage = WithKin(splits["train"].rows)
    validation = encodings(folder, "choice", run, splits["validation"].rows, seen, seed=config.seed, damage=damage)
    known = spread(splits["train"].rows, MOST_TRAIN_CLIPS)
    train = encodings(folder, "train", run, known, seen[:1], seed=config.seed)
    found = choose_fusion(validation, train, run.fused_head, seen, config.certainty, seed=config.seed)
    report = {"spec": found.spec.model_dump(mode="json"), **found.report, "forms": found.forms}
    return Fusion(found.spec, found.parameters, report)


class Scored:
    """Scores of one method on one run."""

    def __init__(
        self, run: TrainedRun, method: Method, suite: Sequence[Condition], chosen: Fusion | ChosenRival | None
    ) -> None:
        self.run = run
        self.method = method
        self.suite = suite
        self.chosen = chosen

    def answers(self, kept: KeptEncodings, condition: Condition) -> list[Answer]:
        """Answers under one condition, one per draw."""
        return [
            answer(self.method.answer, self.run, kept.get(condition, draw), self.chosen)
            for draw in range(condition.draws)
        ]

    def accuracies(self, kept: KeptEncodings) -> dict[str, float]:
        """Accuracy by condition, mean over draws."""
        return {
            c.name: round(float(np.mean([a.right(kept.labels_N) for a in self.answers(kept, c)])), 6)
            for c in self.suite
        }

    def by_condition(self, kept: KeptEncodings) -> dict[str, list[Answer]]:
        """Answers under every condition, one per draw."""
        return {c.name: self.answers(kept, c) for c in self.suite}

    def test(self, kept: KeptEncodings, answers: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
        """Fields of the cell about the test clips and the answers to them."""
        labels_N, classes = kept.labels_N, len(self.run.labels)
        clean = answers[self.suite[0].name][0]
        judged = certainty_answers(self.suite, answers)
        return {
            "conditions": {c.name: _record(c, answers[c.name], labels_N, classes) for c in self.suite},
            "clean_confidence": pack_confidences(clean.probabilities_NC.max(axis=1)),
            "certainty_auroc": _certainty_auroc(judged, labels_N),
            "confidence_rise": {
                c.name: _rounded(_rise(clean, answers[c.name][0])) for c in self.suite if c.group == "absent"
            },
            "conflict": {c.name: _conflict(clean, answers[c.name]) for c in self.suite if c.group == "conflict"},
        }


def _record(condition: Condition, answers: Sequence[Answer], labels_N: Labels, classes: int) -> ConditionRecord:
    right_DN = np.stack([a.right(labels_N) for a in answers])
    confidence_DN = np.stack([a.probabilities_NC.max(axis=1) for a in answers])
    guesses = [a.probabilities_NC.argmax(axis=1) for a in answers]
    truth_DN = np.stack([a.probabilities_NC[np.arange(len(labels_N)), labels_N] for a in answers])
    return ConditionRecord(
        group=condition.group,
        seen=condition.seen,
        in_means=condition.in_means,
        draws=condition.draws,
        accuracy=_rounded(right_DN.mean()),
        macro_f1=_rounded(np.mean([macro_f1(labels_N, guess, classes) for guess in guesses])),
        nll=_rounded(log_losses(truth_DN).mean()),
        ece=_rounded(np.mean([ece(c, r) for c, r in zip(confidence_DN, right_DN, strict=True)])),
        confidence=_rounded(confidence_DN.mean()),
        auroc=_auroc(confidence_DN.reshape(-1), right_DN.reshape(-1)),
        right=pack_bits(right_DN),
    )


def _certainty_auroc(answers: Sequence[Answer], labels_N: Labels) -> dict[str, float | None]:
    """AUROC of each head's certainty as a predictor of a correct vote, over the answers in which it is present."""
    found = {}
    for index, head in enumerate(answers[0].heads):
        certainty, right = [], []
        for a in answers:
            there_N = a.present_NH[:, index]
            certainty.append(a.certainty_NH[there_N, index])
            right.append((a.own_NHC[:, index].argmax(axis=1) == labels_N)[there_N])
        found[head] = _auroc(np.concatenate(certainty), np.concatenate(right))
    return found


def _auroc(scores: npt.NDArray[Any], right: npt.NDArray[np.bool_]) -> float | None:
    found = auroc_or_none(scores, right)
    return None if found is None else _rounded(found)


def _confidence(answers: Sequence[Answer]) -> npt.NDArray[np.float32]:
    """Confidences of all draws, one after another."""
    return np.concatenate([a.probabilities_NC.max(axis=1) for a in answers])


def _rise(clean: Answer, without: Answer) -> float:
    both_N = np.asarray(clean.answered_N & without.answered_N)
    return confidence_rise(_confidence([clean]), _confidence([without]), both_N)


def _conflict(clean: Answer, conflicting: Sequence[Answer]) -> dict[str, float]:
    own = [index for index, head in enumerate(clean.heads) if head != FUSED_HEAD]
    votes_NMC = np.concatenate([a.own_NHC[:, own] for a in conflicting])
    found = conflict(_confidence([clean]), _confidence(conflicting), clean.own_NHC[:, own], votes_NMC)
    return {name: _rounded(value) for name, value in found.items()}


def _about(job: TrainingJob, method: Method, run: TrainedRun, folder: Path, suite: Suite) -> dict[str, Any]:
    """Fields of the cell about its origin."""
    now, splits = provenance(), job.repeat.data.splits
    try:
        trained_by = json.loads((folder / TRAINED_BY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        trained_by = {}
    return {
        "data": job.config.name,
        "method": method.name,
        "description": method.description,
        "repeat": job.repeat.index,
        "fields": job.repeat.fields,
        "seed": job.config.seed,
        "training": job.key,
        "started_from": run.training.get("started_from", {}).get("weights_sha256"),
        "answer": answer_key(job.key, job.repeat.config, method, suite),
        "suite": suite_digest(suite.conditions),
        "config_hash": digest(job.repeat.config.model_dump(mode="json")),
        "data_digest": job.repeat.data.digest,
        "commit": now.commit,
        "dirty": now.dirty,
        "trained_commit": trained_by.get("commit"),
        "date": datetime.now(UTC).strftime(TIME_FORMAT),
        "seconds_training": float(run.training["seconds"]),
        "modalities": tuple(m.name for m in run.modalities),
        "classes": len(run.labels),
        "clips_train": len(splits["train"].rows),
        "clips_validation": len(splits["validation"].rows),
        "clips": len(splits[suite.split].rows),
        "clip_lines": pack_lines(_lines(job, suite.split)),
        "versions": versions(),
    }


def _lines(job: TrainingJob, split: Split) -> npt.NDArray[np.int64]:
    """Lines of a split's clips in the clip table, ``[N]``."""
    return np.array([clip.line for clip in job.repeat.data.splits[split].clips], np.int64)


def _rounded(value: Any) -> float:
    return round(float(value), 6)
