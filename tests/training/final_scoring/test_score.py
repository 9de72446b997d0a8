"""Scoring the sealed families once: what is logged, refused, resumed, and put into cells."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dimml.errors import SetupError
from dimml_training.compare.answers import answer
from dimml_training.compare.packed_cells import read_cells
from dimml_training.compare.plan import TrainingJob
from dimml_training.compare.provenance import Provenance, uncommitted
from dimml_training.compare.work import Comparison, only_one, planned, side_by_side, work_off
from dimml_training.config import with_fields
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.corruptions.final.applying import corrupt_finally
from dimml_training.corruptions.final.families import final_conditions
from dimml_training.final_scoring import score
from dimml_training.final_scoring.log import read_log
from dimml_training.final_scoring.score import Done, Tell, score_finally
from dimml_training.final_scoring.seal import unbroken_seal
from dimml_training.run.directory import load_run
from support import tiny_training

METHODS = ("single:audio", "single:visual", "late_logits")


def silent(_: str) -> None:
    """Say nothing."""


def scored(
    comparison: Comparison,
    split: Literal["test", "validation"],
    *,
    tell: Tell = silent,
    development: Path | None = None,
) -> Done:
    """Scores; trials are settled where it writes to, unless the test says otherwise."""
    return score_finally(
        comparison,
        split,
        development=development or comparison.out,
        tell=tell,
        repository=comparison.out.parent.parent,
    )


@pytest.fixture(autouse=True)
def _committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a checkout without changes, whatever this one has."""
    monkeypatch.setattr(score, "provenance", lambda: Provenance("0123456789ab", False))
    monkeypatch.setattr(score, "uncommitted", lambda *_: [])


@pytest.fixture(scope="module", name="trained")
def trained_comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One training, with its cells of the development suite."""
    folder = tmp_path_factory.mktemp("compared")
    config = tiny_training.configured(tiny_training.write_clips(folder), epochs=2)
    comparison = Comparison(config, METHODS, 1, folder / "out", folder / "work", folder / "cache")
    assert work_off(planned(comparison, tell=silent), comparison, tell=silent) == []
    return comparison


@pytest.fixture(scope="module", name="tried")
def comparison_with_trials(trained: Comparison) -> Comparison:
    """A method of two trials, settled and trained, with its cells of the development suite."""
    fields = {"compare.rivals.modality_dropout": [0.1, 0.4], "stage1.epochs": 1, "stage1.warmup_epochs": 0}
    config = with_fields(trained.config, fields, "test")
    out, work = trained.out.with_name("tried"), trained.work.with_name("work_tried")
    comparison = replace(trained, config=config, methods=("joint_concat_dropout",), out=out, work=work)
    assert side_by_side(comparison, 1, tell=silent) == []
    return comparison


@pytest.fixture(scope="module", name="job")
def only_job(trained: Comparison) -> TrainingJob:
    (job,) = planned(trained, tell=silent)
    return job


@pytest.fixture
def once(trained: Comparison, tmp_path: Path) -> Comparison:
    """The same training, scored finally into a folder of the test's own."""
    out = tmp_path / "docs" / "results"
    out.mkdir(parents=True)
    return replace(trained, out=out)


def test_a_second_run_of_the_same_is_refused(once: Comparison) -> None:
    assert scored(once, "test", tell=silent) == Done(3, 0)
    before = {path: path.read_bytes() for path in once.out.rglob("*") if path.is_file()}
    said: list[str] = []
    assert scored(once, "test", tell=said.append) == Done(0, 3)
    assert {path: path.read_bytes() for path in once.out.rglob("*") if path.is_file()} == before
    assert sum("was scored on" in line for line in said) == 3
    # Neither another name, nor another seal's log, nor the loss of the cells makes it another thing.
    renamed = replace(once, config=once.config.model_copy(update={"name": "else"}))
    assert scored(renamed, "test", tell=silent) == Done(0, 3)
    for path in (once.out / "final").rglob("*.json"):
        path.unlink()
    assert scored(once, "test", tell=silent) == Done(0, 3)


def test_the_log_says_what_was_scored(once: Comparison, job: TrainingJob) -> None:
    scored(once, "test", tell=silent)
    begun, ended = read_log(once.out / "final.jsonl")
    assert (begun.event, ended.event) == ("begun", "scored")
    assert begun.cells == {}
    assert ended.cells == {
        f"final/cells/{once.config.name}/{name}__0.json": hashlib.sha256(
            (once.out / f"final/cells/{once.config.name}/{name}__0.json").read_bytes()
        ).hexdigest()
        for name in ("single-audio", "single-visual", "late_logits")
    }
    for entry in (begun, ended):
        assert (entry.seal, entry.split, entry.repeat, entry.methods) == (unbroken_seal(), "test", 0, METHODS)
        assert (entry.training, entry.data_digest) == (job.key, job.repeat.data.digest)
        assert (entry.commit, entry.dirty) == ("0123456789ab", False)
    # The count of looks at the development families is of those alone.
    assert not (once.out / "unseen.log").exists()
    assert not (once.out / "development.log").exists()


def test_what_was_killed_midway_goes_on(once: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> list[Path]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(score, "score_suite", killed)
        with pytest.raises(KeyboardInterrupt):
            scored(once, "test", tell=silent)
    assert scored(once, "test", tell=silent) == Done(3, 0)
    assert [entry.event for entry in read_log(once.out / "final.jsonl")] == ["begun", "begun", "scored"]


def test_only_what_is_new_is_scored(once: Comparison) -> None:
    fewer = replace(once, methods=METHODS[:2])
    assert scored(fewer, "test", tell=silent) == Done(2, 0)
    assert scored(once, "test", tell=silent) == Done(1, 2)


def test_what_is_left_is_not_scored_beside_other_trainings(once: Comparison, job: TrainingJob) -> None:
    """As where trials made again settle another setting than for what was scored before."""
    assert scored(replace(once, methods=METHODS[:1]), "test") == Done(1, 0)
    log = once.out / "final.jsonl"
    log.write_text(log.read_text().replace(job.key, "0" * 16))
    before = log.read_text()
    with pytest.raises(SetupError, match=rf"single:audio, repeat 0, was scored on .* training {job.key} by"):
        scored(once, "test")
    assert log.read_text() == before
    assert scored(replace(once, methods=METHODS[:1]), "test") == Done(0, 1)


def test_a_rehearsal_is_apart_and_logged(once: Comparison) -> None:
    assert scored(once, "validation", tell=silent) == Done(3, 0)
    assert scored(once, "validation", tell=silent) == Done(0, 3)
    assert not (once.out / "final").exists()
    cells = list(read_cells(once.out / "final_validation"))
    assert {cell.clips for cell in cells} == {cells[0].clips_validation}
    assert scored(once, "test", tell=silent) == Done(3, 0)


def test_a_cell_says_what_the_run_answers_under_final_families(once: Comparison, job: TrainingJob) -> None:
    scored(once, "test", tell=silent)
    run = load_run(once.work / job.key)
    suite = final_conditions(run.modalities)
    clips = job.repeat.data.splits["test"].rows
    encoded = encode_conditions(
        run.encoders, run.modalities, clips, suite, run.quality, seed=job.config.seed, damage=corrupt_finally
    )
    found = {cell.method: cell for cell in read_cells(once.out / "final")}
    for method in job.methods:
        cell = found[method.name]
        assert list(cell.conditions) == [c.name for c in suite]
        for condition in suite:
            for draw, right_N in enumerate(cell.conditions[condition.name].right_by_draw(cell.clips)):
                given = answer(method.answer, run, encoded.get(condition, draw))
                np.testing.assert_array_equal(right_N, given.right(clips.labels))


def test_what_may_not_be_scored(once: Comparison, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(score, "provenance", lambda: Provenance("0123456789ab", True))
    with pytest.raises(SetupError, match="commit first"):
        scored(once, "test", tell=silent)
    assert scored(once, "validation", tell=silent).scored == 3
    monkeypatch.setattr(score, "provenance", lambda: Provenance("0123456789ab", False))
    with pytest.raises(SetupError, match=r"not trained yet .*dimml compare"):
        scored(replace(once, work=tmp_path / "elsewhere"), "test", tell=silent)
    with only_one(once.out / "final.lock"), pytest.raises(SetupError, match="another process"):
        scored(once, "test", tell=silent)

    def broken() -> str:
        raise SetupError("the final corruption families are sealed")

    monkeypatch.setattr(score, "unbroken_seal", broken)
    with pytest.raises(SetupError, match="sealed"):
        scored(once, "test", tell=silent)


def test_a_damaged_log_is_named(once: Comparison) -> None:
    (once.out / "final.jsonl").write_text('{"event": "scored"}\n')
    with pytest.raises(SetupError, match=r"final\.jsonl, line 1"):
        scored(once, "test", tell=silent)


def test_trials_are_not_scored(tried: Comparison) -> None:
    jobs = planned(tried, tell=silent)
    assert [len(job.methods) for job in jobs if "joint_concat_dropout" in {m.name for m in job.methods}] == [2]
    (loser,) = (job for job in jobs if len(job.methods) == 1)
    shutil.rmtree(tried.work / loser.key)  # whose run is not asked for either
    assert scored(tried, "validation", tell=silent) == Done(1, 0)
    assert {entry.methods for entry in read_log(tried.out / "final.jsonl")} == {("joint_concat_dropout",)}
    assert [cell.method for cell in read_cells(tried.out / "final_validation")] == ["joint_concat_dropout"]


def test_encodings_are_those_of_the_seal(once: Comparison, job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(seal: str) -> list[str]:
        with monkeypatch.context() as patched:
            patched.setattr(score, "unbroken_seal", lambda: seal)
            scored(once, "validation", tell=silent)
        return sorted(path.name for path in (once.work / job.key / "encoded").glob(f"final_{seal[:12]}*.npz"))

    assert made("a1" * 32) == ["final_a1a1a1a1a1a1_validation.npz"]
    assert made("b2" * 32) == ["final_b2b2b2b2b2b2_validation.npz"]


def test_trials_are_settled_where_development_was_scored(tried: Comparison, tmp_path: Path) -> None:
    elsewhere = replace(tried, out=tmp_path, methods=("joint_concat_dropout",))
    with pytest.raises(SetupError, match=r"trials for joint_concat_dropout: run `dimml compare`"):
        scored(elsewhere, "validation")
    assert not list(tmp_path.rglob("*.jsonl"))
    assert scored(elsewhere, "validation", development=tried.out) == Done(1, 0)
    assert [cell.method for cell in read_cells(tmp_path / "final_validation")] == ["joint_concat_dropout"]


def test_what_follows_another_methods_trials_is_settled_there(trained: Comparison, tmp_path: Path) -> None:
    fields = {"compare.duc_weights": [0.0, 0.3], "stage1.epochs": 1, "stage1.warmup_epochs": 0}
    config = with_fields(trained.config, fields, "test")
    comparison = replace(trained, config=config, methods=("dimml_clw",), out=tmp_path / "out", work=tmp_path / "work")
    with pytest.raises(SetupError, match=r"trials for dimml_clw: run `dimml compare`"):
        scored(comparison, "validation")
    assert side_by_side(comparison, 1, tell=silent) == []
    assert {cell.method for cell in read_cells(comparison.out)} == {"dimml@0", "dimml@1", "dimml_clw"}
    assert scored(comparison, "validation") == Done(1, 0)
    (cell,) = read_cells(comparison.out / "final_validation")
    (settled,) = (found for found in read_cells(comparison.out) if found.method == "dimml_clw")
    assert (cell.method, cell.training) == ("dimml_clw", settled.training)


def test_once_is_once_in_a_repository(once: Comparison, tmp_path: Path) -> None:
    def into(out: Path) -> Done:
        return score_finally(replace(once, out=out), "test", development=once.out, tell=silent, repository=tmp_path)

    with pytest.raises(SetupError, match=r"not scored into .*elsewhere.*docs/results/final\.jsonl"):
        into(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    assert into(once.out) == Done(3, 0)
    assert into(tmp_path / "docs" / ".." / "docs" / "results") == Done(0, 3)
    # By default, the repository is that of the running code.
    with pytest.raises(SetupError, match="not scored into"):
        score_finally(once, "test", development=once.out, tell=silent)


@pytest.mark.parametrize("field", ["training", "config_hash", "commit"])
def test_what_was_begun_goes_on_as_it_was_begun(once: Comparison, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    def killed(*_: object, **__: object) -> list[Path]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(score, "score_suite", killed)
        with pytest.raises(KeyboardInterrupt):
            scored(replace(once, methods=METHODS[:2]), "test")
    log = once.out / "final.jsonl"
    (begun,) = read_log(log)
    log.write_text(begun.model_copy(update={field: "0" * 12, "date": "2026-01-02T03:04:05Z"}).model_dump_json() + "\n")
    # One method of those that were begun is enough; one that was not begun may go its way.
    with pytest.raises(SetupError, match=r"final\.jsonl, line 1, began single:audio, .*2026-01-02T03:04:05Z"):
        scored(replace(once, methods=METHODS[1:]), "test")
    assert len(read_log(log)) == 1
    assert scored(replace(once, methods=METHODS[2:]), "test") == Done(1, 0)
    # What was scored since then is refused as scored, however it was begun.
    rest = begun.model_copy(update={"event": "scored"})
    log.write_text(log.read_text() + rest.model_dump_json() + "\n")
    assert scored(once, "test") == Done(0, 3)


def test_test_clips_are_scored_by_committed_code(
    once: Comparison, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(("git", "-C", str(tmp_path), *who, *arguments), check=True, capture_output=True)

    monkeypatch.setattr(score, "uncommitted", uncommitted)
    code = [tmp_path / name for name in ("core/a.py", "training/b.py", "scripts/score_final.py")]
    git("init")
    for path in code:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    (tmp_path / ".gitignore").write_text("build/\n")
    git("add", "core", "training", "scripts", ".gitignore")
    git("commit", "-m", "Begin")
    for path in (*code, tmp_path / "core/new/added.py", tmp_path / "training/build/ignored.py"):
        before = path.read_text() if path.is_file() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("2\n")
        with pytest.raises(SetupError, match=f"commit or remove {path.relative_to(tmp_path)} first"):
            scored(once, "test")
        if path == code[0]:
            git("add", "core")  # staged is not committed
            with pytest.raises(SetupError, match=r"commit or remove core/a\.py first"):
                scored(once, "test")
        path.unlink() if before is None else path.write_text(before)
        git("add", "core")
    # Results and notes may lie about, and a script that has no part in it.
    (once.out / "notes.md").write_text("1\n")
    (tmp_path / "scripts" / "other.py").write_text("1\n")
    assert scored(once, "test") == Done(3, 0)
