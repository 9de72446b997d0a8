"""A Jupyter notebook as Markdown: its text, its code, and the text that the code printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).resolve().parents[1]


def markdown(name: str) -> str:
    """Cells of the notebook ``name`` of docs/, in nbformat 4, with the outputs that it was saved with.

    The page that shows it has a title of its own, so the notebook's is left out. Raises ValueError for an output other
    than printed text, which the page would lack.
    """
    cells = json.loads((DOCS / name).read_text(encoding="utf-8"))["cells"]
    parts: list[str] = []
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.partition("\n")[2] if text.startswith("# ") else text)
        elif cell["cell_type"] == "code":
            parts.append(_fenced("python", text))
            parts += [_fenced("text", _printed(output, name)) for output in cell["outputs"]]
    return "\n\n".join(part.strip("\n") for part in parts)


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _printed(output: dict[str, Any], name: str) -> str:
    if output["output_type"] != "stream" or output["name"] != "stdout":
        raise ValueError(f"{name} holds an output that is not printed text: {output['output_type']}; run it again")
    return "".join(output["text"])
