"""What scripts/check_images.sh looks for in an image, on small ones made here."""

from __future__ import annotations

import importlib.util
import io
import py_compile
import sys
import tarfile
from pathlib import Path

import pytest

from support.data import REPOSITORY_ROOT

SITE = "opt/dimml/lib/python3.11/site-packages"
SPEC = importlib.util.spec_from_file_location("script_contents", REPOSITORY_ROOT / "scripts" / "image_contents.py")


def export(path: Path, contents: dict[str, tuple[bytes, int]]) -> Path:
    """A container's export with these files, each of a time."""
    with tarfile.open(path, "w") as tar:
        for name, (data, mtime) in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def module(tmp_path: Path) -> dict[str, tuple[bytes, int]]:
    """A module and its bytecode, as CPython itself writes it."""
    source = tmp_path / "a.py"
    source.write_text("x = 1\n")
    bytecode = Path(str(py_compile.compile(str(source), str(tmp_path / "a.pyc"))))
    mtime = int(source.stat().st_mtime)
    return {
        f"{SITE}/p/a.py": (source.read_bytes(), mtime),
        f"{SITE}/p/__pycache__/a.cpython-311.pyc": (bytecode.read_bytes(), mtime),
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("root/.cache/pip/x", "a cache"),
        ("var/lib/apt/lists/main", "a cache"),
        ("tmp/wheels/dimml-0.1.0-py3-none-any.whl", "a wheel"),
        (f"{SITE}/numpy/tests/test_x.py", "a package's tests"),
        (f"{SITE}/pip/__init__.py", "pip"),
        (f"{SITE}/p/__pycache__/a.cpython-311.opt-1.pyc", "optimised bytecode"),
        (f"{SITE}/p/__pycache__/gone.cpython-311.pyc", "without its source"),
    ],
)
def test_what_need_not_be_there_is_found(
    module: dict[str, tuple[bytes, int]], name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SPEC is not None
    assert SPEC.loader is not None
    script = importlib.util.module_from_spec(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, SPEC.name, script)
        SPEC.loader.exec_module(script)
    base = export(tmp_path / "base.tar", {"bin/sh": (b"", 1)})
    clean = export(tmp_path / "clean.tar", {"bin/sh": (b"", 1), **module})
    assert script.main(base, clean) == 0
    assert "above its base: 2 files" in capsys.readouterr().out
    assert script.main(base, export(tmp_path / "image.tar", {**module, name: (b"\0" * 16, 1)})) > 0
    assert said in capsys.readouterr().err
    # In the base it is not ours to remove.
    assert script.main(export(tmp_path / "base.tar", {name: (b"\0" * 16, 1)}), tmp_path / "image.tar") == 0
    # A copy that has not kept times: the bytecode is there and of no use.
    moved = {file: (data, mtime + (5 if file.endswith(".py") else 0)) for file, (data, mtime) in module.items()}
    assert script.main(base, export(tmp_path / "moved.tar", moved)) == 1
    assert "of another state" in capsys.readouterr().err
