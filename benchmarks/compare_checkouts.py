"""Whether two checkouts give users the same, and what a request costs each: a proof for large moves.

    git worktree add ../before COMMIT
    python benchmarks/compare_checkouts.py ../before .                       # all of it: minutes
    python benchmarks/compare_checkouts.py ../before . --only served tables --aside 'metric *: help'
    python benchmarks/compare_checkouts.py ../before . --only cost --requests 600

A line for each comparison, "equal" or "differs: …", then a summary; exit code 1 where anything differs that no
`--aside` names, or where the second's requests are dearer than the limit. Timings, ids that a server made, dates and
addresses are left out. Both get the same samples, model repository, clips and trained run: the first one's.

Each checkout is run by its own `.venv` where it has one, which also finds what its dependencies changed, else by this
Python; `--python` sets one for both, so that only dimml's code differs. In every case its packages come first on
PYTHONPATH, and its entry points from its own pyproject.toml: an installed dimml names the modules of when it was
installed. A Triton server, TensorRT, Ray and log lines are not compared.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

if TYPE_CHECKING:
    from checkouts.checkout import Checkout
    from checkouts.comparison import Comparison

PARTS = ("served", "commands", "help", "tables", "trained", "cost")


def compare(parts: set[str], before: Checkout, after: Checkout, comparison: Comparison) -> None:
    """Every part but the cost."""
    from checkouts import commands, served, tables, trained

    def both(part: Callable[[Checkout], dict[str, Any]], tolerance: float = 0.0) -> None:
        with ThreadPoolExecutor(2) as threads:
            under_way = [threads.submit(part, checkout) for checkout in (before, after)]
        errors = [error for error in (job.exception() for job in under_way) if error is not None]
        for error in errors:
            comparison.fail(part.__name__, f"could not be looked at: {error!r}")
        if not errors:
            comparison.compare_all(under_way[0].result(), under_way[1].result(), tolerance)

    comparison.compare("packages that are installed", before.packages(), after.packages())
    if "help" in parts:
        both(commands.help_texts)
    if "served" in parts:
        both(served.default_server)
        both(served.guarded_server)
    if "commands" in parts:
        both(commands.commands)
    if "tables" in parts:
        both(tables.tables, tables.TOLERANCE)
        tables.hand_over(before, after)
        both(tables.continued, tables.TOLERANCE)
    if "trained" in parts:
        trained.make_data(before, after)
        both(trained.own_training)
        trained.hand_over(before, after)
        both(trained.use_of_run)


def main() -> int:
    """Compare two checkouts; the exit code."""
    from checkouts import cost
    from checkouts.checkout import prepare
    from checkouts.comparison import Comparison

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="checkout whose answers are wanted")
    parser.add_argument("after", type=Path, help="checkout that is held to it")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to do; by default all")
    parser.add_argument("--without", nargs="+", choices=PARTS, default=(), help="parts to leave out, such as help")
    meant = "differences that are meant, as 'name: place' with * and ?, such as 'metric *: help'"
    parser.add_argument("--aside", nargs="+", default=(), metavar="PATTERN", help=meant)
    parser.add_argument(
        "--python", type=Path, help="the Python that runs both; by default each one's .venv, else this one"
    )
    parser.add_argument("--requests", type=int, default=600, help="for each checkout, for the cost (600)")
    parser.add_argument("--times", type=int, default=10, help="starts of each checkout, for the cost (10)")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("DIMML_")]:
        del os.environ[name]
    # Not resolved: a venv's Python is a link, and is known by where it lies.
    python = arguments.python and str(arguments.python.absolute())
    parts = set(arguments.only) - set(arguments.without)
    comparison = Comparison(arguments.aside)
    cheap = True
    with tempfile.TemporaryDirectory() as scratch:
        before, after = (
            prepare(path.resolve(), Path(scratch) / name, arguments.before.resolve(), python)
            for name, path in (("before", arguments.before), ("after", arguments.after))
        )
        if parts - {"cost"}:
            compare(parts, before, after, comparison)
            print(comparison.summary(), flush=True)
        if "cost" in parts:
            cheap = cost.report(before, after, requests=arguments.requests, times=arguments.times)
    return int(bool(comparison.differing) or not cheap)


if __name__ == "__main__":
    sys.exit(main())
