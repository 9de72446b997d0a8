"""A training that chooses its fusion, and ``dimml calibrate``, on clips small enough for a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dimml.cli import main
from dimml.errors import ConfigurationError
from dimml_training.config import parse_config
from dimml_training.config.corruption_suite import Condition, conditions
from dimml_training.data.prepare import prepare
from dimml_training.evaluation.heads import figures, fused_answer, head_logits
from dimml_training.fusion_selection.choose import choice_conditions, choose_on, spread
from dimml_training.loop.train import train
from dimml_training.run.directory import load_run
from dimml_training.run.fusion import read_fusion
from dimml_training.run.prediction_sets import read_sets, write_sets
from support.tiny_training import configured, document, write_clips


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run directory and cache."""
    folder = tmp_path_factory.mktemp("choice")
    wanted: dict[str, Any] = document(write_clips(folder)) | {"certainty": {"draws": 1, "temperatures": [0.5]}}
    del wanted["fusion"]
    train(parse_config(wanted, "test"), folder / "run", cache_dir=folder / "cache")
    return folder / "run", folder / "cache"


def test_the_run_answers_with_what_was_chosen(trained: tuple[Path, Path]) -> None:
    folder, cache = trained
    run = load_run(folder)
    kept = read_fusion(folder)
    assert kept is not None
    assert run.fusion == kept[0]
    assert run.fusion_report["chosen"]["spec"] == run.fusion.model_dump(mode="json")
    assert run.fused_head is not None  # its own figures stand in the table, voting or not
    assert run.config.fusion is None
    data = prepare(run.config, cache)
    votes = head_logits(run.encoders, run.fused_head, run.modalities, data.splits["test"].rows, run.quality)
    found = figures(votes, fused_answer(votes, run.fusion, run.fusion_parameters), run.labels)
    assert found == run.metrics["test"]
    assert list(found["heads"]) == ["audio", "visual", "fused"]
    assert (found["heads"]["fused"]["mean_weight"] > 0) == run.fusion.fused_head


def test_test_clips_change_no_choice(trained: tuple[Path, Path]) -> None:
    """The choice is made of training and validation clips: with these alone it is the same."""
    folder, cache = trained
    run = load_run(folder)
    data = prepare(run.config, cache, splits=("train", "validation"), labels=run.labels)
    again = choose_on(
        run.config,
        run.encoders,
        run.fused_head,
        train=data.splits["train"].rows,
        validation=data.splits["validation"].rows,
    )
    assert again.spec == run.fusion
    assert again.report["validation_clips"] == len(data.splits["validation"].rows)


def test_calibrate_chooses_again_and_keeps_the_old_choice(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, cache = trained
    chosen = json.loads((folder / "fusion.json").read_text())
    other = {"certainty": "margin", "temperature": 0.123, "fused_head": True}
    before = json.dumps({**chosen, "spec": other, "parameters_sha256": None})
    (folder / "fusion.json").write_text(before)
    (folder / "corruptions.json").write_text(json.dumps({"conditions": {}}))
    assert main(["calibrate", str(folder), "--cache-dir", str(cache), "--json"]) == 0
    assert (folder / "fusion.previous.json").read_text() == before
    run = load_run(folder)
    output = capsys.readouterr()
    assert not (folder / "corruptions.json").exists(), "it told of the choice before"
    assert "corruptions.previous.json" in output.err
    printed = json.loads(output.out)
    assert printed["chosen"]["spec"] == run.fusion.model_dump(mode="json")
    assert printed["metrics"] == run.metrics


def test_calibrate_keeps_the_corruption_figures_of_the_same_choice(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, cache = trained
    (folder / "corruptions.json").write_text(json.dumps({"conditions": {}}))
    assert main(["calibrate", str(folder), "--cache-dir", str(cache), "--json"]) == 0
    assert (folder / "corruptions.json").is_file(), "it tells of this very choice"
    assert "corruptions.previous.json" not in capsys.readouterr().err


def test_sets_of_a_chosen_fusion_are_calibrated_by_parts_and_stale_once_another_is_chosen(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, cache = trained
    before = (folder / "fusion.json").read_bytes()
    assert main(["calibrate", str(folder), "--coverage", "0.8", "--cache-dir", str(cache)]) == 0
    assert (folder / "fusion.json").read_bytes() == before, "the fusion stays"
    kept = read_sets(folder)
    assert kept is not None
    assert kept.sets.folds == 5
    write_sets(folder, kept.model_copy(update={"fusion_sha256": "0" * 64}))
    capsys.readouterr()
    assert main(["calibrate", str(folder), "--cache-dir", str(cache)]) == 0
    assert "prediction_sets.json is of the previous fusion" in capsys.readouterr().err.replace("\n", " ")


def test_a_fixed_fusion_is_kept_until_another_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configured(write_clips(tmp_path))
    train(config, tmp_path / "run", cache_dir=tmp_path / "cache")
    run = load_run(tmp_path / "run")
    assert run.fusion == config.fusion
    assert not (tmp_path / "run" / "fusion.json").exists()
    before = (tmp_path / "run" / "metrics.json").read_text()
    assert main(["calibrate", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "cache")]) == 0
    assert "config fixes its fusion" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "run" / "metrics.previous.json").read_text() == before


def test_a_joint_training_has_nothing_to_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = document(write_clips(tmp_path), objective="joint", epochs=1)
    del wanted["fusion"]
    train(parse_config(wanted, "test"), tmp_path / "run", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "run" / "fusion.json").exists()
    assert main(["calibrate", str(tmp_path / "run"), "--cache-dir", str(tmp_path)]) != 0
    assert "joint training" in " ".join(capsys.readouterr().err.split())


def test_reliability_cannot_be_fixed_by_name(tmp_path: Path) -> None:
    wanted = document(tmp_path / "clips.csv") | {"fusion": {"certainty": "reliability", "fused_head": False}}
    with pytest.raises(ConfigurationError, match=r"certainty\.certainties"):
        parse_config(wanted, "test")


def test_spread_takes_clips_evenly(tmp_path: Path) -> None:
    rows = prepare(configured(write_clips(tmp_path)), tmp_path / "cache").splits["train"].rows
    assert spread(rows, 3).slots.tolist() == rows.slots[[0, 4, 9]].tolist()
    assert len(spread(rows, 99)) == len(rows)


def test_a_choice_sees_every_damage_once_and_learns_from_chains_alone_what_it_is_not_judged_on(tmp_path: Path) -> None:
    """Pairs are judged and learned from; no condition of the same name stands for two things."""
    wanted = document(tmp_path)
    del wanted["fusion"]

    def conditions_of(**certainty: Any) -> list[Condition]:
        return choice_conditions(parse_config(wanted | {"certainty": certainty}, "test"))

    found = conditions_of()
    assert len({c.name for c in found}) == len(found)
    damage = [tuple(sorted((m, str(c)) for m, c in condition.by_modality.items())) for condition in found]
    assert len(set(damage)) == len(damage)
    judged = [c for c in found if c.group != "composed"]
    assert found[: len(judged)] == judged
    assert {len(c.by_modality) for c in found[len(judged) :]} == {1}
    suite = {c.name for c in conditions(parse_config(wanted, "test").inputs, "seen")}
    pairs = [c for c in judged if c.name not in suite]
    assert len(pairs) == 8
    assert {(c.group, c.in_means, len(c.by_modality)) for c in pairs} == {("both", True, 2)}
    form = {"pooling": "product", "temperature": None, "fused_head": True}
    assert conditions_of(certainties=["margin", "reliability"]) == judged
    wider = conditions_of(kin=True)
    assert [c for c in wider if c.group != "kin"] == found
    assert {c.group for c in wider[len(judged) : -(len(found) - len(judged))]} == {"kin"}
    assert conditions_of(kin=True, certainties=["margin"]) == judged
    assert conditions_of(form={"certainty": "reliability"} | form) == judged
    assert conditions_of(certainties=["margin"], form={"certainty": "cross_reliability"} | form) == found


def test_kin_is_learned_from_where_all_that_it_resembles_is_allowed(tmp_path: Path) -> None:
    wanted = document(write_clips(tmp_path))
    del wanted["fusion"]
    certainty = {"certainties": ["reliability"], "kin": True}

    def kin(**more: Any) -> set[str]:
        config = parse_config(wanted | {"certainty": certainty | more}, "test")
        return {c.name.partition(":")[2] for c in choice_conditions(config) if c.group == "kin"}

    every = kin()
    assert {"coloured_noise", "training_voices", "room", "overdrive", "sheet", "exposure", "warp"} <= every
    few = kin(families=["white", "grey_box", "darkness", "glare"])
    alone = {name for name in few if "+" not in name}
    # White noise has coloured noise near it, a grey box the occluders; 'exposure' is near to fading too, which is not
    # there; rooms, overdrive and warping resemble no family of the suite.
    assert alone == {"coloured_noise", "room", "overdrive", "sheet", "thing", "collage", "warp"}
    assert {part for name in few for part in name.split("+")} == alone, "pairs of kin likewise"
    assert few < every
    assert kin(families=[]) - {"room+warp", "overdrive+warp"} == {"room", "overdrive", "warp"}
