"""The work of a comparison: train what is not trained, score what is not scored, side by side with other processes.

::

    <work>/<training>/          a run directory, see run_directory.py
    <work>/<training>/encoded/  what its encoders made of every condition
    <work>/<training>.lock      held by the process that works on it

Killing it costs the training under way, and of that no more than the epoch under way: the next call resumes.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from dimml.errors import ConfigurationError, DimmlError, SetupError
from dimml.system.files import exclusive_lock
from dimml_training.compare import plan
from dimml_training.compare.methods import chosen_methods
from dimml_training.compare.packed_cells import find_cell
from dimml_training.compare.plan import Job
from dimml_training.compare.provenance import provenance
from dimml_training.compare.scoring import TRAINED_BY, answer_key, score_job
from dimml_training.config import TrainConfig
from dimml_training.data.prepare import prepare
from dimml_training.loop.train import train
from dimml_training.run.directory import CONFIG_FILE, RUN_FILE

#: Between looks at what other processes are busy with.
POLL_S = 2.0
#: Clips between two lines on decoding.
DECODED_LINE = 100

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What a call of ``dimml compare`` asks for. ``since`` (UTC, as in cells): cells older than that do not count."""

    config: TrainConfig
    methods: tuple[str, ...]
    repeats: int | None
    out: Path
    work: Path
    cache_dir: Path
    since: str | None = None


def planned(comparison: Comparison, *, tell: Tell) -> list[Job]:
    """The trainings that a comparison needs; decodes clips that are not cached yet."""

    def progress(done: int, total: int) -> None:
        if done == total or done % DECODED_LINE == 0:
            tell(f"decoded {done} of {total} clips")

    repeats = plan.repeats(
        comparison.config, comparison.repeats, lambda c: prepare(c, comparison.cache_dir, progress=progress)
    )
    return plan.jobs(chosen_methods(comparison.config, comparison.methods), repeats)


def side_by_side(comparison: Comparison, processes: int, *, tell: Tell) -> list[str]:
    """Work a comparison off in so many processes, this one among them; what failed, a line for each."""
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
    return failed + ["a process beside this one failed"] * sum(other.exitcode != 0 for other in others)


def _alongside(comparison: Comparison) -> None:
    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        failed = work_off(planned(comparison, tell=tell), comparison, tell=tell)
    except KeyboardInterrupt:  # the terminal tells every process; one of them says so
        sys.exit(130)
    sys.exit(1 if failed else 0)


def finished(job: Job, out: Path, since: str | None = None) -> bool:
    """Whether every cell of a job is there, made from this training, by this rule, and (with ``since``, a UTC time
    as in cells) not before."""
    for method in job.methods:
        cell = find_cell(out, job.config.name, method.name, job.repeat.index)
        if cell is None:
            return False
        if cell.answer != answer_key(job.key, job.repeat.config, method) or (since is not None and cell.date < since):
            return False
    return True


def work_off(jobs: Sequence[Job], comparison: Comparison, *, tell: Tell) -> list[str]:
    """Do all jobs that are not finished; what failed, a line for each. Jobs that another process is at are left to
    it, and looked at again at the end."""
    out, work, since = comparison.out, comparison.work, comparison.since
    provenance()  # of the code as it was loaded, not as it stands when the first cell is written
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
                    if isinstance(error.__context__, SystemExit):  # Ctrl-C, as train() hands it on
                        raise KeyboardInterrupt from error
                    failed.append(f"{job.title}: {error}")
                    tell(f"failed: {error}")
                spent.append(time.monotonic() - began)
        if idle and waiting:
            time.sleep(POLL_S)
    return failed


def do(job: Job, comparison: Comparison, *, tell: Tell) -> None:
    """Train, if need be, and score one job; the caller holds its lock."""
    folder = comparison.work / job.key
    if job.config.threads is not None:
        torch.set_num_threads(job.config.threads)
    if not (folder / RUN_FILE).is_file():
        _train(job, folder, comparison.cache_dir, tell)
    score_job(job, folder, comparison.out, tell=tell)


def _train(job: Job, folder: Path, cache_dir: Path, tell: Tell) -> None:
    def begin(*, resume: bool) -> None:
        train(job.config, folder, cache_dir=cache_dir, resume=resume, tell=lambda line: tell(f"  {line}"))

    if (folder / CONFIG_FILE).is_file():
        try:
            begin(resume=True)
        except ConfigurationError as error:
            if error.field != "--resume":
                raise
            shutil.rmtree(folder)  # begun by another state of config or data that has the same key
            begin(resume=False)
    else:
        if folder.is_dir():
            shutil.rmtree(folder)  # killed before anything was in it
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
