"""The weight of DUC is chosen on validation clips, by trials of ours that the methods on our encoders follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dimml_training.compare.cells import Cell, write_cell
from dimml_training.compare.coverage import coverage
from dimml_training.compare.methods import all_methods, chosen_methods
from dimml_training.compare.packed_cells import read_cells
from dimml_training.compare.plan import Repeat, training_config, training_key
from dimml_training.compare.rivals.trials import jobs_with_trials, settled, trial_methods, wanted_answer
from dimml_training.compare.summary import Summary
from dimml_training.compare.work import Comparison, planned, side_by_side
from dimml_training.config import TrainConfig, with_fields
from dimml_training.config.compare import CompareConfig
from support import made_up_cells, tiny_training

WEIGHTS = (0.0, 0.1, 0.3)
FOLLOWERS = {
    *("dimml_clw", "dimml_logits", "dimml_probabilities", "dimml:audio", "dimml:visual", "dimml:fused"),
    *("dimml_no_shared", "dimml_no_separation"),
}


def silent(_: str) -> None:
    """Keeps still."""


@pytest.fixture(scope="module", name="config")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    clips = tiny_training.write_clips(tmp_path_factory.mktemp("clips"))
    fields = {"compare.duc_weights": WEIGHTS, "stage1.epochs": 2, "stage2.epochs": 1}
    quick = {"certainty.certainties": ["max_prob"], "certainty.folds": 2, "fusion": None}
    return with_fields(tiny_training.configured(clips), fields | quick, "test")


@pytest.fixture(scope="module", name="repeat")
def first_repeat(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Repeat:
    folder = tmp_path_factory.mktemp("planned")
    jobs = planned(Comparison(config, ("late_logits",), 1, folder, folder, folder), tell=silent)
    return jobs[0].repeat


def trial_cells(config: TrainConfig, data_digest: str, scores: Sequence[float]) -> list[Cell]:
    """Cells of trials with these mean accuracies by the choice; on its own clips each looks better than the last."""
    found = []
    for number, (trial, score) in enumerate(zip(trial_methods(all_methods(config)["dimml"]), scores, strict=True)):
        made, _ = made_up_cells.cell(trial.name, 0, 0.2 + 0.1 * number)
        changed: dict[str, Any] = {
            "data": config.name,
            "data_digest": data_digest,
            "answer": wanted_answer(trial, config, data_digest),
            "validation": dict.fromkeys(made.conditions, 0.5 + 0.1 * number),
            "fusion": {"chosen": {"mean_accuracy": score, "objective": 1.0 - score}},
        }
        found.append(made.model_copy(update=changed))
    return found


def weight_of(config: TrainConfig, name: str, repeat: Repeat, out: Path) -> float | None:
    found = settled(all_methods(config)[name], repeat, out)
    return None if found is None else training_config(config, found).stage1.lambda_duc


@pytest.mark.parametrize(
    ("scores", "weight"),
    [
        ((0.8, 0.8, 0.8), 0.0),
        ((0.7, 0.8, 0.9), 0.3),
        ((0.8, 0.9, 0.9), 0.1),
        # A hundredth of the least error, 0.1, is 0.001.
        ((0.8991, 0.8, 0.9), 0.0),
        ((0.8989, 0.8, 0.9), 0.3),
        ((0.8989, 0.8991, 0.9), 0.1),
    ],
)
def test_ties_go_to_the_smaller_weight(
    config: TrainConfig, repeat: Repeat, tmp_path: Path, scores: tuple[float, ...], weight: float
) -> None:
    first, *others = trial_cells(config, repeat.data.digest, scores)
    for cell in others:
        write_cell(tmp_path, cell)
    assert weight_of(config, "dimml", repeat, tmp_path) is None
    assert weight_of(config, "dimml_clw", repeat, tmp_path) is None
    write_cell(tmp_path, first)
    assert weight_of(config, "dimml", repeat, tmp_path) == weight
    assert {weight_of(config, name, repeat, tmp_path) for name in FOLLOWERS} == {weight}


def test_what_follows_keeps_its_own_training_and_what_does_not_keeps_its_weight(
    config: TrainConfig, repeat: Repeat, tmp_path: Path
) -> None:
    for cell in trial_cells(config, repeat.data.digest, (0.5, 0.9, 0.5)):
        write_cell(tmp_path, cell)
    known = all_methods(config)
    assert {name for name, method in known.items() if method.follows is not None} == FOLLOWERS
    fixed = {"dimml_published": 1.0, "dimml_no_duc": 0.0, "late_logits": 0.0, "separate_chosen": 0.0}
    assert {name: weight_of(config, name, repeat, tmp_path) for name in fixed} == fixed
    ablations = {name: settled(known[name], repeat, tmp_path) for name in ("dimml_no_shared", "dimml_no_separation")}
    stages = {name: training_config(config, found).stage1 for name, found in ablations.items() if found is not None}
    assert stages["dimml_no_shared"].lambda_shared == 0.0
    assert not stages["dimml_no_separation"].separation
    # What is settled has the key of a config that says so itself.
    by_hand = with_fields(config, {"stage1.lambda_duc": 0.1, "compare": {}}, "test")
    for name in FOLLOWERS | {"dimml"}:
        found = settled(known[name], repeat, tmp_path)
        assert found is not None
        theirs = training_config(by_hand, all_methods(by_hand)[name])
        assert training_key(training_config(config, found), "data") == training_key(theirs, "data")


@pytest.mark.parametrize(("scores", "together"), [((0.9, 0.9, 0.9), True), ((0.5, 0.5, 0.9), False)])
def test_without_duc_is_ours_where_its_weight_is_settled_at_0(
    config: TrainConfig, repeat: Repeat, tmp_path: Path, scores: tuple[float, ...], together: bool
) -> None:
    for cell in trial_cells(config, repeat.data.digest, scores):
        write_cell(tmp_path, cell)
    methods = chosen_methods(config, ["dimml", "dimml_no_duc"])
    jobs = jobs_with_trials(methods, [repeat], tmp_path)
    assert len(jobs) == len(WEIGHTS)
    (ours,) = (job for job in jobs if "dimml" in {method.name for method in job.methods})
    assert ("dimml_no_duc" in {method.name for method in ours.methods}) == together


def test_a_follower_alone_is_settled_by_the_same_trials(config: TrainConfig, repeat: Repeat, tmp_path: Path) -> None:
    jobs = jobs_with_trials(chosen_methods(config, ["dimml_clw", "dimml:fused"]), [repeat, repeat], tmp_path)
    assert [[method.name for method in job.methods] for job in jobs] == [["dimml@0"], ["dimml@1"], ["dimml@2"]]
    assert [job.config.stage1.lambda_duc for job in jobs] == list(WEIGHTS)


def test_weights_are_tried_from_the_smallest_each_once(config: TrainConfig) -> None:
    turned = with_fields(config, {"compare.duc_weights": [0.3, 0.0, 0.1, 0.3]}, "test")
    assert trial_methods(all_methods(turned)["dimml"]) == trial_methods(all_methods(config)["dimml"])
    none = with_fields(config, {"compare.duc_weights": []}, "test")
    assert [trial_methods(all_methods(none)[name]) for name in ("dimml", "dimml_clw")] == [[], []]
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValidationError, match="duc_weights"):
            CompareConfig(duc_weights=(wrong,))


def test_coverage_asks_for_trials_and_for_what_they_settled(config: TrainConfig) -> None:
    one = with_fields(config, {"compare.repeats": [{"seed": 0}]}, "test")
    methods = chosen_methods(one, ["dimml", "dimml_clw", "late_logits"])
    trials = {cell.method: {0: cell} for cell in trial_cells(one, "d", (0.5, 0.9, 0.5))}

    def of_weight(name: str, weight: float) -> dict[int, Cell]:
        by_hand = with_fields(one, {"stage1.lambda_duc": weight, "compare.duc_weights": []}, "test")
        made, _ = made_up_cells.cell(name, 0, 0.5)
        return {0: made.model_copy(update={"answer": wanted_answer(all_methods(by_hand)[name], by_hand, "d")})}

    right = {name: of_weight(name, 0.1) for name in ("dimml", "dimml_clw", "late_logits")}
    assert coverage(one, methods, right | trials).whole
    wrong = right | {"dimml_clw": of_weight("dimml_clw", 0.3)}
    assert coverage(one, methods, wrong | trials).outdated == {"dimml_clw": [0]}
    # Before all trials are there, any of them may be the one.
    less = {name: of for name, of in trials.items() if name != "dimml@1"}
    found = coverage(one, methods, wrong | less)
    assert (found.missing, found.outdated) == ({"dimml@1": [0]}, {})
    never = right | {"dimml": of_weight("dimml", 0.2)}
    assert coverage(one, methods, never | less).outdated == {"dimml": [0]}
    old = {name: {0: of[0].model_copy(update={"answer": "old"})} for name, of in trials.items()}
    assert coverage(one, methods, right | old).outdated == {name: [0] for name in trials}


@pytest.mark.slow(reason="trains three or four times")
def test_trials_are_trained_once_and_followed_on_all_repeats(config: TrainConfig, tmp_path: Path) -> None:
    config = with_fields(config, {"compare.duc_weights": WEIGHTS[::2]}, "test")
    methods = ("dimml", "dimml_clw", "dimml_no_duc")
    comparison = Comparison(config, methods, 2, tmp_path / "out", tmp_path / "work", tmp_path / "cache")
    assert side_by_side(comparison, 1, tell=silent) == []
    cells = {(cell.method, cell.repeat): cell for cell in read_cells(comparison.out)}
    trials = [cells[f"dimml@{number}", 0] for number in (0, 1)]
    assert set(cells) == {(name, repeat) for name in methods for repeat in (0, 1)} | {(t.method, 0) for t in trials}
    errors = [1.0 - (trial.fusion or {})["chosen"]["mean_accuracy"] for trial in trials]
    best = next(index for index, error in enumerate(errors) if error <= 1.01 * min(errors) + 1e-9)
    assert cells["dimml", 0].training == cells["dimml_clw", 0].training == trials[best].training
    assert cells["dimml", 1].training == cells["dimml_clw", 1].training != cells["dimml", 0].training
    assert cells["dimml_no_duc", 0].training == trials[0].training
    assert (cells["dimml_no_duc", 1].training == cells["dimml", 1].training) == (best == 0)
    assert set(Summary(list(cells.values())).methods) == set(methods)
    said: list[str] = []
    assert side_by_side(comparison, 1, tell=said.append) == []
    runs = len(list(comparison.work.rglob("run.json")))
    assert said == [f"{runs} trainings, {runs} of them done"] * 2
