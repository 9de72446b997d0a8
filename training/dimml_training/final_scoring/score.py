"""Scoring finished trainings under the sealed families, each method and repeat once.

::

    <out>/final.jsonl                      the log
    <out>/final/cells/<data>/...           cells of the test clips, as those of ``dimml compare``
    <out>/final_validation/cells/<data>    of validation clips: a rehearsal, which is logged too
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch

from dimml.errors import SetupError
from dimml_training.compare.cells import TIME_FORMAT
from dimml_training.compare.methods import chosen_methods
from dimml_training.compare.plan import TrainingJob, digest
from dimml_training.compare.provenance import provenance, repository_root, uncommitted, versions
from dimml_training.compare.scoring import Suite, score_suite
from dimml_training.compare.summary import TRIAL
from dimml_training.compare.work import Comparison, only_one, planned
from dimml_training.corruptions.final.applying import corrupt_finally
from dimml_training.corruptions.final.families import final_conditions, skipped
from dimml_training.final_scoring.log import LOG, Entry, append, begun_otherwise, read_log, scored_before
from dimml_training.final_scoring.seal import unbroken_seal
from dimml_training.run.directory import RUN_FILE

#: Digits of the seal in the names of files of encodings.
SEAL_DIGITS = 12
#: The one folder under the repository's top that test clips are scored into.
RESULTS = "docs/results"
#: The command, under the repository's top.
SCRIPT = "scripts/score_final.py"
#: Held while scoring, beside the log that it guards.
LOCK = "final.lock"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    """How many methods (of all repeats) were scored by this call, and how many had been before."""

    scored: int
    refused: int


def cells_folder(out: Path, split: str) -> Path:
    """Folder of the cells of a split's clips, to be read as the ``out`` of a comparison."""
    return out / ("final" if split == "test" else f"final_{split}")


def score_finally(
    comparison: Comparison,
    split: Literal["test", "validation"],
    *,
    development: Path,
    tell: Tell,
    repository: Path | None = None,
) -> Done:
    """Score what a comparison names and has trained, except what has been scored before.

    ``development`` is the results folder of ``dimml compare``, whose cells settle trials; what is scored here goes to
    ``comparison.out``, for test clips none but ``RESULTS`` of the ``repository`` (by default that of the running code),
    so that once is once in a project. Raises SetupError, before any clip is damaged, where the seal is broken, trials
    are not settled, a training is missing, another process scores, something was begun otherwise and not ended, or test
    clips would be scored into another folder or by code that no commit names.
    """
    seal = unbroken_seal()
    now = provenance()
    if split == "test" and (now.commit is None or now.dirty):
        raise SetupError("final families are scored by committed code alone, so that the log can name it: commit first")
    if split == "test":
        _only_results_of_commits(comparison.out, repository or repository_root())
    jobs = without_trials(planned(replace(comparison, out=development), tell=tell))
    _all_settled(jobs, comparison, development)
    untrained = [job.title for job in jobs if not (comparison.work / job.key / RUN_FILE).is_file()]
    if untrained:
        raise SetupError(
            f"not trained yet under {comparison.work}: {'; '.join(untrained)}. Run `dimml compare` with the same "
            "config, methods and --work first"
        )
    with only_one(comparison.out / LOCK) as ours:
        if not ours:
            raise SetupError("another process is scoring the final families; wait for it")
        for line in skipped(comparison.config.inputs):
            tell(line)
        return _score(jobs, comparison, split, seal, tell)


def _only_results_of_commits(out: Path, root: Path | None) -> None:
    """Check that ``out`` is the folder whose log has every scoring of test clips, and that a commit has the code."""
    if root is None or out.resolve() != (root / RESULTS).resolve():
        raise SetupError(
            f"test clips are not scored into {out}: they are scored once in a project, and the log of that is "
            f"{RESULTS}/{LOG} in the repository: run from its top folder without --out, or rehearse with "
            "--split validation"
        )
    changed = uncommitted(root, SCRIPT)
    if changed:
        raise SetupError(
            f"final families are scored by committed code alone: commit or remove {', '.join(changed)} first"
        )


def without_trials(jobs: Sequence[TrainingJob]) -> list[TrainingJob]:
    """Jobs with the methods that a table has: a trial only settles a setting, and answers for no test clip."""
    kept = [replace(job, methods=tuple(m for m in job.methods if TRIAL not in m.name)) for job in jobs]
    return [job for job in kept if job.methods]


def _all_settled(jobs: Sequence[TrainingJob], comparison: Comparison, development: Path) -> None:
    """Check that every method of the comparison is in its jobs; what has trials is not, before these have cells."""
    there = {method.name for job in jobs for method in job.methods}
    wanted = [method.name for method in chosen_methods(comparison.config, comparison.methods)]
    unsettled = [name for name in wanted if name not in there]
    if unsettled:
        raise SetupError(
            f"no cells in {development} settle the trials for {', '.join(unsettled)}: run `dimml compare` with the "
            "same config and these methods first, or name the folder that it wrote to with --development"
        )


def _score(
    jobs: list[TrainingJob], comparison: Comparison, split: Literal["test", "validation"], seal: str, tell: Tell
) -> Done:
    path = comparison.out / LOG
    # Conditions name families, and not what they do: encodings under another seal must not pass for these.
    prefix = f"final_{seal[:SEAL_DIGITS]}_"
    suite = Suite(tuple(final_conditions(comparison.config.inputs)), corrupt_finally, split, prefix)
    scored = refused = 0
    for job in jobs:
        other = begun_otherwise(read_log(path), _entry(job, split, seal))
        if other is not None:
            number, entry = other
            raise SetupError(
                f"{path}, line {number}, began {', '.join(entry.methods)}, repeat {entry.repeat}, on {entry.date} with "
                f"training {entry.training}, config {entry.config_hash} and commit {entry.commit}, and did "
                "not end: go on with the same training, config and commit"
            )
    _none_settled_otherwise(jobs, path, split, seal)
    for job in jobs:
        before = scored_before(read_log(path), _entry(job, split, seal))
        for name, entry in before.items():
            tell(f"refused: {name}, repeat {job.repeat.index}, was scored on {entry.date} at commit {entry.commit}")
        refused += len(before)
        methods = tuple(method for method in job.methods if method.name not in before)
        if not methods:
            continue
        left = replace(job, methods=methods)
        append(path, _entry(left, split, seal))
        if job.config.threads is not None:
            torch.set_num_threads(job.config.threads)
        tell(f"{left.title}: {len(suite.conditions)} conditions")
        out = cells_folder(comparison.out, split)
        written = score_suite(left, comparison.work / job.key, out, suite, tell=tell)
        hashes = {p.relative_to(comparison.out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in written}
        append(path, _entry(left, split, seal).model_copy(update={"event": "scored", "cells": hashes}))
        scored += len(methods)
    return Done(scored, refused)


def _none_settled_otherwise(jobs: Sequence[TrainingJob], path: Path, split: str, seal: str) -> None:
    """Check, where something is left to score, that what was scored before rests on the trainings that are planned now.

    Trials that are made again may settle another setting, and a method's repeats would be of two.
    """
    entries = read_log(path)
    scored = [(job, scored_before(entries, _entry(job, split, seal))) for job in jobs]
    if all(len(before) == len(job.methods) for job, before in scored):
        return
    for job, before in scored:
        for name, entry in before.items():
            if entry.training != job.key:
                raise SetupError(
                    f"{name}, repeat {job.repeat.index}, was scored on {entry.date} with training {entry.training} and "
                    f"is training {job.key} by this config and its trials: the other repeats would be of another "
                    "setting. Go on with the config, the data and the trials' cells that were there then"
                )


def _entry(job: TrainingJob, split: str, seal: str) -> Entry:
    now = provenance()
    return Entry(
        event="begun",
        date=datetime.now(UTC).strftime(TIME_FORMAT),
        commit=now.commit,
        dirty=now.dirty,
        seal=seal,
        split=split,
        data=job.config.name,
        data_digest=job.repeat.data.digest,
        repeat=job.repeat.index,
        methods=tuple(method.name for method in job.methods),
        training=job.key,
        config_hash=digest(job.repeat.config.model_dump(mode="json")),
        versions=versions(),
    )
