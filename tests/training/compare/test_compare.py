"""`dimml compare` on a tiny data set: every training once, resumable, side by side, from the command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dimml.cli import main
from dimml.errors import ConfigurationError
from dimml_training.compare import plan, tables
from dimml_training.compare.answers import answer
from dimml_training.compare.cells import Cell, cell_path, read_cell
from dimml_training.compare.coverage import coverage
from dimml_training.compare.development_log import log_development, looks
from dimml_training.compare.methods import all_methods, chosen_methods
from dimml_training.compare.packed_cells import pack, read_cells
from dimml_training.compare.provenance import provenance
from dimml_training.compare.scoring import answer_key
from dimml_training.compare.summary import Summary
from dimml_training.compare.work import Comparison, finished, only_one, planned, work_off
from dimml_training.config import TrainConfig, with_fields
from dimml_training.config.corruption_suite import conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.fusion_selection.choose import choose_on
from dimml_training.report.page import write_report
from dimml_training.run.directory import RUN_FILE, load_run
from dimml_training.run.starting import weights_sha256
from support import tiny_training
from support.data import REPOSITORY_ROOT
from support.waiting import wait_until

#: Two trainings: the separate encoders, and ours.
METHODS = ("single:audio", "single:visual", "late_logits", "dimml_clw", "dimml:fused")


def silent(_: str) -> None:
    """Tells nobody."""


@pytest.fixture(scope="module", name="config")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    return tiny_training.configured(tiny_training.write_clips(tmp_path_factory.mktemp("clips")), epochs=2)


@pytest.fixture(scope="module", name="done")
def finished_comparison(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One repeat of ``METHODS``, worked off."""
    folder = tmp_path_factory.mktemp("compared")
    comparison = Comparison(config, METHODS, 1, folder / "out", folder / "work", folder / "cache")
    assert work_off(planned(comparison, tell=silent), comparison, tell=silent) == []
    return comparison


def state(comparison: Comparison) -> dict[Path, int]:
    """When each cell and each finished run was written."""
    files = [*comparison.out.rglob("*.json"), *comparison.work.rglob(RUN_FILE)]
    return {path: path.stat().st_mtime_ns for path in files}


def test_methods_that_share_a_training_share_its_run(done: Comparison) -> None:
    cells = {cell.method: cell for cell in read_cells(done.out)}
    assert set(cells) == set(METHODS)
    assert len({cell.training for cell in cells.values()}) == 2
    assert cells["single:audio"].training == cells["single:visual"].training == cells["late_logits"].training
    assert len(list(done.work.rglob(RUN_FILE))) == 2


def test_a_cell_names_the_commit_that_made_it(done: Comparison) -> None:
    asked = ("git", "rev-parse", "--short=12", "HEAD")
    commit = subprocess.run(asked, cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert all(len(cell.commit or "") == len(commit) for cell in read_cells(done.out))
    provenance.cache_clear()
    assert provenance().commit == commit
    assert provenance() is provenance()  # of the code as loaded: a commit made meanwhile is not what runs


def test_a_second_call_does_nothing(done: Comparison) -> None:
    before = state(done)
    told: list[str] = []
    assert work_off(planned(done, tell=silent), done, tell=told.append) == []
    assert state(done) == before
    assert told == ["2 trainings, 2 of them done"]


def test_a_cell_says_what_the_encoders_of_its_run_answer(done: Comparison) -> None:
    """Encoded anew, without what is kept beside the run."""
    job = next(j for j in planned(done, tell=silent) if j.methods[-1].name == "dimml:fused")
    run = load_run(done.work / job.key)
    suite = conditions(run.modalities, "all")
    clips = job.repeat.data.splits["test"].rows
    encoded = encode_conditions(run.encoders, run.modalities, clips, suite, run.quality, seed=job.config.seed)
    for method in job.methods:
        cell = read_cell(cell_path(done.out, done.config.name, method.name, 0))
        for condition in suite:
            record = cell.conditions[condition.name]
            for draw, right_N in enumerate(record.right_by_draw(cell.clips)):
                given = answer(method.answer, run, encoded.get(condition, draw))
                assert (right_N == given.right(clips.labels)).all()
            assert record.accuracy == pytest.approx(record.right_by_draw(cell.clips).mean(), abs=1e-6)
    clean = answer(method.answer, run, encoded.get(suite[0], 0)).probabilities_NC.max(axis=1)
    assert cell.confidences() == pytest.approx(clean, abs=1e-5)


def test_the_fusion_is_chosen_as_a_training_chooses_it(done: Comparison, tmp_path: Path) -> None:
    """From what is kept beside the run, all draws of all conditions in it."""
    open_fusion = done.config.model_copy(update={"fusion": None})
    choosing = replace(done, config=open_fusion, out=tmp_path, methods=("separate_chosen",))
    (job,) = planned(choosing, tell=silent)
    assert work_off([job], choosing, tell=silent) == []
    run = load_run(done.work / job.key)
    rows = {split: of_split.rows for split, of_split in job.repeat.data.splits.items()}
    chosen = choose_on(open_fusion, run.encoders, run.fused_head, train=rows["train"], validation=rows["validation"])
    cell = read_cell(cell_path(tmp_path, done.config.name, "separate_chosen", 0))
    assert cell.fusion is not None
    assert cell.fusion["spec"] == chosen.spec.model_dump(mode="json")
    assert cell.fusion["chosen"] == chosen.report["chosen"]


def test_a_modality_alone_is_wrong_where_it_is_absent(done: Comparison) -> None:
    cell = read_cell(cell_path(done.out, done.config.name, "single:audio", 0))
    assert cell.conditions["audio:absent"].accuracy == 0.0
    assert cell.conditions["visual:absent"].accuracy == cell.conditions["clean"].accuracy
    assert cell.validation is not None
    assert set(cell.validation) == set(cell.conditions)


def test_every_scoring_of_development_families_is_counted(done: Comparison) -> None:
    assert looks(done.out) == looks(done.out, done.config.name) == 2
    assert looks(done.out, "another") == 0


def test_looks_of_before_the_families_were_renamed_count_too(tmp_path: Path) -> None:
    (tmp_path / "unseen.log").write_text("2026-11-24T00:00:00Z abc def grid compare dimml\n" * 2)
    assert looks(tmp_path) == 2
    assert log_development(tmp_path, "other", "def", "evaluate") == 3
    assert (looks(tmp_path, "grid"), looks(tmp_path, "other")) == (2, 1)
    assert len((tmp_path / "unseen.log").read_text().splitlines()) == 2


def test_what_is_missing_or_of_another_config_is_told(done: Comparison) -> None:
    """From the cells and the config alone."""
    cells: dict[str, dict[int, Cell]] = {}
    for cell in read_cells(done.out):
        cells.setdefault(cell.method, {})[cell.repeat] = cell
    one = with_fields(done.config, {"compare.repeats": [{"seed": 0}]}, "test")
    methods = chosen_methods(done.config, METHODS)
    assert coverage(one, methods, cells).whole
    elsewhere = with_fields(one, {"data.manifest": "moved.csv", "threads": 2}, "test")
    assert coverage(elsewhere, methods, cells).whole
    longer = with_fields(one, {"stage1.epochs": 3}, "test")
    assert set(coverage(longer, methods, cells).outdated) == set(METHODS)
    more = coverage(done.config, chosen_methods(done.config, [*METHODS, "joint_sum"]), cells)
    assert more.missing == {**{name: [1, 2] for name in METHODS}, "joint_sum": [0, 1, 2]}
    assert not more.outdated


def test_the_main_methods_are_those_that_are_always_in_the_table(config: TrainConfig) -> None:
    """The paper's setting, the plain averages and each head alone stand beside ours."""
    names = {method.name for method in chosen_methods(config, ["main"])}
    assert names == {
        *("single:audio", "single:visual", "late_logits", "late_probabilities", "joint_concat"),
        *("dimml_published", "dimml", "dimml_clw", "dimml_logits", "dimml_probabilities"),
        *("dimml:audio", "dimml:visual", "dimml:fused"),
    }


def test_a_lost_cell_is_scored_again_from_the_same_run(done: Comparison, tmp_path: Path) -> None:
    elsewhere = replace(done, out=tmp_path)
    runs = {path: path.stat().st_mtime_ns for path in done.work.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert work_off(planned(elsewhere, tell=silent), elsewhere, tell=silent) == []
    assert {path: path.stat().st_mtime_ns for path in runs} == runs
    again = {cell.method: cell.conditions for cell in read_cells(tmp_path)}
    assert again == {cell.method: cell.conditions for cell in read_cells(done.out)}


def test_packed_cells_count_as_finished(done: Comparison, tmp_path: Path) -> None:
    packed = replace(done, out=tmp_path / "out", work=tmp_path / "work")
    shutil.copytree(done.out, packed.out)
    assert pack(packed.out)
    assert not list(packed.out.glob("cells/*/*"))
    jobs = planned(packed, tell=silent)
    assert all(finished(job, packed.out) for job in jobs)
    assert not any(finished(job, packed.out, since="9999-01-01T00:00:00Z") for job in jobs)
    assert work_off(jobs, packed, tell=silent) == []
    assert not packed.work.exists()


def test_a_killed_training_is_resumed(done: Comparison, tmp_path: Path) -> None:
    """As `kill -9` after stage 1 leaves it: checkpoints, no run.json."""
    job = planned(done, tell=silent)[0]
    killed = replace(done, out=tmp_path, methods=("late_logits",))
    (done.work / job.key / RUN_FILE).unlink()
    told: list[str] = []
    assert work_off(planned(killed, tell=silent), killed, tell=told.append) == []
    assert not any("stage 1, epoch" in line for line in told)
    assert (done.work / job.key / RUN_FILE).is_file()
    cell, before = (read_cell(cell_path(out, done.config.name, "late_logits", 0)) for out in (killed.out, done.out))
    assert cell.conditions == before.conditions


@pytest.mark.slow(reason="trains twice, and evaluates both")
def test_what_another_process_is_at_is_left_to_it(config: TrainConfig, done: Comparison, tmp_path: Path) -> None:
    beside = replace(done, out=tmp_path)
    first, second = planned(beside, tell=silent)
    told: list[str] = []
    with only_one(beside.work / f"{first.key}.lock") as ours:
        assert ours
        worker = threading.Thread(target=work_off, args=([first, second], beside), kwargs={"tell": told.append})
        worker.start()
        wait_until(lambda: len(list(read_cells(tmp_path))) == len(second.methods))
        assert {cell.training for cell in read_cells(tmp_path)} == {second.key}
    worker.join(timeout=60)
    assert {cell.training for cell in read_cells(tmp_path)} == {first.key, second.key}


def test_only_what_is_trained_changes_the_key(config: TrainConfig) -> None:
    key = plan.training_key(config, "data")
    same: dict[str, Any] = {"name": "other", "threads": 2, "compare.clw_temperature": 3.0, "data.media_root": "else"}
    same |= {"compare.contained": ["pink"], "compare.duc_weights": [0.0, 0.1]}
    assert plan.training_key(with_fields(config, same, "test"), "data") == key
    assert plan.training_key(config, "other data") != key
    other = {"seed": 1, "stage1.epochs": 3, "modalities.0.augment.shift_ms": 6, "stage1.separation": False}
    for field, value in other.items():
        assert plan.training_key(with_fields(config, {field: value}, "test"), "data") != key
    # Without DUC no dimensions are separated, whether they would be or not.
    without, unseparated = (
        with_fields(config, {"stage1.lambda_duc": 0.0, **more}, "test") for more in ({}, {"stage1.separation": False})
    )
    assert plan.training_key(without, "data") == plan.training_key(unseparated, "data")


@pytest.mark.parametrize(
    ("name", "training", "answer"),
    [
        ("single:audio", "226a9fbb64b27b61", "e50c405c92d5bbb5"),
        ("dimml", "d0b4c7c29236242e", "42af5b7ba77f7b52"),
        ("dimml_clw", "d0b4c7c29236242e", "c2ceda67137d513c"),
    ],
)
def test_trainings_and_cells_made_before_the_decoder_version_keep_their_keys(
    config: TrainConfig, name: str, training: str, answer: str
) -> None:
    """The literals were computed before there was one."""
    method = all_methods(config)[name]
    trained = plan.training_config(config, method)
    assert plan.training_key(trained, "data", 1) == training
    # What a choice tried by default then; cells chosen among more are others.
    tried = {
        "certainty.certainties": ["max_prob", "neg_entropy", "margin", "reliability"],
        "certainty.fused_head": [False, True],
        "certainty.regret_weighted": [False],
    }
    then = with_fields(config, tried, "test")
    assert answer_key(training, then, method) == answer
    assert (
        plan.training_key(trained, "data")
        == plan.training_key(trained, "data", 2)
        not in (training, plan.training_key(trained, "data", 3))
    )


def test_a_cell_that_is_there_is_not_made_again_with_those_of_its_training(done: Comparison, tmp_path: Path) -> None:
    """As where the followers of a trial come later."""
    shutil.copytree(done.out / "cells", tmp_path / "cells")
    (job, *_) = planned(replace(done, out=tmp_path), tell=silent)
    paths = [cell_path(tmp_path, done.config.name, method.name, 0) for method in job.methods]
    assert len(paths) > 1
    lost, *kept = paths
    before = {path: path.stat().st_mtime_ns for path in kept}
    lost.unlink()
    assert work_off([job], replace(done, out=tmp_path), tell=silent) == []
    assert lost.is_file()
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_a_cell_keeps_the_weights_that_its_training_started_from(done: Comparison, tmp_path: Path) -> None:
    """So that the config still asks for this cell where the run that it started from has gone."""
    (finished_job,) = planned(replace(done, methods=("single:audio",), repeats=1), tell=silent)
    start = tmp_path / "start"
    shutil.copytree(done.work / finished_job.key, start)
    started = with_fields(done.config, {"compare.repeats": [{"seed": 0, "stage1.start_from": str(start)}]}, "test")
    comparison = replace(done, config=started, out=tmp_path, methods=("single:audio",))
    (job,) = planned(comparison, tell=silent)
    assert job.key != finished_job.key
    assert work_off([job], comparison, tell=silent) == []
    cell = read_cell(cell_path(tmp_path, done.config.name, "single:audio", 0))
    assert cell.started_from == weights_sha256(str(start))
    shutil.rmtree(start)
    (method,) = chosen_methods(started, ["single:audio"])
    assert coverage(started, [method], {method.name: {0: cell}}).whole
    other = cell.model_copy(update={"started_from": "0" * 64})
    assert coverage(started, [method], {method.name: {0: other}}).outdated == {method.name: [0]}


def test_what_the_config_trains_by_itself_changes_no_method(config: TrainConfig) -> None:
    joint = with_fields(config, {"stage1.objective": "joint", "stage1.joint.modulation": "ogm_ge"}, "test")
    keys = [
        {
            name: plan.training_key(plan.training_config(base, method), "data")
            for name, method in all_methods(base).items()
        }
        for base in (config, joint)
    ]
    assert keys[0] == keys[1]
    assert len({keys[1][name] for name in ("joint_concat", "ogm_ge", "dimml", "single:audio")}) == 4


def test_a_model_by_name_has_one_key_before_and_after_it_is_looked_up(config: TrainConfig) -> None:
    named = {"kind": "huggingface", "name": "some/vit"}
    found = {"model_type": "vit", "config": {"hidden_size": 8}}
    keys = set()
    for backbone in (named, {**named, **found}):
        fields = {"modalities.1.encoder.backbone": backbone, "modalities.1.encoder.features": 8}
        keys.add(plan.training_key(with_fields(config, fields, "test"), "data"))
    assert len(keys) == 1


def test_families_that_the_clips_carry_are_out_of_the_means(done: Comparison) -> None:
    found = {cell.method: cell for cell in read_cells(done.out)}
    plain, carried = (Summary(list(found.values()), contained) for contained in ((), ("pink", "white")))
    for seen, family in ((False, "pink"), (True, "white")):
        counted = plain.conditions(seen=seen, in_means=True)
        assert any(f":{family}_" in name for name in counted)
        assert carried.conditions(seen=seen, in_means=True) == [name for name in counted if family not in name]
    assert plain.conditions() == carried.conditions()
    table = tables.conditions_markdown(carried)
    assert "| audio:pink_0db † |" in table
    assert "| audio:white_0db † |" in table
    assert "| audio:voices_0db * |" in table


def test_a_run_of_the_comparison_is_told_to_be_among_it(done: Comparison, tmp_path: Path) -> None:
    job = planned(done, tell=silent)[0]
    run = shutil.copytree(done.work / job.key, tmp_path / "run")
    write_report(run, done.out)
    note = json.loads((run / "comparison.json").read_text())["note"]
    assert re.fullmatch(r"As of \d{4}-\d\d-\d\d\.", note)


def test_the_published_schedule_keeps_its_shape(config: TrainConfig) -> None:
    method = all_methods(with_fields(config, {"stage1.epochs": 30}, "test"))["dimml_published"]
    assert method.training["stage1.warmup_epochs"] == 4
    assert method.training["stage1.optimiser.step_epoch"] == 14


def test_the_repeats_of_the_config_set_their_fields(config: TrainConfig, tmp_path: Path) -> None:
    listed = with_fields(config, {"compare.repeats": [{"seed": 5}, {"seed": 6, "stage1.epochs": 3}]}, "test")
    comparison = Comparison(listed, ("late_logits",), None, tmp_path, tmp_path, tmp_path)
    assert [(j.config.seed, j.config.stage1.epochs) for j in planned(comparison, tell=silent)] == [(5, 2), (6, 3)]
    assert len(planned(replace(comparison, repeats=1), tell=silent)) == 1
    with pytest.raises(ConfigurationError, match="lists 2"):
        planned(replace(comparison, repeats=3), tell=silent)


def test_an_unknown_method_is_an_error_that_lists_them(config: TrainConfig) -> None:
    with pytest.raises(ConfigurationError, match="late_logits"):
        chosen_methods(config, ["latte"])
    assert [m.name for m in chosen_methods(config, ["dimml", "single:audio"])] == ["single:audio", "dimml"]
    assert {m.name for m in chosen_methods(config, ["all"])} == set(all_methods(config))


def test_the_command_shows_the_table_without_training(
    done: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(done.config.model_dump(mode="json")))
    options = [str(path), "--methods", ",".join(METHODS), "--seeds", "1", "--out", str(done.out)]
    options += ["--work", str(done.work), "--cache-dir", str(done.cache_dir)]
    before = state(done)
    assert main(["compare", *options, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in figures["methods"]] == list(METHODS)
    clean = read_cell(cell_path(done.out, done.config.name, "late_logits", 0)).conditions["clean"]
    assert figures["methods"][2]["clean"]["value"] == pytest.approx(np.mean(clean.accuracy), abs=1e-6)
    assert main(["compare", *options, "--table-only"]) == 0
    shown = capsys.readouterr().out
    assert "| `late_logits` |" in shown
    assert f"have been scored {looks(done.out, done.config.name)} times" in shown
    assert main(["compare", *options, "--list"]) == 0
    assert "yes" in capsys.readouterr().out
    assert {path: state(done)[path] for path in before} == before
    assert (done.out / "plots" / "stripes_methods.svg").read_text().startswith("<?xml")
    for methods in ("latte", ""):
        assert main(["compare", str(path), "--methods", methods]) == 1
        assert "there is no such method" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["compare", *options, "--methods", "single:audio, late_logits", "--out", str(tmp_path / "file")]) == 1
    assert f"cannot write to {tmp_path / 'file'}" in " ".join(capsys.readouterr().err.split())
