"""Targets that were set in advance, and whether one data set meets them; decided from the cells, by intervals.

"Plain averaging" is any of four: mean logits and mean probabilities, of separately trained encoders and of ours.
"Joint training" is the best of all joint methods that were run. On clean clips ours is compared with every other method
of the table, including ablations and other answers of our own encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dimml_training.compare.bootstrap import pooled_estimate
from dimml_training.compare.summary import CLEAN, Summary
from dimml_training.compare.tables import OURS, Row, plain, points, rows

PLAIN = ("late_logits", "late_probabilities", "dimml_logits", "dimml_probabilities")
JOINT = ("joint_concat", "joint_sum", "joint_film", "joint_gated", "ogm_ge", "mmpareto")
#: As shares: most that ours may be below plain averaging, lowest regret allowed, and least advantage over the best of
#: joint training and plain averaging under corruption.
BELOW_PLAIN, WORST_REGRET, ABOVE_RIVALS = 0.005, -0.03, 0.05
ECE = 0.03
#: Prefixes of the names of the data sets for which the target ``ABOVE_RIVALS`` is set.
ABOVE_RIVALS_ON = ("grid", "avmnist")


@dataclass(frozen=True)
class Target:
    """One target, the value found, and whether it is met; None if it has not been run yet."""

    what: str
    found: str
    met: bool | None
    #: Whether the target is set for this data set at all.
    asked: bool = True

    @property
    def verdict(self) -> str:
        """Whether the target is met, as a word for the table."""
        if not self.asked:
            return "not asked"
        return {True: "yes", False: "**no**", None: "not run yet"}[self.met]


def targets(summary: Summary) -> list[Target]:
    """Evaluate all targets on one data set."""
    if OURS not in summary.methods:
        return [Target("all of them", "ours has not been run yet", None)]
    development = summary.conditions(seen=False, in_means=True)
    by_name = {row.method: row for row in rows(summary)}
    return [
        _clean_best(summary, by_name),
        _not_below_plain(summary),
        _mean_regret(by_name[OURS]),
        _worst_regret(summary, development),
        _above_rivals(summary, development),
        _calibrated(by_name[OURS]),
    ]


def _clean_best(summary: Summary, by_name: dict[str, Row]) -> Target:
    what = "clean: the best, or not significantly below the best"
    rivals = [m for m in summary.methods if m != OURS]
    if not rivals:
        return Target(what, "not run yet", None)
    best = max(rivals, key=lambda m: by_name[m].clean.value)
    gap = summary.difference(OURS, best, [CLEAN])
    if gap is None:
        return Target(what, "not run yet", None)
    return Target(what, f"{points(gap)} against `{best}`", gap.high >= 0.0)


def _not_below_plain(summary: Summary) -> Target:
    what = f"clean: never significantly more than {100 * BELOW_PLAIN:g} points below plain averaging"
    gaps = {m: summary.difference(OURS, m, [CLEAN]) for m in PLAIN if m in summary.methods}
    there = {m: gap for m, gap in gaps.items() if gap is not None}
    if not there:
        return Target(what, "not run yet", None)
    worst = min(there, key=lambda m: there[m].high)
    return Target(what, f"{points(there[worst])} against `{worst}`", there[worst].high >= -BELOW_PLAIN)


def _mean_regret(ours: Row) -> Target:
    what = "development families: the interval of the mean regret reaches 0"
    if ours.mean_regret is None:
        return Target(what, "not run yet", None)
    return Target(what, points(ours.mean_regret), ours.mean_regret.high >= 0.0)


def _worst_regret(summary: Summary, development: Sequence[str]) -> Target:
    what = f"no development condition's interval wholly below {100 * WORST_REGRET:g} points"
    regrets = summary.regrets(OURS, development)
    if not regrets:
        return Target(what, "not run yet", None)
    worst = min(regrets, key=lambda name: regrets[name].high)
    return Target(what, f"{points(regrets[worst])} under {worst}", regrets[worst].high >= WORST_REGRET)


def _above_rivals(summary: Summary, development: Sequence[str]) -> Target:
    what = f"development families: {100 * ABOVE_RIVALS:g} points above the best of joint training and plain averaging"
    asked = summary.data.startswith(ABOVE_RIVALS_ON)
    joint, plain = (_best(summary, names, development) for names in (JOINT, PLAIN))
    if not development or joint is None or plain is None:
        return Target(what, "not run yet", None, asked)
    best = max(joint, plain, key=lambda m: summary.accuracy(m, development).value)
    gap = summary.difference(OURS, best, development)
    if gap is None:
        return Target(what, "not run yet", None, asked)
    return Target(what, f"{points(gap)} against `{best}`", gap.value >= ABOVE_RIVALS, asked)


def above_rivals_together(summaries: Sequence[Summary]) -> Target:
    """Evaluate the target ``ABOVE_RIVALS`` over all development conditions of several data sets together.

    Ours is compared with one rival for all of them: the best of the methods that every data set has.
    """
    development = {s.data: s.conditions(seen=False, in_means=True) for s in summaries}
    of_data = [s for s in summaries if s.data.startswith(ABOVE_RIVALS_ON) and OURS in s.methods and development[s.data]]
    names = ", ".join(f"`{s.data}`" for s in of_data)
    what = f"over all development conditions of {names or 'GRID and AV-MNIST'} together: {100 * ABOVE_RIVALS:g} points"
    found = []
    for rival in (*JOINT, *PLAIN):
        gaps = [s.gap(OURS, rival, development[s.data]) for s in of_data if rival in s.methods]
        parts = [gap for gap in gaps if gap is not None]
        if parts and len(parts) == len(of_data):
            found.append((rival, pooled_estimate(parts)))
    if not {rival for rival, _ in found} & set(JOINT) or not {rival for rival, _ in found} & set(PLAIN):
        return Target(what, "not run yet", None)
    rival, least = min(found, key=lambda pair: pair[1].value)
    return Target(what, f"{points(least)} against `{rival}`", least.value >= ABOVE_RIVALS)


def _calibrated(ours: Row) -> Target:
    what = f"clean ECE at most {ECE:g}, or at most a perfect calibrator's 95th percentile"
    return Target(
        what, f"{plain(ours.ece)} (perfect: {ours.ece_bound:.3f})", ours.ece.value <= max(ECE, ours.ece_bound)
    )


def _best(summary: Summary, names: Sequence[str], conditions: Sequence[str]) -> str | None:
    there = [name for name in names if name in summary.methods]
    if not there or not conditions:
        return None
    return max(there, key=lambda name: summary.accuracy(name, conditions).value)


def markdown(found: Sequence[Target]) -> str:
    """Format the targets as a Markdown table."""
    lines = ["| target | figure | met? |", "|---|---|---|"]
    lines += [f"| {t.what} | {t.found} | {t.verdict} |" for t in found]
    return "\n".join(lines) + "\n"
