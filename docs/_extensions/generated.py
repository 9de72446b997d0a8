"""What a page of the site has from elsewhere: a comment ``<!-- site: NAME ARGUMENTS -->`` is replaced before parsing.

The Markdown thus stays plain on a code host, and what it says about commands, errors and Python names cannot age.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sphinx.application import Sphinx

import command_line
import error_table
import notebook
import python_names

ROOT: Final = Path(__file__).resolve().parents[2]
MARKER: Final = re.compile(r"^<!-- site: (\w+) ?(.*?) -->$", re.MULTILINE)
GENERATORS: Final[dict[str, Callable[[str], str]]] = {
    "commands": command_line.markdown,
    "errors": error_table.markdown,
    "names": python_names.markdown,
    "notebook": notebook.markdown,
}
LINK: Final = re.compile(r"\[([^]]+)\]\(([^)#]*)(#[^)]*)?\)")
#: Files outside of docs/ that are pages of the site, and their pages.
FILES: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "vulnerabilities.md",
    "findings/README.md": "evidence/findings.md",
}


def toctree(page: str, text: str) -> str:
    """Markdown of a hidden toctree of the pages to which ``text``, of ``page``, links, in that order."""
    links = (match[2] for match in LINK.finditer(text) if match[2].endswith(".md") and not match[3])
    pages = dict.fromkeys(posixpath.normpath(posixpath.join(posixpath.dirname(page), link)) for link in links)
    return "\n".join(
        ["```{toctree}", ":hidden:", ":titlesonly:", "", *(f"/{name.removesuffix('.md')}" for name in pages), "```"]
    )


def file_text(page: str, name: str) -> str:
    """Text of a file outside of docs/ for ``page``; links to what is no page of the site become their words."""
    folder = posixpath.dirname(page) or "."

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or not target:
            return match[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        there = FILES.get(there, there.removeprefix("docs/") if there.startswith("docs/") else "")
        return f"[{words}]({posixpath.relpath(there, folder)}{anchor})" if there else words

    return LINK.sub(link, (ROOT / name).read_text(encoding="utf-8"))


def expand(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the comments of a page; it is read again once the code or the file changes that its text comes from."""
    text = source[0]

    def replace(match: re.Match[str]) -> str:
        name, arguments = match[1], match[2]
        if name == "toctree":
            return toctree(page, text.partition(f"\n## {arguments}\n")[2] if arguments else text)
        generated = GENERATORS[name](arguments)
        if name == "notebook":
            app.env.note_dependency(str(notebook.DOCS / arguments))
            return generated
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if path and module.__name__.startswith("dimml"):
                app.env.note_dependency(path)
        return generated

    if whole := re.search(r"^<!-- site: file (\S+) -->$", text, re.MULTILINE):
        app.env.note_dependency(str(ROOT / whole[1]))
        source[0] = file_text(page, whole[1])
    else:
        source[0] = MARKER.sub(replace, text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers."""
    app.connect("source-read", expand)
    app.connect("autodoc-process-docstring", python_names.add_fields)
    return {"parallel_read_safe": True}
