"""What the server must withstand: `python benchmarks/harden.py fuzz | load | soak | kill | hostile`.

Each starts a real `dimml serve` on loopback with the demo bundle, prints a table, and ends with 1 where a bound was
missed. Defaults are the full runs of docs/hardening.md; tests run short ones.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]


def main() -> None:
    """Run one of them."""
    from hardening.fuzz import fuzz
    from hardening.hostile import hostile
    from hardening.kill import kill
    from hardening.load import load
    from hardening.report import Report
    from hardening.soak import soak

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs = parser.add_subparsers(required=True)

    def command(name: str, run: Callable[..., Report], **options: float | str) -> None:
        sub = runs.add_parser(name, help=run.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        for option, default in options.items():
            sub.add_argument(f"--{option.replace('_', '-')}", type=type(default), default=default, help=" ")
        sub.set_defaults(run=run)

    command("fuzz", fuzz, count=20_000, requests=2_000, seed=1)
    command("load", load, seconds=180.0, factor=2.0, peak_s=10.0, spells=6)
    command("soak", soak, seconds=1200.0)
    command("kill", kill, seconds=120.0, restart_every_s=10.0)
    command("hostile", hostile, only="")
    given = vars(parser.parse_args())
    report: Report = given.pop("run")(**given)
    print(report)
    print(f"\n`{shlex.join(['python', 'benchmarks/harden.py', *sys.argv[1:]])}`", flush=True)
    for failure in report.failures:
        print(f"missed: {failure}", file=sys.stderr)
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
