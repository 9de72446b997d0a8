"""Remarks on metrics, counted by hand."""

from __future__ import annotations

from typing import Any

from dimml_training.evaluation.remarks import duc_remarks, metric_remarks


def metrics(confusion: list[list[int]], **heads: float) -> dict[str, Any]:
    """Metrics of a split whose answers give this matrix, with the accuracy of each head."""
    clips = sum(map(sum, confusion))
    right = sum(row[index] for index, row in enumerate(confusion))
    return {
        "confusion": confusion,
        "accuracy": right / clips,
        "heads": {head: {"accuracy": accuracy} for head, accuracy in heads.items()},
    }


def test_nothing_is_remarked_where_all_is_well() -> None:
    assert metric_remarks(metrics([[28, 2], [3, 27]], audio=51 / 60, visual=40 / 60)) == []


def test_heads_no_better_than_the_most_frequent_class_are_named() -> None:
    """Of 60 clips 40 are of the first class: who always says it is right on 40."""
    found = metrics([[38, 2], [3, 17]], audio=41 / 60, visual=40 / 60, fused=12 / 60)
    assert metric_remarks(found) == [
        "visual, fused are no better than always answering the most frequent class, which is right on 40 of 60 clips"
    ]
    blind = metric_remarks(metrics([[40, 0], [20, 0]], audio=50 / 60))
    assert blind[0].startswith("the answer is no better than always answering the most frequent class")


def test_figures_that_rest_on_one_clip_are_pointed_out() -> None:
    found = metrics([[3, 0, 0], [0, 1, 0], [1, 0, 0]], audio=4 / 5, visual=2 / 5)
    assert metric_remarks(found, ["yes", "no", "maybe"]) == [
        "visual is no better than always answering the most frequent class, which is right on 3 of 5 clips",
        "5 clips: each moves an accuracy by 20 points",
        "macro-F1 rests on one clip for each of the classes no, maybe",
    ]
    close = metrics([[30, 0], [1, 29]], audio=58 / 60, visual=50 / 60)
    assert metric_remarks(close) == ["the answer is right on one clip more than audio alone: that may be chance"]


def test_the_jump_of_the_loss_is_explained_in_the_epoch_in_which_duc_joins() -> None:
    rows = [
        {"epoch": float(epoch), "train_loss": loss, "train_loss_duc": duc}
        for epoch, (loss, duc) in enumerate([(2.0, 0.0), (1.5, 0.0), (5.25, 3.75), (5.0, 3.5)])
    ]
    remark = (
        "the loss rises from 1.500 to 5.250 in epoch 3 because DUC joins it, with 3.750: as intended; compare it with "
        "later epochs only"
    )
    assert duc_remarks([*rows, {"stage2_epoch": 0.0}]) == [remark]
    assert duc_remarks(rows[1:3]) == [remark]
    assert duc_remarks(rows[:2]) == duc_remarks(rows[2:]) == duc_remarks([]) == []
