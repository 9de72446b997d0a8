"""What an export takes over of a run's evaluation under corruptions, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dimml.errors import SetupError
from dimml_export.evaluation import CORRUPTIONS_FILE, corrupted_figures, data_digest
from dimml_training.report.reading import CORRUPTIONS_FILE as WRITTEN
from dimml_training.run.directory import load_run
from support.hardly_trained import make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tones")


def evaluated(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write a file as ``dimml evaluate --corruptions`` does."""
    found = {
        "split": "test",
        "families": "seen",
        "seed": 3,
        "data": "00",
        "fusion": load_run(folder).fusion.model_dump(mode="json"),
        "conditions": {
            "clean": {"group": "clean", "seen": True, "accuracy": 0.9, "ece": 0.01, "heads": {"audio": {}}},
            "audio:white_0db": {"group": "audio", "seen": True, "accuracy": 0.7, "regret": -0.1, "draws": 2},
        },
        "means": {"seen": {"accuracy": 0.7}, "development": None},
        "certainty_auroc": {},
        **changes,
    }
    (folder / CORRUPTIONS_FILE).write_text(json.dumps(found))
    return found


def test_figures_of_the_runs_own_fusion_are_taken_over(folder: Path) -> None:
    assert CORRUPTIONS_FILE == WRITTEN
    evaluated(folder)
    corrupted, remarks = corrupted_figures(folder, load_run(folder))
    assert corrupted is not None
    assert remarks == []
    assert (corrupted["split"], corrupted["families"], corrupted["seed"]) == ("test", "seen", 3)
    assert corrupted["conditions"]["audio:white_0db"] == {
        "group": "audio",
        "seen": True,
        "accuracy": 0.7,
        "regret": -0.1,
    }
    assert "heads" not in corrupted["conditions"]["clean"]
    assert corrupted["means"] == {"seen": {"accuracy": 0.7}, "development": None}


def test_figures_of_another_fusion_do_not_and_that_is_said(folder: Path) -> None:
    run = load_run(folder)
    evaluated(folder, fusion={**run.fusion.model_dump(mode="json"), "temperature": 7.0})
    found, remarks = corrupted_figures(folder, run)
    assert found is None
    assert "another fusion" in remarks[0]


def test_a_run_that_was_not_evaluated_has_none_and_a_damaged_file_is_named(folder: Path) -> None:
    run = load_run(folder)
    path = folder / CORRUPTIONS_FILE
    path.unlink(missing_ok=True)
    assert corrupted_figures(folder, run) == (None, [])
    for text in ("{", "[]", '{"fusion": 1}'):
        path.write_text(text)
        if text == '{"fusion": 1}':
            assert corrupted_figures(folder, run)[0] is None
            continue
        with pytest.raises(SetupError, match=CORRUPTIONS_FILE):
            corrupted_figures(folder, run)
    path.unlink()


def test_a_run_without_a_digest_of_its_data_says_nothing_of_it(tmp_path: Path) -> None:
    assert data_digest(tmp_path) == {}
