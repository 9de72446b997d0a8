"""Whether one data set meets what was set beforehand; every line is judged from the cells, by intervals.

"Plain averaging" is the best of four: mean logits and mean probabilities, of separately trained encoders and of ours.
"Joint training" is the best of all joint methods that were run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dimml_training.compare.summary import CLEAN, SINGLE, Summary
from dimml_training.compare.tables import OURS, Row, points, rows

PLAIN = ("late_logits", "late_probabilities", "dimml_logits", "dimml_probabilities")
JOINT = ("joint_concat", "joint_sum", "joint_film", "joint_gated", "ogm_ge", "mmpareto")
#: Beside the single modalities: all that is not a variant of ours.
RIVALS = ("late_logits", "late_probabilities", *JOINT, "dimml_published")
#: In shares: at most so far below plain averaging, so low a regret, and so far above the rivals under damage.
BELOW_PLAIN, WORST_REGRET, ABOVE_RIVALS = 0.005, -0.03, 0.05
ECE = 0.03


@dataclass(frozen=True)
class Target:
    """One line: what is asked, what was found, and whether that is enough; None where it was not run yet."""

    what: str
    found: str
    met: bool | None


def targets(summary: Summary) -> list[Target]:
    """All targets that apply to one data set."""
    if OURS not in summary.methods:
        return [Target("all of them", "ours has not been run yet", None)]
    unseen = summary.conditions(seen=False, in_means=True)
    by_name = {row.method: row for row in rows(summary)}
    return [
        _clean_best(summary, by_name),
        _not_below_plain(summary),
        _mean_regret(by_name[OURS]),
        _worst_regret(summary, unseen),
        _above_rivals(summary, unseen),
        _calibrated(by_name[OURS]),
    ]


def _clean_best(summary: Summary, by_name: dict[str, Row]) -> Target:
    what = "clean: the best, or not significantly below the best"
    rivals = [m for m in summary.methods if m in RIVALS or m.startswith(SINGLE)]
    if not rivals:
        return Target(what, "not run yet", None)
    best = max(rivals, key=lambda m: by_name[m].clean.value)
    gap = summary.difference(OURS, best, [CLEAN])
    if gap is None:
        return Target(what, "not run yet", None)
    return Target(what, f"{points(gap)} against `{best}`", gap.high >= 0.0)


def _not_below_plain(summary: Summary) -> Target:
    what = f"clean: never significantly more than {100 * BELOW_PLAIN:g} points below plain averaging"
    best = _best(summary, PLAIN, [CLEAN])
    gap = None if best is None else summary.difference(OURS, best, [CLEAN])
    if gap is None:
        return Target(what, "not run yet", None)
    return Target(what, f"{points(gap)} against `{best}`", gap.high >= -BELOW_PLAIN)


def _mean_regret(ours: Row) -> Target:
    what = "unseen families: the interval of the mean regret reaches 0"
    if ours.mean_regret is None:
        return Target(what, "not run yet", None)
    return Target(what, points(ours.mean_regret), ours.mean_regret.high >= 0.0)


def _worst_regret(summary: Summary, unseen: Sequence[str]) -> Target:
    what = f"no unseen condition's interval wholly below {100 * WORST_REGRET:g} points"
    regrets = summary.regrets(OURS, unseen)
    if not regrets:
        return Target(what, "not run yet", None)
    worst = min(regrets, key=lambda name: regrets[name].high)
    return Target(what, f"{points(regrets[worst])} under {worst}", regrets[worst].high >= WORST_REGRET)


def _above_rivals(summary: Summary, unseen: Sequence[str]) -> Target:
    what = f"unseen families: {100 * ABOVE_RIVALS:g} points above the best of joint training and plain averaging"
    joint, plain = (_best(summary, names, unseen) for names in (JOINT, PLAIN))
    if not unseen or joint is None or plain is None:
        return Target(what, "not run yet", None)
    best = max(joint, plain, key=lambda m: summary.accuracy(m, unseen).value)
    gap = summary.difference(OURS, best, unseen)
    if gap is None:
        return Target(what, "not run yet", None)
    return Target(what, f"{points(gap)} against `{best}`", gap.value >= ABOVE_RIVALS)


def _calibrated(ours: Row) -> Target:
    what = f"clean ECE at most {ECE:g}, or at most a perfect calibrator's 95th percentile"
    return Target(what, f"{ours.ece:.3f} (perfect: {ours.ece_bound:.3f})", ours.ece <= max(ECE, ours.ece_bound))


def _best(summary: Summary, names: Sequence[str], conditions: Sequence[str]) -> str | None:
    there = [name for name in names if name in summary.methods]
    if not there or not conditions:
        return None
    return max(there, key=lambda name: summary.accuracy(name, conditions).value)


def markdown(found: Sequence[Target]) -> str:
    """The targets as a table."""
    says = {True: "yes", False: "**no**", None: "not run yet"}
    lines = ["| target | figure | met? |", "|---|---|---|"]
    lines += [f"| {t.what} | {t.found} | {says[t.met]} |" for t in found]
    return "\n".join(lines) + "\n"
