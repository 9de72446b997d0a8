"""Score the sealed final families once, and judge; see docs/comparing.md.

python scripts/score_final.py training/configs/compare/grid_digit.yaml --methods all
python scripts/score_final.py --judge-only
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dimml.errors import ConfigurationError, DimmlError
from dimml_training.compare.cells import write_text
from dimml_training.compare.methods import chosen_methods
from dimml_training.compare.packed_cells import read_cells
from dimml_training.compare.tables import csv_text, summaries
from dimml_training.compare.work import Comparison
from dimml_training.config import load_config
from dimml_training.data.cache import default_cache_dir
from dimml_training.final_scoring.judging import judge, judgement_lines, method_lines
from dimml_training.final_scoring.score import cells_folder, score_finally


def main(arguments: Sequence[str] | None = None) -> int:
    """Score what is left to score, print the figures; 1 where everything had been scored before."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, nargs="?", help="YAML config of a finished `dimml compare`")
    parser.add_argument("--methods", default="main", help="comma-separated names, or main or all, as for dimml compare")
    parser.add_argument("--seeds", type=int, help="number of repeats, as for dimml compare")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="where log, cells and tables go")
    parser.add_argument(
        "--development",
        type=Path,
        default=Path("docs/results"),
        help="where dimml compare wrote its cells, which settle the trials of methods that have some",
    )
    parser.add_argument("--work", type=Path, default=Path("runs/compare"), help="where dimml compare kept its runs")
    parser.add_argument("--cache-dir", type=Path, help="where decoded clips are kept")
    parser.add_argument("--set", dest="override", action="append", metavar="KEY=VALUE", help="override a field")
    parser.add_argument(
        "--split",
        choices=("test", "validation"),
        default="test",
        help="validation rehearses on validation clips, with log and cells of its own",
    )
    parser.add_argument("--judge-only", action="store_true", help="score nothing; print the figures of what is there")
    options = parser.parse_args(arguments)
    try:
        refused = False if options.judge_only else _score(options)
        _judge(options.out, options.split)
    except DimmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(refused)


def _score(options: argparse.Namespace) -> bool:
    """Score; whether there was nothing that had not been scored before."""
    if options.config is None:
        raise ConfigurationError("name the config of a finished `dimml compare`, or give --judge-only", field="config")
    config = load_config(options.config, options.override or ())
    methods = chosen_methods(config, [name.strip() for name in options.methods.split(",")])
    comparison = Comparison(
        config,
        tuple(method.name for method in methods),
        options.seeds,
        options.out,
        options.work,
        options.cache_dir or default_cache_dir(),
    )
    done = score_finally(comparison, options.split, development=options.development, tell=_tell)
    if done.scored == 0:
        _tell("nothing is left to score: the final families are scored once")
    return done.scored == 0


def _judge(out: Path, split: str) -> None:
    folder = cells_folder(out, split)
    found = summaries(read_cells(folder))
    parts = []
    for summary in found:
        write_text(folder / "tables" / f"{summary.data}.csv", csv_text(summary))
        parts += [f"## {summary.data}", "\n".join(method_lines(summary)), "\n".join(judgement_lines(judge([summary])))]
    if len(found) > 1:
        parts += ["## Together", "\n".join(judgement_lines(judge(found)))]
    text = "\n\n".join(parts)
    if found:
        write_text(folder / "judgement.md", text + "\n")
    print(text)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
