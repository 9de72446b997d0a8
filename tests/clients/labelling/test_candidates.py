"""Candidates of a score table: the same from every format, and what makes a row one."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from dimml.errors import DataError
from dimml_client.labelling.candidates import read_candidates
from support.score_tables import LABELS, answer, failed, write_table

SURE = (0.9, 0.06, 0.04)
AT_ODDS = {"audio": ("1", 0.75), "visual": ("2", 0.5)}


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_every_format_gives_the_same_candidates(tmp_path: Path, ending: str) -> None:
    rows = [
        failed(0),
        answer(1, SURE, votes={"audio": ("0", 0.8), "visual": ("0", 0.9)}, abstained=False),
        answer(2, SURE, truth="0", abstained=False),
        answer(3, (0.25, 0.5, 0.25), votes=AT_ODDS, abstained=True),
        answer(4, SURE, abstained=False),
    ]
    found = read_candidates(write_table(tmp_path / f"t.{ending}", rows, abstention=True), {"clip4"})
    assert (found.bundle, found.version, found.labels) == ("door", 3, LABELS)
    assert found.left_out == {"no answer": 1, "labelled": 1, "chosen before": 1}
    assert [(row.key, row.label, row.abstained) for row in found.rows] == [("clip1", "0", False), ("clip3", "1", True)]
    assert [row.doubt for row in found.rows] == pytest.approx([0.1, 0.5], abs=1e-6)
    assert [row.disagreement for row in found.rows] == [0.0, 0.75 * 0.5]
    assert found.rows[0].parts == {"media": "/data/clip 1.mp4"}


def test_a_table_of_before_abstention_has_none_that_abstained(tmp_path: Path) -> None:
    found = read_candidates(write_table(tmp_path / "t.csv", [answer(1, SURE)]))
    assert [row.abstained for row in found.rows] == [False]


def test_a_modality_that_is_not_ok_does_not_disagree(tmp_path: Path) -> None:
    row = answer(1, SURE, votes=AT_ODDS) | {"visual_status": "unusable:black"}
    assert read_candidates(write_table(tmp_path / "t.parquet", [row])).rows[0].disagreement == 0.0


def test_modalities_with_files_of_their_own_are_parts(tmp_path: Path) -> None:
    row = answer(1, SURE, path="/a.wav + /v.mp4", path_audio="/a.wav", path_visual="/v.mp4")
    found = read_candidates(write_table(tmp_path / "t.parquet", [row]))
    assert found.rows[0].parts == {"audio": "/a.wav", "visual": "/v.mp4"}


def test_aggregates_stand_for_their_windows(tmp_path: Path) -> None:
    windows = [answer(1, SURE, kind="window", window=n, start_s=float(n), end_s=n + 1.0) for n in range(2)]
    whole = answer(1, SURE, kind="aggregate", start_s=0.0, end_s=2.0)
    found = read_candidates(write_table(tmp_path / "t.parquet", [*windows, whole], aggregate="mean"))
    assert [(row.key, row.end_s) for row in found.rows] == [("clip1", 2.0)]
    assert found.left_out == {"windows of aggregates": 2}
    found = read_candidates(write_table(tmp_path / "u.parquet", windows))
    assert [row.key for row in found.rows] == ["clip1@0-1", "clip1@1-2"]


def test_distances_are_hellingers_over_answer_and_votes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    answers, shares = rng.dirichlet(np.ones(3), 6), rng.uniform(0.4, 1.0, (6, 2))
    votes = rng.integers(0, 3, (6, 2))
    rows = [
        answer(n, answers[n].tolist(), votes={m: (LABELS[votes[n, i]], shares[n, i]) for i, m in enumerate(AT_ODDS)})
        for n in range(6)
    ]
    vectors = read_candidates(write_table(tmp_path / "t.parquet", rows)).vectors_ND
    for one, other in combinations(range(6), 2):
        squares = [1.0 - np.sqrt(answers[one] * answers[other]).sum()]
        for modality in range(2):
            p, q = np.repeat((1 - shares[[one, other], modality])[:, None] / 2, 3, axis=1)
            p[votes[one, modality]], q[votes[other, modality]] = shares[one, modality], shares[other, modality]
            squares.append(1.0 - np.sqrt(p * q).sum())
        assert np.linalg.norm(vectors[one] - vectors[other]) == pytest.approx(np.sqrt(np.mean(squares)), abs=1e-3)


def test_what_is_no_finished_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a table that `dimml score` finished: it does not exist"):
        read_candidates(tmp_path / "none.parquet")
    (tmp_path / "t.csv").write_text("id,label\na,1\n")
    with pytest.raises(DataError, match=r"t\.csv\.meta\.json is missing"):
        read_candidates(tmp_path / "t.csv")
    with pytest.raises(DataError, match="nothing to choose from: 2 no answer"):
        read_candidates(write_table(tmp_path / "bad.parquet", [failed(1), failed(2)]))
