"""Docstrings are written for strangers: none uses a word that readers of this code have stumbled over."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from import_graph import PACKAGES

from support.data import REPOSITORY_ROOT

BANNED = re.compile(
    r"\b(told|said|fates?|whoever|nobody|where it is none|what (came|comes|became|becomes) of|looks? on|at it)\b",
    re.IGNORECASE,
)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every docstring of a module, of its classes and of its functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def banned_words(package: Path) -> list[str]:
    return [
        f"{path.relative_to(REPOSITORY_ROOT)}:{line}: {found[0]!r}"
        for path in sorted(package.rglob("*.py"))
        for line, text in docstrings(path.read_text(encoding="utf-8"))
        if (found := BANNED.search(" ".join(text.split())))
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_use_none_of_the_banned_words(package: str) -> None:
    assert banned_words(PACKAGES[package]) == [], "say it in plain words"


def test_words_are_found_across_lines_and_in_every_kind_of_docstring() -> None:
    source = '"""Fate."""\nclass A:\n    """What\n    came of it."""\n    async def b(self):\n        """Say."""\n'
    found = [BANNED.search(" ".join(text.split())) for _, text in docstrings(source)]
    assert [match and match[0] for match in found] == ["Fate", "What came of", None]
