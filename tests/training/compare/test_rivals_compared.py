"""Rivals and trials in a comparison: what is fitted, what is trained, and what settles it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dimml_training.compare import scoring
from dimml_training.compare.answers import answer
from dimml_training.compare.cells import Cell, cell_path, read_cell, write_cell
from dimml_training.compare.coverage import coverage
from dimml_training.compare.methods import FittedRival, JointHead, Method, all_methods, chosen_methods
from dimml_training.compare.packed_cells import read_cells
from dimml_training.compare.plan import training_config, training_key
from dimml_training.compare.rivals.fits import fitted_rivals
from dimml_training.compare.rivals.trials import settled, trial_methods, validation_score
from dimml_training.compare.rivals.two_by_two import FIELDS, two_by_two_markdown
from dimml_training.compare.scoring import answer_key
from dimml_training.compare.summary import Summary
from dimml_training.compare.work import Comparison, planned, side_by_side, work_off
from dimml_training.config import TrainConfig, with_fields
from dimml_training.config.corruption_suite import conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.fusion_selection.choose import choice_conditions
from dimml_training.fusion_selection.family_pairs import has_answer, name_has_answer
from dimml_training.run.directory import load_run
from support import made_up_cells, tiny_training

RIVALS = ("qmf", "pdf", "tmc", "ecml", "mla", "stacker")
QUICK = {"compare.rivals.steps": 10, "certainty.certainties": ["max_prob"], "certainty.folds": 2}


def silent(_: str) -> None:
    """Keeps still."""


@pytest.fixture(scope="module", name="config")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    clips = tiny_training.write_clips(tmp_path_factory.mktemp("clips"))
    return with_fields(tiny_training.configured(clips, epochs=2), QUICK, "test")


@pytest.fixture(scope="module", name="done")
def finished_comparison(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("compared")
    methods = ("late_logits", "separate_logits", *RIVALS)
    comparison = Comparison(config, methods, 1, folder / "out", folder / "work", folder / "cache")
    assert work_off(planned(comparison, tell=silent), comparison, tell=silent) == []
    return comparison


def test_rivals_share_the_run_and_say_what_they_tried(done: Comparison) -> None:
    cells = {cell.method: cell for cell in read_cells(done.out)}
    assert len({cell.training for cell in cells.values()}) == 1
    for name in RIVALS:
        report = cells[name].fusion
        assert report is not None
        assert len(report["tried"]) == 2 * 3  # three settings, without the fused head and with it
        assert report["chosen"] in report["tried"]
        assert cells[name].conditions["audio:absent"].accuracy > 0.0
    assert cells["late_logits"].fusion is None


def test_a_cell_of_a_rival_holds_its_answers(done: Comparison) -> None:
    """Made anew from the run alone, by the same fit."""
    (job,) = planned(done, tell=silent)
    run, clips = load_run(done.work / job.key), job.repeat.data.splits["test"].rows
    suite = conditions(run.modalities, "all")[:6]
    encoded = encode_conditions(run.encoders, run.modalities, clips, suite, run.quality, seed=job.config.seed)
    rivals = fitted_rivals(job, done.work / job.key, run)
    assert list(rivals) == list(RIVALS)
    for name, rival in rivals.items():
        cell = read_cell(cell_path(done.out, done.config.name, name, 0))
        for condition in suite:
            given = answer(all_methods(job.repeat.config)[name].answer, run, encoded.get(condition, 0), rival)
            np.testing.assert_allclose(given.probabilities_NC.sum(axis=1), 1.0, rtol=1e-5)
            right_N = cell.conditions[condition.name].right_by_draw(cell.clips)[0]
            np.testing.assert_array_equal(right_N, given.right(clips.labels))


def test_a_rival_is_fitted_anew_when_its_settings_or_its_rows_change(config: TrainConfig) -> None:
    def keys(changed: TrainConfig) -> dict[str, str]:
        return {name: answer_key("t", changed, all_methods(changed)[name]) for name in (*RIVALS, "late_logits")}

    before = keys(config)
    of_one = keys(with_fields(config, {"compare.rivals.tmc": [{"pull": 0.5}]}, "test"))
    assert {name for name in before if of_one[name] != before[name]} == {"tmc"}
    of_rows = keys(with_fields(config, {"certainty.clips": 7}, "test"))
    assert {name for name in before if of_rows[name] != before[name]} == set(RIVALS)


def test_what_is_chosen_is_made_anew_when_the_conditions_of_the_choice_change(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("dimml", "separate_chosen", "qmf", "late_logits", "dimml_clw", "joint_concat", "dimml:fused")
    free = config.model_copy(update={"fusion": None})

    def keys() -> dict[tuple[str, bool], str]:
        return {
            (name, of.fusion is None): answer_key("t", of, all_methods(of)[name])
            for name in names
            for of in (config, free)
        }

    assert config.fusion is not None
    before = keys()
    fewer = choice_conditions(config)[:-1]
    monkeypatch.setattr(scoring, "choice_conditions", lambda _: fewer)
    after = keys()
    changed = {what for what in before if before[what] != after[what]}
    assert changed == {("dimml", True), ("separate_chosen", True), ("qmf", True), ("qmf", False)}


def dropout_comparison(config: TrainConfig, folder: Path) -> Comparison:
    fields = {"compare.rivals.modality_dropout": [0.1, 0.4], "stage1.epochs": 1, "stage1.warmup_epochs": 0}
    return Comparison(
        with_fields(config, fields, "test"), ("joint_concat_dropout",), 2, folder / "out", folder / "work", folder
    )


def test_trials_choose_on_validation_clips_what_all_repeats_train(
    config: TrainConfig, done: Comparison, tmp_path: Path
) -> None:
    comparison = replace(dropout_comparison(config, tmp_path), cache_dir=done.cache_dir)
    first = planned(comparison, tell=silent)
    assert [job.title for job in first] == ["repeat 0, joint_concat_dropout@0", "repeat 0, joint_concat_dropout@1"]
    assert [job.config.stage1.joint.modality_dropout for job in first] == [0.1, 0.4]
    assert all(job.config.stage1.joint.presence_flag for job in first)
    assert side_by_side(comparison, 1, tell=silent) == []
    cells = {(cell.method, cell.repeat): cell for cell in read_cells(comparison.out)}
    trials = [cells[f"joint_concat_dropout@{number}", 0] for number in (0, 1)]
    best = max(trials, key=validation_score)
    assert cells["joint_concat_dropout", 0].training == best.training
    assert cells["joint_concat_dropout", 0].conditions == best.conditions
    assert ("joint_concat_dropout", 1) in cells
    assert len(cells) == 4
    assert len(list(comparison.work.rglob("run.json"))) == 3, "the first repeat's is the trial's run"
    summary = Summary(list(cells.values()))
    assert summary.methods == ["joint_concat_dropout"]
    said: list[str] = []
    assert side_by_side(comparison, 1, tell=said.append) == []
    assert said == ["3 trainings, 3 of them done"] * 2  # a trial's run is a job together with what it settled
    methods = chosen_methods(comparison.config, comparison.methods)
    covered = coverage(comparison.config, methods, summary.cells | summary.trials)
    assert covered.missing == {"joint_concat_dropout": [2]}
    assert covered.outdated == {}


def test_the_trial_that_is_best_on_validation_is_settled_not_that_on_test(
    config: TrainConfig, done: Comparison, tmp_path: Path
) -> None:
    comparison = replace(dropout_comparison(config, tmp_path), cache_dir=done.cache_dir)
    job = planned(comparison, tell=silent)[0]
    method = all_methods(comparison.config)["joint_concat_dropout"]
    assert settled(method, job.repeat, comparison.out) is None
    for number, (trial, seen) in enumerate(zip(trial_methods(method), (0.9, 0.5), strict=True)):
        key = training_key(training_config(job.repeat.config, trial), job.repeat.data.digest)
        found, _ = made_up_cells.cell(trial.name, 0, 0.2 + 0.5 * number)
        # Development families count for nothing, however the trial does on them.
        validation = {name: seen if record.seen else 1.0 - seen for name, record in found.conditions.items()}
        write_cell(
            comparison.out,
            found.model_copy(
                update={
                    "data": comparison.config.name,
                    "answer": answer_key(key, job.repeat.config, trial),
                    "validation": validation,
                }
            ),
        )
    chosen = settled(method, job.repeat, comparison.out)
    assert chosen is not None
    assert chosen.training["stage1.joint.modality_dropout"] == 0.1
    assert chosen.name == "joint_concat_dropout"
    assert not chosen.scored_on_validation


def test_damage_that_leaves_no_answer_settles_no_trial() -> None:
    found, _ = made_up_cells.cell("trial", 0, 0.5)
    record = next(r for r in found.conditions.values() if r.seen and r.in_means)
    clean, *_ = found.conditions
    names = (clean, "audio:white_0db", "audio:another_clip_-10db", "audio+visual:another_clip_-10db+blur_2pct")
    among = {**dict.fromkeys(names, record), clean: found.conditions[clean]}
    validation = dict(zip(names, (0.9, 0.6, 0.1, 0.2), strict=True))
    trial = found.model_copy(update={"conditions": among, "validation": validation})
    assert validation_score(trial) == pytest.approx(0.6)
    for name in names[2:]:
        one = {clean: among[clean], name: record}
        assert validation_score(trial.model_copy(update={"conditions": one})) == pytest.approx(0.9)


def test_every_name_of_the_suite_says_whether_it_leaves_an_answer(config: TrainConfig) -> None:
    suite = choice_conditions(config)
    assert {name_has_answer(c.name) == has_answer(c) for c in suite} == {True}
    assert {has_answer(c) for c in suite} == {True, False}


def test_methods_without_trials_are_as_they_were(config: TrainConfig) -> None:
    plain = Method("joint_concat", JointHead(), "")
    assert trial_methods(plain) == []
    assert isinstance(all_methods(config)["stacker"].answer, FittedRival)
    assert all(not method.trials for name, method in all_methods(config).items() if not name.endswith("_dropout"))


def test_two_by_two_gives_what_each_half_adds() -> None:
    shares = {"separate_logits": 0.3, "separate_chosen": 0.6, "dimml_logits": 0.5, "dimml": 0.9}
    cells: list[Cell] = []
    for repeat in (0, 1):
        cells += [made_up_cells.cell(method, repeat, share)[0] for method, share in shares.items()]
    summary = Summary(cells)
    text = two_by_two_markdown(summary)
    clean = {
        method: np.mean([c.conditions["clean"].accuracy for c in cells if c.method == method]) for method in shares
    }
    lines = [line.split(" | ") for line in text.splitlines()[2:5]]
    assert lines[0][2].startswith(f"{100 * clean['separate_logits']:.1f} [")
    assert lines[1][3].startswith(f"{100 * clean['dimml']:.1f} [")
    assert lines[0][4].startswith(f"{100 * (clean['separate_chosen'] - clean['separate_logits']):+.1f} [")
    assert lines[2][3].startswith(f"{100 * (clean['dimml'] - clean['separate_chosen']):+.1f} [")
    more = clean["dimml"] - clean["separate_chosen"] - (clean["dimml_logits"] - clean["separate_logits"])
    assert float(lines[2][4].rstrip(" |")) == pytest.approx(100 * more, abs=0.051)
    assert two_by_two_markdown(Summary([c for c in cells if c.method != "separate_logits"])) == ""
    assert {m for row in FIELDS.values() for m in row} == set(shares)
