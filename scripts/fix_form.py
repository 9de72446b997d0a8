"""Fix the form of a data set's fusion by the validation clips of all other data sets; see docs/certainty.md.

python scripts/fix_form.py docs/results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dimml.errors import DimmlError, SetupError
from dimml_training.compare.packed_cells import read_cells
from dimml_training.fusion_selection.forms import Objectives, form_of_others


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, for every data set, the section ``certainty`` that its config needs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="what `dimml compare` got as --out, with cells of every data set")
    parser.add_argument("--method", default="dimml", help="whose choices count")
    options = parser.parse_args(arguments)
    try:
        objectives = _objectives(options.out, options.method)
        for data in objectives:
            fixed = form_of_others(objectives, data)
            print(f"# {data}: error {100 * fixed.excess:.1f} % above the best of each of {', '.join(fixed.others)}")
            print(f"certainty: {{form: {fixed.form.model_dump_json()}}}")
    except DimmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _objectives(out: Path, method: str) -> dict[str, list[Objectives]]:
    """By data set: the forms' objectives of every repeat, all on validation clips."""
    found: dict[str, list[Objectives]] = {}
    for cell in read_cells(out):
        forms = (cell.fusion or {}).get("forms")
        # A choice between one form and the plain averages says nothing of other forms.
        if cell.method == method and forms and len(forms) > 1:
            found.setdefault(cell.data, []).append(forms)
    if not found:
        raise SetupError(
            f"{out} has no cell of {method} that names the forms it tried: run `dimml compare --rescore`, without "
            "certainty.form in the config"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
