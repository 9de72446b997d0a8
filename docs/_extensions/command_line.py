"""Commands of ``dimml`` as Markdown: what ``--help`` prints, from the same objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import typer

from dimml.cli import build_app


@cache
def _commands() -> tuple[dict[str, Any], dict[str, str]]:
    app, extras = build_app()
    root: Any = typer.main.get_command(app)
    return root.commands, extras


def markdown(names: str) -> str:
    """Sections of the commands ``names``, separated by spaces. Raises KeyError for one that is not there."""
    commands, extras = _commands()
    sections = (_section(f"dimml {name}", commands[name], extras[name], 3) for name in names.split())
    return "\n".join(line for section in sections for line in section)


def _section(title: str, command: Any, extra: str, level: int) -> Iterator[str]:
    context = command.context_class(command, info_name=title)
    yield f"{'#' * level} {title}\n"
    yield _text(command.help or "") + "\n"
    children = getattr(command, "commands", {})
    if children:
        yield "| command | |\n|---|---|"
        for name, child in children.items():
            help_text = (child.help or "").split("\n\n")[0]
            yield f"| [`{title} {name}`](#{title.replace(' ', '-')}-{name}) | {_cell(help_text)} |"
        yield ""
        for name, child in children.items():
            yield from _section(f"{title} {name}", child, extra, level + 1)
        return
    yield f"```text\n{title} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    records = [(p, p.get_help_record(context)) for p in command.get_params(context) if "--help" not in p.opts]
    if rows := [
        f"| `{record[0].replace('|', chr(92) + '|')}` | {_cell(record[1])} |" for _, record in records if record
    ]:
        yield "| argument or option | |\n|---|---|"
        yield from rows
        yield ""
    yield f"Needs `dimml[{extra}]`.\n"


def _text(text: str) -> str:
    """Help text as Markdown: placeholders are no HTML, pages that it names are links."""
    text = re.sub(r"<(?=[\w/])", "&lt;", text)
    return re.sub(r"docs/([\w./]+\.md)", r"[\1](\1)", text)


def _cell(text: str) -> str:
    return _text(" ".join(text.split())).replace("|", "\\|")
