"""The command ``dimml`` in this process, its words caught."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from dimml.cli import main


def dimml(*words: str, code: int = 0, lines: int | None = 1) -> str:
    """What it says: stdout, or where it must fail its so many lines on stderr."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        exit_code = main(list(words))
    assert exit_code == code, err.getvalue()
    if code == 0:
        return out.getvalue()
    assert lines is None or len(err.getvalue().splitlines()) == lines, err.getvalue()
    return err.getvalue()
