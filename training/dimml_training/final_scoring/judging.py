"""The figures by which the final families judge: errors against the best rival, mean regret, and its worst fifth.

All come from the bits of the cells, by a paired bootstrap over clips within folds and seeds (``compare.bootstrap``):
one draw of clips serves every method and condition. Shape suffixes: S resamples, P clips of all repeats, K conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dimml_training.compare.bootstrap import LEVEL, Estimate, FloatArray, pooled_estimate
from dimml_training.compare.summary import CLEAN, SINGLE, Summary
from dimml_training.compare.tables import OURS, percent, points
from dimml_training.fusion_selection.candidate_scores import TAIL, tail_mean

#: Targets, as shares: fewer errors than the best rival, and the least mean regret of the worst fifth of conditions.
FEWER_ERRORS, LEAST_TAIL = 0.25, -0.03
#: Answers of ours, and ablations: no rivals. `separate_logits` is one: a plain average of separately trained heads is
#: nothing of ours, though the fused head is among them; and one more rival can only make the best of them better.
OWN = (OURS, "separate_chosen")


@dataclass(frozen=True)
class Judgement:
    """Figures of ours over some data sets; shares. Regrets are None before every modality has been run alone."""

    data: tuple[str, ...]
    conditions: int
    rival: str | None
    fewer_errors: Estimate | None
    regret: Estimate | None
    tail: Estimate | None
    #: The worst condition, its data set, and its regret.
    worst: tuple[str, str, float] | None


def rivals(summary: Summary) -> list[str]:
    """Methods that are no answer of ours, no ablation, and no modality alone."""
    return [
        method
        for method in summary.methods
        if not method.startswith((SINGLE, "dimml:"))
        and (method == "dimml_published" or not method.startswith("dimml"))
        and method not in OWN
    ]


def judge(summaries: Sequence[Summary]) -> Judgement:
    """Judge ours over all conditions of these data sets together; the rival is the best that all of them have."""
    there = [s for s in summaries if OURS in s.methods]
    conditions = {s.data: s.conditions(in_means=True) for s in there}
    regrets = {s.data: s.regret_gap(OURS, conditions[s.data]) for s in there}
    known = {data: found for data, found in regrets.items() if found is not None}
    whole = bool(known) and len(known) == len(there)
    worst = None
    if whole:
        by_name = [
            (data, name, float(value))
            for data, (gaps_KP, _) in known.items()
            for name, value in zip(conditions[data], gaps_KP.mean(axis=1), strict=True)
        ]
        worst = min(by_name, key=lambda found: found[2])
    rival, fewer = _best_rival(there, conditions)
    return Judgement(
        data=tuple(s.data for s in there),
        conditions=sum(map(len, conditions.values())),
        rival=rival,
        fewer_errors=fewer,
        regret=pooled_estimate(list(known.values())) if whole else None,
        tail=tail_estimate(list(known.values())) if whole else None,
        worst=worst,
    )


def tail_estimate(parts: Sequence[tuple[FloatArray, FloatArray]]) -> Estimate:
    """Mean regret of the worst fifth of the conditions of all parts (``[K, P]`` regrets, ``[S, P]`` weights).

    Which conditions are the worst is found anew in every resample, where noise makes them worse: the interval lies
    somewhat low, the more so the fewer clips there are.
    """
    value = tail_mean(np.concatenate([gaps_KP.mean(axis=1) for gaps_KP, _ in parts]))
    means_SK = np.concatenate([weights_SP @ gaps_KP.T / weights_SP.shape[1] for gaps_KP, weights_SP in parts], axis=1)
    return _with_bounds(value, np.array([tail_mean(means_K) for means_K in means_SK]))


def fewer_errors(parts: Sequence[tuple[FloatArray, FloatArray, FloatArray]]) -> Estimate:
    """How many errors fewer, as a share of theirs: 1 minus the ratio of error rates over all conditions of all parts.

    A part has the right answers of ours and of theirs, ``[K, P]`` each, and the weights, ``[S, P]``.
    """
    ours = sum(float((1.0 - own_KP).mean(axis=1).sum()) for own_KP, _, _ in parts)
    theirs = sum(float((1.0 - other_KP).mean(axis=1).sum()) for _, other_KP, _ in parts)

    def sampled(place: int) -> FloatArray:
        return np.asarray(
            np.sum([part[2] @ (1.0 - part[place]).sum(axis=0) / part[2].shape[1] for part in parts], axis=0)
        )

    with np.errstate(divide="ignore", invalid="ignore"):
        samples_S = 1.0 - sampled(0) / sampled(1)
    return _with_bounds(1.0 - ours / theirs if theirs > 0 else float("nan"), samples_S)


def _best_rival(summaries: Sequence[Summary], conditions: dict[str, list[str]]) -> tuple[str | None, Estimate | None]:
    """The rival with the fewest errors over all conditions, and how many fewer ours has."""
    shared = [m for m in (rivals(summaries[0]) if summaries else []) if all(m in s.methods for s in summaries)]
    found = []
    for method in shared:
        parts = [s.both_right(OURS, method, conditions[s.data]) for s in summaries]
        there = [part for part in parts if part is not None]
        if there and len(there) == len(parts):
            found.append((method, fewer_errors(there)))
    if not found:
        return None, None
    return min(found, key=lambda pair: pair[1].value)


def method_lines(summary: Summary) -> list[str]:
    """A Markdown table of every method of a data set: clean, and over all final conditions, with intervals."""
    conditions = summary.conditions(in_means=True)
    lines = ["| method | clean | final families | mean regret | worst fifth | n |", "|---|---|---|---|---|---|"]
    for method, of_method in summary.cells.items():
        gap = summary.regret_gap(method, conditions) if conditions else None
        shown = ("–", "–") if gap is None else (points(pooled_estimate([gap])), points(tail_estimate([gap])))
        mean = percent(summary.accuracy(method, conditions)) if conditions else "–"
        clean = percent(summary.accuracy(method, [CLEAN]))
        lines.append(f"| `{method}` | {clean} | {mean} | {shown[0]} | {shown[1]} | {len(of_method)} |")
    return lines


def judgement_lines(judgement: Judgement) -> list[str]:
    """The figures as Markdown, with what each must reach."""
    lines = [
        "| figure | found | must be | reached? |",
        "|---|---|---|---|",
    ]

    def row(what: str, found: Estimate | None, must: str, met: bool | None) -> str:
        shown = "not run yet"
        if found is not None:
            shown = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        return f"| {what} | {shown} | {must} | {'–' if met is None else 'yes' if met else '**no**'} |"

    errors, regret, tail = judgement.fewer_errors, judgement.regret, judgement.tail
    lines += [
        row(
            f"fewer errors than `{judgement.rival}`, %" if judgement.rival else "fewer errors than the best rival, %",
            errors,
            f"at least {100 * FEWER_ERRORS:g}",
            None if errors is None else errors.value >= FEWER_ERRORS,
        ),
        row("mean regret, points", regret, "interval reaches 0", None if regret is None else regret.high >= 0.0),
        row(
            f"regret of the worst {100 * TAIL:g} % of conditions, points",
            tail,
            f"at least {100 * LEAST_TAIL:g}",
            None if tail is None else tail.value >= LEAST_TAIL,
        ),
    ]
    if judgement.worst is not None:
        data, name, regret_of_worst = judgement.worst
        lines.append(f"| the worst condition, points | {100 * regret_of_worst:+.1f} {data} {name} | printed | – |")
    return lines


def _with_bounds(value: float, samples_S: FloatArray) -> Estimate:
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(samples_S, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high))
