"""Scripts and benchmarks are run by hand: that they still load, and that the training benchmark still measures."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

from dimml_training.config import parse_config
from support.data import REPOSITORY_ROOT
from support.tiny_training import document

SCRIPTS = sorted(path for folder in ("benchmarks", "scripts") for path in (REPOSITORY_ROOT / folder).glob("*.py"))


def loaded(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, its ``main`` not called; it may import its neighbours, as a script may."""
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(path, monkeypatch).__doc__


def test_the_training_benchmark_measures_every_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plain loop of DUC is held against ours by the script itself."""
    benchmark = loaded(REPOSITORY_ROOT / "benchmarks" / "training.py", monkeypatch)
    found = benchmark.measure(parse_config(document(tmp_path / "clips.csv"), "test"), [4, 8], clips=16, repeats=1)
    assert set(found["batch"]) == {4, 8}
    for of_size in found["batch"].values():
        step = of_size["step"]
        assert set(step["ms"]) == set(benchmark.PARTS)
        assert step["step_ms"] == pytest.approx(sum(step["ms"].values()))
        assert sum(step["share"].values()) == pytest.approx(1.0)
        assert min(*step["ms"].values(), of_size["duc"]["loop_ms"], of_size["separation"]["loop_ms"]) > 0.0
        assert of_size["separation"]["clips"] == 16


@pytest.mark.parametrize(("estimate", "exit_code"), [(0.57, 0), (0.59, 1)])
def test_estimated_accuracy_counts_what_leaves_no_answer_apart(
    estimate: float,
    exit_code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its bound of 8 points is for the seen conditions that leave an answer; the mean over all stands beside it."""
    script = loaded(REPOSITORY_ROOT / "scripts" / "estimated_accuracy.py", monkeypatch)

    def condition(estimated: float, *, seen: bool = True) -> dict[str, object]:
        of = {"estimated_accuracy": estimated, "confidence": estimated, "accuracy": 0.5}
        return {"group": "audio", "seen": seen, "in_means": True, **of}

    conditions = {
        "audio:another_clip_0db": condition(estimate),
        "audio:another_clip_-10db": condition(0.97),
        "audio:pink_-10db": condition(0.8, seen=False),
    }
    (tmp_path / script.CORRUPTIONS_FILE).write_text(json.dumps({"conditions": conditions}))
    monkeypatch.setattr(sys, "argv", ["estimated_accuracy.py", str(tmp_path), "--json"])
    assert script.main() == exit_code
    of_seen = 100 * (estimate - 0.5)
    expected = {
        "seen families": (1, of_seen),
        "seen families, no answer left": (1, 47.0),
        "development families": (1, 30.0),
        "seen families, both together": (2, (of_seen + 47.0) / 2),
    }
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == expected.keys()
    for group, (count, error) in expected.items():
        assert found[group]["conditions"] == count
        assert found[group]["mean_absolute"] == pytest.approx(error)


def test_no_script_hides_a_package() -> None:
    """Their folders stand before installed packages on the path of the tests."""
    taken = {*sys.stdlib_module_names, *packages_distributions()} - {"tests", "benchmarks", "scripts"}
    places = [REPOSITORY_ROOT / folder for folder in ("benchmarks", "scripts", "tests")]
    found = {path.stem for place in places for path in place.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert "peers" in found
    assert found & taken == set()
