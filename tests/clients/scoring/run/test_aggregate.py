"""One row over the windows of a recording, against figures by hand."""

from __future__ import annotations

import pytest

from dimml_client.scoring.run.aggregate import Aggregation, Aggregator
from dimml_client.scoring.table.rows import Row
from dimml_client.scoring.table.schema import ScoredBundle

BUNDLE = ScoredBundle("b", 1, ("x", "y"), ("a", "v"), True, "0")


def window(
    number: int, x: float | None, *, a: str = "ok", vote: str | None = "x", certainty: float | None = 0.5
) -> Row:
    row: Row = {"id": "r", "kind": "window", "window": number, "start_s": 2.0 * number, "end_s": 2.0 * number + 2.0}
    row |= {"ms": 3.0, "a_status": a, "a_certainty": certainty, "a_weight": certainty and 0.25, "a_label": vote}
    row["v_status"] = "unusable:frozen"
    if x is None:
        return row | {"error": "unusable_media", "message": "nothing", "degraded": False}
    answer = "x" if x > 0.5 else "y"
    return row | {"label": answer, "probability_x": x, "probability_y": 1.0 - x, "degraded": a != "ok"}


WINDOWS = [
    window(0, 0.95),
    window(1, 0.2, vote="y", certainty=1.0),
    window(2, None, a="unusable:silent", vote=None, certainty=None),
    window(3, 0.4, a="unusable:silent", vote=None, certainty=None),
]


@pytest.mark.parametrize(
    ("how", "x"), [("mean", (0.95 + 0.2 + 0.4) / 3), ("max", 0.95 / (0.95 + 0.8)), ("vote", 1.0 / 3.0)]
)
def test_windows_become_a_row(how: Aggregation, x: float) -> None:
    aggregator = Aggregator(how, BUNDLE)
    for row in WINDOWS:
        aggregator.add(row)
    found = aggregator.take()
    assert found["kind"] == "aggregate"
    assert found["probability_x"] == pytest.approx(x)
    assert found["probability_y"] == pytest.approx(1.0 - x)
    assert found["label"] == ("x" if x > 0.5 else "y")
    assert (found["start_s"], found["end_s"], found["ms"]) == (0.0, 8.0, 12.0)
    assert (found["a_status"], found["v_status"], found["degraded"]) == ("ok", "unusable:frozen", True)
    # Certainty is of the two windows in which it was ok, weight of the three with an answer.
    assert (found["a_certainty"], found["a_weight"]) == (0.75, pytest.approx((0.25 + 0.25 + 0.0) / 3))
    assert (found["a_label"], found["a_probability"]) == ("x", 0.5)
    assert "v_label" not in found
    assert "error" not in found


def test_where_no_window_has_an_answer_the_row_has_the_first_error_and_the_next_begins_anew() -> None:
    aggregator = Aggregator("mean", BUNDLE)
    aggregator.add(WINDOWS[2])
    found = aggregator.take()
    assert (found["error"], found["message"], found["a_status"]) == ("unusable_media", "nothing", "unusable:silent")
    assert "label" not in found
    aggregator.add(WINDOWS[0])
    assert aggregator.take()["probability_x"] == pytest.approx(0.95)
