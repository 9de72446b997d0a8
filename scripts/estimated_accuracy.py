"""Hold the accuracy that a run's answers estimate of themselves against their true one, condition by condition.

    dimml calibrate runs/mine
    dimml evaluate runs/mine --corruptions
    python scripts/estimated_accuracy.py runs/mine [--json]

The estimate is what a server publishes as ``dimml_estimated_accuracy_ratio``: the answers' mean chance of being right,
by the run's estimate. Beside it stands what a bundle without an estimate publishes, their mean probability. It reads
what `dimml evaluate` kept of the test clips, and exits with 1 where clean answers miss by more than 3 points, or those
under families that the fusion was chosen with by more than 8 on average.

The bound of 8 is for seen conditions that leave an answer, which are those that a fusion is chosen by. Under the
others, another clip of the same talker louder than the own one, what is said most clearly is the wrong label, as under
"a modality of another clip": nothing in the recording says which of the two is meant, so that no estimate can know.
They are a group of their own; the mean over both together is printed too, and has no bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dimml_training.fusion_selection.family_pairs import name_has_answer
from dimml_training.report.reading import CORRUPTIONS_FILE

SEEN: Final = "seen families"
SEEN_WITHOUT_ANSWER: Final = "seen families, no answer left"
#: Largest mean absolute error by group, in points.
TARGETS: Final = {"clean": 3.0, SEEN: 8.0}


@dataclass(frozen=True, slots=True)
class Errors:
    """Of a group's conditions, in points: mean absolute error, mean error (estimate less truth), and the worst one."""

    conditions: int
    mean_absolute: float
    mean: float
    worst: float
    where: str


def group_of(name: str, condition: Mapping[str, Any]) -> str:
    """Name the group that a condition is reported in."""
    if condition["group"] in ("clean", "absent", "nosignal", "conflict"):
        return {
            "clean": "clean",
            "absent": "a modality absent",
            "nosignal": "a modality silent or black",
            "conflict": "a modality of another clip",
        }[condition["group"]]
    if not condition["in_means"]:
        return "families that the recordings carry"
    if not condition["seen"]:
        return "development families"
    return SEEN if name_has_answer(name) else SEEN_WITHOUT_ANSWER


def grouped(
    conditions: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Sort conditions into groups; where some seen ones leave no answer, all seen ones are a group as well."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, condition in conditions.items():
        found.setdefault(group_of(name, condition), []).append((name, condition))
    if SEEN in found and SEEN_WITHOUT_ANSWER in found:
        found["seen families, both together"] = found[SEEN] + found[SEEN_WITHOUT_ANSWER]
    return found


def errors_of(conditions: Sequence[tuple[str, Mapping[str, Any]]], of: str = "estimated_accuracy") -> Errors:
    """Compute the errors of a group, of the estimate or of the answers' mean probability (``confidence``)."""
    points = {name: 100.0 * (found[of] - found["accuracy"]) for name, found in conditions}
    where = max(points, key=lambda name: abs(points[name]))
    count = len(points)
    return Errors(count, sum(map(abs, points.values())) / count, sum(points.values()) / count, points[where], where)


def main() -> int:
    """Print the errors of every group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of a training that was calibrated and evaluated")
    parser.add_argument("--json", action="store_true", help="print the errors as JSON")
    options = parser.parse_args()
    try:
        kept = json.loads((options.run / CORRUPTIONS_FILE).read_bytes())
    except OSError as error:
        raise SystemExit(
            f"{options.run}: {error.strerror}; run `dimml evaluate {options.run} --corruptions`"
        ) from error
    if any("estimated_accuracy" not in condition for condition in kept["conditions"].values()):
        raise SystemExit(
            f"{options.run}: evaluated before there were estimates; run `dimml evaluate {options.run} --corruptions` "
            "again"
        )
    groups = grouped(kept["conditions"])
    errors = {group: errors_of(conditions) for group, conditions in groups.items()}
    if options.json:
        print(json.dumps({group: asdict(found) for group, found in errors.items()}, indent=1))
    else:
        print("| conditions | how many | mean probability | estimate | mean error | worst |")
        print("|---|---|---|---|---|---|")
        for group, found in errors.items():
            plain = errors_of(groups[group], "confidence")
            print(
                f"| {group} | {found.conditions} | {plain.mean_absolute:.1f} | {found.mean_absolute:.1f} "
                f"| {found.mean:+.1f} | {found.worst:+.1f} {found.where} |"
            )
    missed = [group for group, most in TARGETS.items() if group in errors and errors[group].mean_absolute > most]
    for group in missed:
        print(f"missed: {group}, more than {TARGETS[group]:g} points", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
