"""The site of docs/: all commands are there, and what is built has no dead link."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import site_links

from dimml.cli import build_app
from support.data import REPOSITORY_ROOT, unavailable

DOCS = REPOSITORY_ROOT / "docs"
SITE = REPOSITORY_ROOT / "build" / "docs"


def test_every_command_stands_on_the_page_of_commands_once() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    listed = [name for names in re.findall(r"<!-- site: commands (.*) -->", page) for name in names.split()]
    app, _ = build_app()
    assert sorted(listed) == sorted(str(part.name) for part in [*app.registered_commands, *app.registered_groups])


def test_a_notebook_becomes_the_text_the_code_and_what_the_code_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    import notebook

    monkeypatch.setattr(notebook, "DOCS", tmp_path)
    printed = {"output_type": "stream", "name": "stdout", "text": ["1\n", "2\n"]}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Some *text*.\n"]},
        {"cell_type": "code", "source": ["print(1)\n", "print(2)"], "outputs": [printed]},
        {"cell_type": "markdown", "source": ["## Next"]},
        {"cell_type": "code", "source": ["x = 1"], "outputs": []},
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}))
    code = "```python\nprint(1)\nprint(2)\n```\n\n```text\n1\n2\n```"
    assert notebook.markdown("n.ipynb") == f"Some *text*.\n\n{code}\n\n## Next\n\n```python\nx = 1\n```"
    for output in (printed | {"name": "stderr"}, {"output_type": "display_data", "data": {}}):
        cells[1]["outputs"] = [output]
        path.write_text(json.dumps({"cells": cells, "nbformat": 4}))
        with pytest.raises(ValueError, match=r"n\.ipynb holds an output"):
            notebook.markdown("n.ipynb")


def test_the_built_site_has_no_dead_link_and_loads_nothing_of_another_host() -> None:
    if not (SITE / "index.html").exists():
        unavailable("build/docs is not there: run `make docs`")
    assert len(list(SITE.rglob("*.html"))) > 80
    assert site_links.problems(SITE) == []


def test_dead_links_and_other_hosts_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">a</h1><a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<a href="https://example.org">4</a><a href="#top">5</a><script src="https://example.org/x.js"></script>'
        '<link rel="stylesheet" href="//example.org/y.css"><img src="data:image/gif;base64,AA">'
    )
    (tmp_path / "b.html").write_text('<h2 id="there">b</h2>')
    assert site_links.problems(tmp_path) == [
        "a.html links to b.html#gone, which has no such heading",
        "a.html links to c.html",
        "a.html loads https://example.org/x.js",
        "a.html loads //example.org/y.css",
    ]
