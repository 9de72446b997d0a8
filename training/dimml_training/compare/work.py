"""Running a comparison: train what is not trained, score what is not scored, in parallel with other processes.

::

    <work>/<training>/          a run directory, see run/directory.py
    <work>/<training>/encoded/  encodings of every condition
    <work>/<training>.lock      held by the process that works on it

Safe to kill: at most the current epoch is lost, and the next call resumes.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch

from dimml.errors import ConfigurationError, DimmlError, SetupError
from dimml.system.files import exclusive_lock
from dimml_training.compare import plan
from dimml_training.compare.methods import Method, chosen_methods
from dimml_training.compare.packed_cells import find_cell
from dimml_training.compare.plan import TrainingJob
from dimml_training.compare.provenance import provenance
from dimml_training.compare.rivals.trials import jobs_with_trials, trial_methods
from dimml_training.compare.scoring import TRAINED_BY, answer_key, score_job
from dimml_training.config import TrainConfig
from dimml_training.data.prepare import prepare
from dimml_training.loop.train import train
from dimml_training.run.directory import CONFIG_FILE, RUN_FILE

#: Interval at which jobs of other processes are checked again.
POLL_S = 2.0
#: Clips between two progress lines on decoding.
DECODED_LINE = 100

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """Request of a call of ``dimml compare``. Cells older than ``since`` (UTC, as in cells) do not count."""

    config: TrainConfig
    methods: tuple[str, ...]
    repeats: int | None
    out: Path
    work: Path
    cache_dir: Path
    since: str | None = None


def planned(comparison: Comparison, *, tell: Tell) -> list[TrainingJob]:
    """Plan the trainings that a comparison needs; decodes clips that are not cached yet."""

    def progress(done: int, total: int) -> None:
        if done == total or done % DECODED_LINE == 0:
            tell(f"decoded {done} of {total} clips")

    repeats = plan.repeats(
        comparison.config, comparison.repeats, lambda c: prepare(c, comparison.cache_dir, progress=progress)
    )
    return jobs_with_trials(chosen_methods(comparison.config, comparison.methods), repeats, comparison.out)


def side_by_side(comparison: Comparison, processes: int, *, tell: Tell) -> list[str]:
    """Run a comparison in ``processes`` processes, including this one; return a line for each failure.

    Methods with trials take a second round, when these have settled what to train.
    """
    failed = _one_round(comparison, processes, tell=tell)
    if not failed and any(trial_methods(method) for method in chosen_methods(comparison.config, comparison.methods)):
        failed = _one_round(comparison, processes, tell=tell)
    return failed


def _one_round(comparison: Comparison, processes: int, *, tell: Tell) -> list[str]:
    jobs = planned(comparison, tell=tell)  # first, alone: one process decodes
    spawn = get_context("spawn")
    others = [spawn.Process(target=_alongside, args=(comparison,)) for _ in range(processes - 1)]
    for other in others:
        other.start()
    try:
        failed = work_off(jobs, comparison, tell=tell)
    finally:
        for other in others:
            other.join()
    return failed + ["one of the other processes failed"] * sum(other.exitcode != 0 for other in others)


def _alongside(comparison: Comparison) -> None:
    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        failed = work_off(planned(comparison, tell=tell), comparison, tell=tell)
    except KeyboardInterrupt:  # Ctrl-C reaches every process; the first one reports it
        sys.exit(130)
    sys.exit(1 if failed else 0)


def finished(job: TrainingJob, out: Path, since: str | None = None) -> bool:
    """Whether a job has all its cells, of this training and rule, and none from before ``since`` (UTC)."""
    return not _left(job, out, since)


def _left(job: TrainingJob, out: Path, since: str | None) -> tuple[Method, ...]:
    """The methods of a job that have no such cell."""

    def has_cell(method: Method) -> bool:
        cell = find_cell(out, job.config.name, method.name, job.repeat.index)
        return (
            cell is not None
            and cell.answer == answer_key(job.key, job.repeat.config, method)
            and (since is None or cell.date >= since)
        )

    return tuple(method for method in job.methods if not has_cell(method))


def work_off(jobs: Sequence[TrainingJob], comparison: Comparison, *, tell: Tell) -> list[str]:
    """Run all jobs that are not finished; return a line for each failure.

    Jobs on which another process is working are skipped, and checked again at the end.
    """
    out, work, since = comparison.out, comparison.work, comparison.since
    provenance()  # asked now, since the files may change before the first cell is written
    waiting = [job for job in jobs if not finished(job, out, since)]
    tell(f"{len(jobs)} trainings, {len(jobs) - len(waiting)} of them done")
    failed: list[str] = []
    spent: list[float] = []
    while waiting:
        idle = True
        for job in list(waiting):
            with only_one(work / f"{job.key}.lock") as ours:
                if not ours:
                    continue
                waiting.remove(job)
                if finished(job, out, since):  # by another process, meanwhile
                    continue
                idle = False
                began = time.monotonic()
                left = f", about {_minutes(sum(spent) / len(spent) * (len(waiting) + 1))} left" if spent else ""
                tell(f"{job.title}: {len(waiting)} more after it{left}")
                try:
                    do(job, comparison, tell=tell)
                except DimmlError as error:
                    if isinstance(error.__context__, SystemExit):  # Ctrl-C, as train() reports it
                        raise KeyboardInterrupt from error
                    failed.append(f"{job.title}: {error}")
                    tell(f"failed: {error}")
                spent.append(time.monotonic() - began)
        if idle and waiting:
            time.sleep(POLL_S)
    return failed


def do(job: TrainingJob, comparison: Comparison, *, tell: Tell) -> None:
    """Train, if necessary, and score one job; the caller holds its lock."""
    folder = comparison.work / job.key
    if job.config.threads is not None:
        torch.set_num_threads(job.config.threads)
    if not (folder / RUN_FILE).is_file():
        _train(job, folder, comparison.cache_dir, tell)
    # Of a trial whose followers come later, no second cell: it might choose otherwise, by code of another day.
    left = replace(job, methods=_left(job, comparison.out, comparison.since))
    score_job(left, folder, comparison.out, tell=tell)


def _train(job: TrainingJob, folder: Path, cache_dir: Path, tell: Tell) -> None:
    def begin(*, resume: bool) -> None:
        train(job.config, folder, cache_dir=cache_dir, resume=resume, tell=lambda line: tell(f"  {line}"))

    if (folder / CONFIG_FILE).is_file():
        try:
            begin(resume=True)
        except ConfigurationError as error:
            if error.field != "--resume":
                raise
            shutil.rmtree(folder)  # started with another config or data of the same key
            begin(resume=False)
    else:
        if folder.is_dir():
            shutil.rmtree(folder)  # killed before it wrote anything
        begin(resume=False)
    document = {**asdict(provenance()), "title": job.title}
    try:
        (folder / TRAINED_BY).write_text(json.dumps(document), encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write {folder / TRAINED_BY}: {error.strerror}") from error


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


@contextmanager
def only_one(path: Path) -> Iterator[bool]:
    """Try to lock the file, and say whether this process has it now. Never waits."""
    with ExitStack() as lock:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = lock.enter_context(exclusive_lock(path, wait=False))
        except OSError as error:
            raise SetupError(f"cannot write {path}: {error.strerror}; choose another place with --work") from error
        yield held
