"""The examples of docs/python_api.md run, in order; its names are those that the packages give."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import dimml_export
import dimml_training
from support.data import REPOSITORY_ROOT

PAGE = (REPOSITORY_ROOT / "docs" / "python_api.md").read_text(encoding="utf-8")


def examples() -> list[tuple[int, str]]:
    """Line of the page and text of every example."""
    found = re.finditer(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [(PAGE.count("\n", 0, match.start(1)), match[1]) for match in found]


@pytest.mark.timeout(300)
@pytest.mark.slow(reason="two trainings, a choice of the fusion, an export, and predictions")
def test_every_example_runs(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(clips.parent, tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {"__name__": "examples"}
    said = []
    for line, text in examples():
        first = text.partition("\n")[0]
        if first.startswith("# ") and first.endswith(".py"):
            (tmp_path / first.removeprefix("# ")).write_text(text)
            continue
        code = compile("\n" * line + text, "docs/python_api.md", "exec")
        exec(code, names)  # noqa: S102  # our own page
        said.append(capsys.readouterr().out)
    trained, loaded, calibrated, exported, predicted, decoded, _, own, data = said
    assert "stage 1, epoch 2/2" in trained
    assert loaded.startswith("('high', 'low') certainty='max_prob'")
    assert "report.html" in calibrated
    assert exported.startswith("beeps 1 ")
    assert "unusable_media" in predicted
    assert decoded.startswith("(8000,) (4, 48, 64, 3)")
    assert decoded.count(".mp4 ok") == 6
    # Row 2 has one head: softmax of (2, 0) by hand. Its other head's NaN has no weight.
    assert names["fused"].probabilities_BC[1] == pytest.approx([0.880797, 0.119203], abs=1e-6)
    assert names["fused"].weights_BH[1].tolist() == [1.0, 0.0]
    assert 0.0 <= float(own) <= 1.0
    assert "('high', 'low') (10, 4000)" in data
    sys.modules.pop("my_encoder", None)


@pytest.mark.parametrize("package", [dimml_training, dimml_export], ids=lambda package: package.__name__)
def test_the_page_names_what_a_package_gives(package: Any) -> None:
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith(package.__name__)
    functions = [name for name in package.__all__ if name[0].islower()]
    for name in functions:
        assert f"`{name}`" in PAGE
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        package.tarin  # noqa: B018
