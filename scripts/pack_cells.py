"""Pack the cells of a comparison into one file per data set, or unpack them; see docs/comparing.md.

python scripts/pack_cells.py pack docs/results
python scripts/pack_cells.py unpack docs/results /tmp/results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dimml.errors import DimmlError
from dimml_training.compare.packed_cells import pack, unpack


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack or unpack, and say which files were written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="pack the loose cells of a results folder and remove them")
    packing.add_argument("out", type=Path, help="what `dimml compare` got as --out")
    unpacking = commands.add_parser("unpack", help="write packed cells as `dimml compare` writes them")
    unpacking.add_argument("out", type=Path, help="the folder with the packed cells")
    unpacking.add_argument("to", type=Path, help="the folder to write to")
    options = parser.parse_args(arguments)
    try:
        written = pack(options.out) if options.command == "pack" else unpack(options.out, options.to)
    except DimmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
