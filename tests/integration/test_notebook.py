"""docs/notebook.ipynb runs from its first cell to its last, and is kept as it was run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support.data import REPOSITORY_ROOT, unavailable

NOTEBOOK = REPOSITORY_ROOT / "docs" / "notebook.ipynb"
#: In place of the cell with the tag "parameters".
TINY = f"""
CONFIG = {str(REPOSITORY_ROOT / "training" / "configs" / "avdigits.yaml")!r}
SAMPLES = {str(REPOSITORY_ROOT / "samples")!r}
CLIPS = 20
SETTINGS = [
    "stage1.epochs=1", "stage1.warmup_epochs=0", "stage2.epochs=1",
    "certainty.draws=1", "certainty.families=[white]", "certainty.temperatures=[0.5]",
]
"""
#: Its answers, for this test to read.
ANSWERS = """
import json

print(json.dumps([
    {"degraded": answer.degraded, "label": answer.label,
     "modalities": {name: (str(own.modality_status), own.weight) for name, own in answer.modalities.items()}}
    for answer in (whole, no_sound, black, sound_only)
]))
"""
DIGITS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}


def notebook() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return read


def code_cells(read: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in read["cells"] if cell["cell_type"] == "code"]


def printed(cell: dict[str, Any]) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"])


@pytest.mark.timeout(300)
def test_it_runs_and_a_missing_modality_costs_no_answer(tmp_path: Path) -> None:
    for module in ("nbclient", "ipykernel"):
        if find_spec(module) is None:
            unavailable(f"{module} is not installed: make test")
    tried = notebook()
    (parameters,) = [cell for cell in code_cells(tried) if "parameters" in cell["metadata"].get("tags", ())]
    parameters["source"] = TINY
    last = {"cell_type": "code", "execution_count": None, "id": "answers", "metadata": {}, "outputs": []}
    tried["cells"].append(last | {"source": ANSWERS})
    path = tmp_path / "tried.ipynb"
    path.write_text(json.dumps(tried), encoding="utf-8")
    folders = {name: str(tmp_path) for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    # What `jupyter execute` calls; the command is not on the path of an environment that is not activated.
    command = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=240", str(path)]
    done = subprocess.run(
        command, env=os.environ | folders | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    cells = code_cells(json.loads(path.read_text(encoding="utf-8")))
    assert {output.get("name") for cell in cells for output in cell["outputs"]} == {"stdout"}
    assert printed(cells[-2]) == "exit code 0\n"
    whole, no_sound, black, sound_only = json.loads(printed(cells[-1]))
    assert {answer["label"] for answer in (whole, no_sound, black, sound_only)} <= DIGITS
    assert [answer["degraded"] for answer in (whole, no_sound, black, sound_only)] == [False, True, True, False]
    assert sum(weight for _, weight in whole["modalities"].values()) <= 1.0 + 1e-6  # the rest is the fused head's
    assert no_sound["modalities"] == {"audio": ["absent:no_track", 0.0], "visual": ["ok", 1.0]}
    assert black["modalities"] == {"audio": ["ok", 1.0], "visual": ["unusable:black", 0.0]}
    assert sound_only["modalities"] == {"audio": ["ok", 1.0], "visual": ["absent:not_requested", 0.0]}


def test_it_is_kept_as_it_was_run() -> None:
    """Every cell has run once, in order, without a warning; what is printed names no place of one machine."""
    cells = code_cells(notebook())
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.get("name") for cell in cells for output in cell["outputs"]} == {"stdout"}
    text = "".join(map(printed, cells))
    assert "no_track" in text
    assert re.findall(r"(?<!\w)/\w+/.*", text) == []
    assert NOTEBOOK.stat().st_size < 50_000
