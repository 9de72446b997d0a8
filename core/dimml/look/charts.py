"""Charts as inline SVG, coloured by the page's CSS variables so that they follow light and dark.

Every text passes through ``Markup.format``, which escapes it: labels come from data, and data are not trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dimml.metrics.classification import BINS, CalibrationBins, Ints

WIDTH, HEIGHT = 520.0, 250.0
#: Of 11 px, the text of axes, this leaves 8.25 px.
SMALLEST_SCALE = 0.75
LEFT, RIGHT, TOP, BOTTOM = 46.0, 24.0, 12.0, 36.0
#: Most classes for which a confusion matrix shows numbers, and for which it shows names.
CLASSES_WITH_NUMBERS, CLASSES_WITH_NAMES = 12, 30


@dataclass(frozen=True)
class Series:
    """One line: its name, its colour (a CSS class such as ``c0``), and its points; NaN breaks the line."""

    name: str
    colour: str
    xs: Sequence[float]
    ys: Sequence[float]
    dashed: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    per_cent: bool = False,
    marks: Sequence[tuple[float, str]] = (),
    x_names: Sequence[str] = (),
    chance: float | None = None,
) -> Markup:
    """Draw lines over a common x axis.

    ``marks`` are labelled vertical lines, whose labels stand below each other; ``x_names`` replaces numbers on x, and
    ``chance`` is the share that guessing gets.
    """
    finite = [(x, y) for s in series for x, y in zip(s.xs, s.ys, strict=True) if math.isfinite(y)]
    if not finite:
        return Markup("")
    low_x, high_x = min(x for x, _ in finite), max(x for x, _ in finite)
    ticks_y = [0.0, 0.25, 0.5, 0.75, 1.0] if per_cent else nice_ticks(min(0.0, *(y for _, y in finite)), _top(finite))
    low_y, high_y = ticks_y[0], ticks_y[-1]

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((x - low_x) / (high_x - low_x) if high_x > low_x else 0.5)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (y - low_y) / (high_y - low_y)

    parts = [_grid(ticks_y, up, per_cent=per_cent)]
    ticks_x = range(len(x_names)) if x_names else _whole_ticks(low_x, high_x)
    for tick in ticks_x:
        name = x_names[tick] if x_names else f"{tick:g}"
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                across(tick), HEIGHT - BOTTOM + 16, name
            )
        )
    shown = [(across(x), word) for x, word in sorted(marks) if low_x <= x <= high_x]
    for line, (x, word) in enumerate(shown):
        parts.append(
            Markup(
                '<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
                '<text class="tick" x="{3:.1f}" y="{4}" text-anchor="{5}">{6}</text>'
            ).format(x, TOP, HEIGHT - BOTTOM, *_beside(x, line), word)
        )
    if chance is not None:
        parts.append(
            Markup(
                '<line class="chance" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text class="tick" x="{1}" y="{3:.1f}" text-anchor="end">chance</text>'
            ).format(LEFT, WIDTH - RIGHT, up(chance), up(chance) - 4)
        )
    for one in series:
        parts.append(_line(one, across, up, per_cent=per_cent))
    parts.append(_axis_names(x_label, y_label))
    return _svg(WIDTH, HEIGHT, parts, f"{y_label} by {x_label}")


def reliability_chart(found: CalibrationBins, css: str) -> Markup:
    """Draw accuracy against confidence, and below it the number of clips of each confidence."""
    side, foot, left, top = 190.0, 44.0, 40.0, 10.0
    step = side / BINS
    rows_K, accuracy_K, confidence_K = found.rows, found.accuracy, found.confidence
    most = max(1, int(rows_K.max()))
    parts = []
    for tick in (0.0, 0.5, 1.0):
        y = top + side * (1 - tick)
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
                '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5:.0%}</text>'
                '<text class="tick" x="{6:.1f}" y="{7}" text-anchor="middle">{5:.0%}</text>'
            ).format(left, left + side, y, left - 6, y + 4, tick, left + side * tick, top + side + foot + 16)
        )
    for index in range(BINS):
        clips, accuracy = int(rows_K[index]), float(accuracy_K[index])
        if clips == 0:
            continue
        x = left + index * step
        parts.append(
            Markup(
                "<g><title>{} clips, confidence {:.1%}, right {:.1%}</title>"
                '<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
                '<rect class="count" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/></g>'
            ).format(
                clips,
                float(confidence_K[index]),
                accuracy,
                css,
                x + 1,
                top + side * (1 - accuracy),
                step - 2,
                max(1.0, side * accuracy),
                x + 1,
                top + side + 4,
                step - 2,
                max(1.0, (foot - 6) * clips / most),
            )
        )
    parts.append(
        Markup('<line class="diagonal" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(left, top + side, left + side, top)
    )
    parts.append(
        Markup('<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">confidence</text>').format(
            left + side / 2, top + side + foot + 32
        )
    )
    return _svg(left + side + 20, top + side + foot + 38, parts, f"reliability, ECE {found.ece:.3f}")


def confusion_chart(counts_CC: Ints, labels: Sequence[str]) -> Markup:
    """Draw a confusion matrix, rows truth, columns answer; the shade is the share of the row."""
    classes = len(labels)
    names = classes <= CLASSES_WITH_NAMES
    longest = max((len(label) for label in labels), default=0)
    margin = min(110.0, 14 + 6.2 * longest) if names else 10.0
    cell = max(4.0, min(34.0, 300.0 / classes))
    parts = []
    totals = counts_CC.sum(axis=1)
    if not names:
        # With hundreds of classes nearly every cell is empty: one rectangle stands for all empty cells.
        parts.append(
            Markup(
                '<rect class="cell miss" x="{0:.1f}" y="{0:.1f}" width="{1:.1f}" height="{1:.1f}" fill-opacity="0.04"/>'
            ).format(margin, classes * cell - 1)
        )
    for row in range(classes):
        for column in range(classes):
            count = int(counts_CC[row, column])
            if not names and not count:
                continue
            share = count / max(1, int(totals[row]))
            x, y = margin + column * cell, margin + row * cell
            parts.append(
                Markup(
                    '<g><title>{} taken for {}: {} of {}</title><rect class="cell {}" x="{:.1f}" y="{:.1f}" '
                    'width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}"/>'
                ).format(
                    labels[row],
                    labels[column],
                    count,
                    int(totals[row]),
                    "hit" if row == column else "miss",
                    x,
                    y,
                    cell - 1,
                    cell - 1,
                    0.04 + 0.96 * share,
                )
            )
            if classes <= CLASSES_WITH_NUMBERS and count:
                parts.append(
                    Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                        "number strong" if share > 0.5 else "number", x + cell / 2, y + cell / 2 + 4, count
                    )
                )
            parts.append(Markup("</g>"))
    for index, label in enumerate(labels if names else ()):
        middle = margin + (index + 0.5) * cell
        short = label if len(label) <= 16 else label[:15] + "…"
        parts.append(
            Markup(
                '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>'
                '<text class="tick" transform="translate({:.1f} {:.1f}) rotate(-60)">{}</text>'
            ).format(margin - 5, middle + 4, short, middle + 3, margin - 5, short)
        )
    # Slanted names of the last columns lean out to the right.
    size = margin + classes * cell
    return _svg(size + (margin * 0.5 if names else 4.0), size + 4, parts, "confusion matrix")


@dataclass(frozen=True)
class DotRow:
    """One line of a dot chart: its name, whether a diamond marks it, and its dots as (name, colour, share)."""

    name: str
    dots: Sequence[tuple[str, str, float]]
    marked: bool = False


def dot_chart(rows: Sequence[DotRow], *, chance: float | None = None) -> Markup:
    """Draw one line per row with its dots; ``chance`` is the share that guessing gets."""
    # Wide enough for the longest name.
    left, width, line = 36 + 5.8 * max((len(row.name) for row in rows), default=0), WIDTH, 19.0
    height = 26 + line * len(rows) + 8
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + (width - left - 20) * tick
        parts.append(
            Markup(
                '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="20" y2="{1}"/>'
                '<text class="tick" x="{0:.1f}" y="12" text-anchor="middle">{2:.0%}</text>'
            ).format(x, height - 4, tick)
        )
    if chance is not None:
        parts.append(
            Markup(
                '<line class="chance" x1="{0:.1f}" x2="{0:.1f}" y1="20" y2="{1}"><title>chance</title></line>'
            ).format(left + (width - left - 20) * chance, height - 4)
        )
    for index, row in enumerate(rows):
        name = f"{row.name} ◇" if row.marked else row.name
        y = 26 + line * (index + 0.5)
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(left - 8, y + 4, name)
        )
        for what, css, share in row.dots:
            parts.append(
                Markup(
                    '<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}, {}: {:.1%}</title></circle>'
                ).format(css, left + (width - left - 20) * share, y, 6.5 if css == "answer" else 4.5, name, what, share)
            )
    return _svg(width, height, parts, "accuracy by condition")


def nice_ticks(low: float, high: float) -> list[float]:
    """About five round numbers that cover ``low`` to ``high``."""
    span = high - low if high > low else 1.0
    rough = span / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    return [step * k for k in range(first, last + 1)]


def _top(points: Sequence[tuple[float, float]]) -> float:
    return max(y for _, y in points)


def _whole_ticks(low: float, high: float) -> list[int]:
    step = max(1, math.ceil((high - low) / 8))
    return list(range(math.ceil(low), math.floor(high) + 1, step))


def _beside(x: float, line: int) -> tuple[float, float, str]:
    """Position of a mark's label: on the side with more room, in a line of its own."""
    y = TOP + 10 + 13 * line
    return (x - 4, y, "end") if x > WIDTH / 2 else (x + 4, y, "start")


def _grid(ticks: Sequence[float], up: Callable[[float], float], *, per_cent: bool) -> Markup:
    line = Markup(
        '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
        '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
    )
    return Markup("").join(
        line.format(LEFT, WIDTH - RIGHT, up(t), LEFT - 6, up(t) + 4, f"{t:.0%}" if per_cent else f"{t:g}")
        for t in ticks
    )


def _line(one: Series, across: Callable[[float], float], up: Callable[[float], float], *, per_cent: bool) -> Markup:
    path, pen = [], "M"
    dots = []
    points = [(x, y) for x, y in zip(one.xs, one.ys, strict=True)]
    for x, y in points:
        if not math.isfinite(y):
            pen = "M"
            continue
        path.append(f"{pen}{across(x):.1f} {up(y):.1f}")
        pen = "L"
        value = f"{y:.1%}" if per_cent else f"{y:.4g}"
        # Invisible until pointed at, except for a point that is a line of its own.
        dots.append(
            Markup(
                '<circle class="point {}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}, {:g}: {}</title></circle>'
            ).format(one.colour if len(points) == 1 else f"hidden {one.colour}", across(x), up(y), one.name, x, value)
        )
    style = "line dashed" if one.dashed else "line"
    return Markup('<path class="{} {}" d="{}"/>{}').format(style, one.colour, " ".join(path), Markup("").join(dots))


def _axis_names(x_label: str, y_label: str) -> Markup:
    return Markup(
        '<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">{}</text>'
        '<text class="axis" transform="translate(11 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>'
    ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x_label, (TOP + HEIGHT - BOTTOM) / 2, y_label)


def _svg(width: float, height: float, parts: Sequence[Markup], description: str) -> Markup:
    # Scaled down further, its text could not be read: a narrow page scrolls it (`.chart` in page.css).
    return Markup(
        '<div class="chart" tabindex="0"><svg viewBox="0 0 {0:.0f} {1:.0f}" '
        'style="max-width:{0:.0f}px;min-width:{3:.0f}px" role="img" aria-label="{2}">{4}</svg></div>'
    ).format(width, height, description, SMALLEST_SCALE * width, Markup("").join(parts))
