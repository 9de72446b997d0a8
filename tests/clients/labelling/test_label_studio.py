"""Tasks for Label Studio and its export: what is written, what is refused, and the clip table that training reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from scipy.stats import binomtest

from dimml.cli import main
from dimml.errors import ConfigurationError, DataError
from dimml_client.labelling.annotations import read_export
from dimml_client.labelling.clip_table import accuracy_by_lot, wilson_interval
from dimml_client.labelling.selection import Chosen, Selection, read_selection, write_selection
from dimml_client.labelling.tasks import Locations, interface, player_of, task
from dimml_training.config import DataConfig
from dimml_training.data.manifest import read_clip_table
from support.score_tables import LABELS, answer, failed, write_table

ODD = ("<none>", 'say "four"', "drei & vier")


def chosen(number: int = 1, reason: Any = "unsure", **changes: Any) -> Chosen:
    given = {"key": f"clip{number}", "id": f"clip{number}", "parts": {"media": f"/data/clip {number}.mp4"}}
    return Chosen(**{**given, "label": "1", "probability": 0.625, "reason": reason, **changes})


def selection(*rows: Chosen, labels: tuple[str, ...] = LABELS) -> Selection:
    return Selection(bundle="door", version=3, labels=labels, seed=0, random_share=0.2, chosen=rows)


def test_a_task_has_the_recording_and_the_answer_as_a_prediction() -> None:
    one = chosen(start_s=0.25, end_s=2.0)
    made = task(one, selection(one), Locations("/data/local-files/?d=", Path("/data")), ["media"])
    assert made["data"] == {
        "key": "clip1",
        "id": "clip1",
        "reason": "unsure",
        "media": "/data/local-files/?d=clip%201.mp4",
        "range": "from 0.25 s to 2.00 s",
    }
    (prediction,) = made["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("door:3", 0.625)
    (result,) = prediction["result"]
    assert (result["from_name"], result["to_name"], result["type"]) == ("label", "media", "choices")
    assert result["value"] == {"choices": ["1"]}


def test_what_was_drawn_by_lot_suggests_nothing() -> None:
    one = chosen(reason="random")
    assert "predictions" not in task(one, selection(one), Locations(), ["media"])


def test_every_part_has_a_player_and_every_label_a_choice() -> None:
    root = ElementTree.fromstring(  # noqa: S314  # our own
        interface(ODD, ["audio", "visual"], "video")
    )
    assert [(tag.get("name"), tag.get("value")) for tag in root.iter("Video")] == [
        ("path_audio", "$path_audio"),
        ("path_visual", "$path_visual"),
    ]
    assert tuple(choice.get("value") for choice in root.iter("Choice")) == ODD
    (choices,) = root.iter("Choices")
    assert (choices.get("name"), choices.get("toName"), choices.get("choice")) == ("label", "path_audio", "single")
    two = chosen(parts={"audio": "/a.wav"})
    data = task(two, selection(two), Locations(), ["audio", "visual"])["data"]
    assert (data["path_audio"], data["path_visual"]) == ("/a.wav", "")


def test_recordings_stand_below_the_root_or_keep_their_url() -> None:
    below = Locations("http://files.test/", Path("/data"))
    assert below.url("/data/a/b.wav") == "http://files.test/a/b.wav"
    assert below.url("s3://bucket/b.wav") == "s3://bucket/b.wav"
    assert Locations().url("/data/b.wav") == "/data/b.wav"
    with pytest.raises(ConfigurationError, match=r"/else/b\.wav does not stand below --root /data"):
        below.url("/else/b.wav")
    with pytest.raises(ConfigurationError, match="--root goes with --media-url"):
        Locations(root=Path("/data"))


@pytest.mark.parametrize(
    ("names", "player"),
    [(["a.mp4", "b.webm"], "video"), (["a.wav"], "audio"), (["a.mp4", "b.wav"], "video"), (["a.png"], "image")],
)
def test_the_player_is_what_the_names_say(names: list[str], player: str) -> None:
    assert player_of([chosen(parts={"media": name}) for name in names]) == player


@pytest.mark.parametrize("names", [["a.mp4", "b.png"], ["a.mp4", "b"], ["clip"]])
def test_names_that_say_nothing_ask_for_a_player(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="--player video, audio or image"):
        player_of([chosen(parts={"media": name}) for name in names])


def annotated(key: str, *labels: str, **annotation: Any) -> dict[str, Any]:
    """A task of an export, with an annotation for each label, as Label Studio 1.23 writes it."""
    annotations = [
        {"id": 7, "was_cancelled": False, "ground_truth": False, "result": [choice(label)], **annotation}
        for label in labels
    ]
    return {"id": 11, "data": {"key": key}, "annotations": annotations, "predictions": [5]}


def choice(*labels: str) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "media", "type": "choices", "value": {"choices": list(labels)}}


def exported(path: Path, *tasks: Any) -> Path:
    path.write_text(json.dumps(tasks))
    return path


def test_labels_come_back_and_what_has_none_is_counted(tmp_path: Path) -> None:
    truth = annotated("clip4", "0", "1")
    truth["annotations"][1]["ground_truth"] = True
    elsewhere = {"from_name": "comment", "type": "textarea", "value": {"text": ["windy"]}}
    export = exported(
        tmp_path / "export.json",
        annotated("clip1", "2"),
        annotated("clip2", "1", was_cancelled=True),
        annotated("clip3", "0", "1"),
        truth,
        annotated("clip5"),
        annotated("clip6", "1", result=[elsewhere]),
        annotated("clip7", "0", "0"),
    )
    found = read_export(export, selection(*(chosen(n) for n in range(1, 8))))
    assert [(one.key, label) for one, label in found.labels] == [("clip1", "2"), ("clip4", "1"), ("clip7", "0")]
    assert found.unlabelled == ["clip2", "clip5", "clip6"]
    assert found.disputed == ["clip3"]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([annotated("clip9", "1")], "task 11: its key 'clip9' is not in the selection"),
        ([{**annotated("clip1", "1"), "data": {}}], "its key None is not in the selection"),
        ([annotated("clip1", "1")] * 2, "'clip1' stands twice"),
        (
            [annotated("clip1", "seven")],
            "the label 'seven', which door:3 does not know; it has 0, 1, 2",
        ),
        ([annotated("clip1", "1", result=[choice("1", "2")])], "an annotation has 2 labels, '1', '2'"),
        ([annotated("clip1", "1", result=None)], "an annotation has no result"),
        ([annotated("clip1", "1", result=[{**choice(), "value": {"text": "1"}}])], "for a choice"),
        ([{**annotated("clip1", "1"), "annotations": 3}], "no list of objects"),
        ([{**annotated("clip1"), "predictions": [{"result": [choice("x")]}]}], "a prediction has the label 'x'"),
        ([{**annotated("clip1"), "predictions": [{"result": [], "score": 1.5}]}], "the score 1.5, which is not from 0"),
        ([{"id": 1, "key": "clip1", "label": "1"}], "choose the format JSON in Label Studio's export, not JSON-MIN"),
        ({"tasks": []}, "is no list of tasks"),
    ],
)
def test_an_export_that_does_not_fit_is_refused(tmp_path: Path, tasks: Any, message: str) -> None:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    with pytest.raises(DataError) as caught:
        read_export(path, selection(chosen(1)))
    assert message in caught.value.message


def test_what_is_no_json_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("id,label")
    with pytest.raises(DataError, match="is no JSON"):
        read_export(tmp_path / "export.json", selection())
    with pytest.raises(DataError, match="cannot read"):
        read_export(tmp_path / "none.json", selection())


def test_a_selection_is_read_as_written_and_a_damaged_one_names_its_field(tmp_path: Path) -> None:
    path, written = tmp_path / "selection.json", selection(chosen(1), chosen(2, "random", end_s=2.0))
    write_selection(path, written)
    assert read_selection(path) == written
    path.write_text(path.read_text().replace("0.625", "1.5", 1))
    with pytest.raises(DataError, match=r"chosen\.0\.probability: Input should be less than or equal to 1"):
        read_selection(path)
    path.write_text(selection(chosen(1), chosen(2)).model_dump_json().replace("clip2", "clip1"))
    with pytest.raises(DataError, match="chosen names 'clip1' twice"):
        read_selection(path)


def test_the_lot_alone_says_how_often_the_bundle_is_right() -> None:
    labels = [(chosen(1, "random"), "1"), (chosen(2, "random", probability=0.5), "2"), (chosen(3), "2")]
    found = accuracy_by_lot(labels)
    assert found is not None
    assert (found.right, found.count, found.share, found.estimated) == (1, 2, 0.5, (0.625 + 0.5) / 2)
    assert accuracy_by_lot(labels[2:]) is None


@pytest.mark.parametrize(("right", "count"), [(0, 5), (3, 5), (40, 40), (171, 200)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson_interval(right, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_loop_from_a_score_table_to_a_clip_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [answer(n, (0.6, 0.3, 0.1), path=str(tmp_path / f"clip{n}.mp4")) for n in range(20)]
    table = write_table(tmp_path / "t.parquet", [*rows, failed(1)])
    for row in rows:
        Path(row["path"]).touch()
    out = tmp_path / "round"
    assert main(["select", str(table), "--budget", "10", "--out", str(out), "--seed", "3", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts == {
        "candidates": 20,
        "left_out": {"no answer": 1},
        "chosen": 10,
        "reasons": {"random": 2, "unsure": 8},
    }
    tasks = json.loads((out / "tasks.json").read_text())
    assert main(["select", str(table), "--budget", "10", "--out", str(out)]) == 1, "the selection stays"
    # Another round takes none of them again.
    again = [str(table), "--budget", "99", "--out", str(tmp_path / "second"), "--without", str(out / "selection.json")]
    assert main(["select", *again]) == 0
    keys = {one.key for one in read_selection(out / "selection.json").chosen}
    second = {one.key for one in read_selection(tmp_path / "second" / "selection.json").chosen}
    assert (len(keys), len(second), keys & second) == (10, 10, set())
    export = exported(
        tmp_path / "export.json", *(annotated(one["data"]["key"], LABELS[n % 3]) for n, one in enumerate(tasks))
    )
    capsys.readouterr()
    labels = [str(export), "--selection", str(out / "selection.json"), "--out", str(tmp_path / "clips.csv")]
    assert main(["read-labels", *labels]) == 0
    assert "drawn by lot: 1 of 2 answers right, 50.0% (95 % interval 9.5% to 90.5%)" in capsys.readouterr().err
    with (tmp_path / "clips.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["split"] for row in written] == ["validation"] * 2 + ["train"] * 8
    columns = {"start_s": "start_s", "end_s": "end_s"}
    config = DataConfig.model_validate({"manifest": str(tmp_path / "clips.csv"), "labels": LABELS, "columns": columns})
    found = read_clip_table(config, ["audio", "visual"])
    assert found.problems == ["the test split is empty: no usable clip has split='test'"]
    assert [(clip.label, clip.split, clip.labelled_s) for clip in found.clips[:3]] == [
        ("0", "validation", (0.0, 1.5)),
        ("1", "validation", (0.0, 1.5)),
        ("2", "train", (0.0, 1.5)),
    ]
