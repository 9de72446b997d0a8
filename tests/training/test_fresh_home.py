"""What training's commands leave in an empty home: dimml's cache of decoded clips and matplotlib's list of fonts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.fresh_home import files_below, fresh_home

pytestmark = pytest.mark.timeout(300)

#: Each command's words in turn, ``;`` between them: torch is imported once.
COMMANDS = """
import sys
from dimml.cli import main
words = sys.argv[1:]
while words:
    end = words.index(";")
    assert main(words[:end]) == 0, words[:end]
    words = words[end + 1:]
"""


@pytest.mark.slow(reason="evaluates, calibrates and exports a run in processes of their own")
def test_evaluate_calibrate_and_export(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    home = fresh_home(tmp_path, monkeypatch)
    words = ["evaluate", run, ";", "calibrate", run, ";", "export", run, "--repository", tmp_path / "models", ";"]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *map(str, words)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "stripes" / "1" / "bundle.json").is_file()
    left = files_below(home)
    assert any(name.startswith(".cache/dimml/") for name in left)
    others = [name for name in left if not name.startswith((".cache/dimml/", ".cache/matplotlib/fontlist"))]
    assert others == []
