"""Draw Grafana's dashboard without Grafana: its own queries, answered by a real Prometheus on the real server.

    python scripts/dashboard_picture.py [--out docs/images/dashboard.png] [--scale 60]

A server with a tiny bundle gets traffic while one thing after another happens to its microphone: a third of the
recordings is silent, all is well again, every recording has noise for sound, all is well. Windows of rules and of the
dashboard are ``--scale`` times shorter than the deployed ones, and the picture's time axis is as much longer: one
second stands for a minute. Takes three minutes. Needs what the tests need, Debian's prometheus among it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from support.data import REPOSITORY_ROOT
from support.monitoring import DASHBOARD, Prometheus, running_prometheus, shortened
from support.server_process import running_server
from support.traffic import Traffic, clean_clips, noisy_clips, referenced_bundle, silent_clips

#: What happens, and for how many seconds.
STORY = (("all is well", 30), ("a third silent", 35), ("all is well", 30), ("noise", 45), ("all is well", 25))
#: Tables and figures are those of the end of this part.
INSTANT = 1
HEIGHT_OF_A_CELL = 0.42
FIRST_COLUMNS = ("alertname", "severity", "model", "version", "modality", "instance", "reference", "python")


def main() -> None:
    """Run the story, then draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=REPOSITORY_ROOT / "docs" / "images" / "dashboard.png")
    parser.add_argument("--scale", type=float, default=60.0, help="how many times shorter windows are")
    given = parser.parse_args()
    dashboard = json.loads(DASHBOARD.read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clean = clean_clips(folder)
        clips = {
            "all is well": clean,
            "a third silent": [clean[0], clean[1], silent_clips(folder)[2]],
            "noise": noisy_clips(folder),
        }
        referenced_bundle(folder / "models", clean)
        with (
            running_server(folder / "models", drift_window=60, drift_minimum=20) as server,
            running_prometheus(folder / "prometheus", server.http, divide_by=given.scale) as prometheus,
            Traffic(server.url, clean, pause_s=0.05) as traffic,
        ):
            began = time.time()
            changes: list[tuple[float, str]] = []
            instants: dict[int, list[dict[str, Any]]] = {}
            for part, (what, seconds) in enumerate(STORY):
                print(f"{what}, {seconds} s", flush=True)
                traffic.clips = clips[what]
                changes.append((time.time() - began, what))
                time.sleep(seconds)
                if part == INSTANT:
                    instants = _instants(dashboard, prometheus, given.scale)
            _draw(dashboard, prometheus, instants, changes, began=began, scale=given.scale, out=given.out)
    print(given.out)


def _query(expression: str, scale: float) -> str:
    return shortened(re.sub(r"\$\w+", ".*", expression), scale)


def _instants(dashboard: dict[str, Any], prometheus: Prometheus, scale: float) -> dict[int, list[dict[str, Any]]]:
    """Answers of figures and tables by panel."""
    panels = [panel for panel in dashboard["panels"] if panel["type"] in ("stat", "table")]
    return {panel["id"]: prometheus.query(_query(panel["targets"][0]["expr"], scale)) for panel in panels}


def _draw(
    dashboard: dict[str, Any],
    prometheus: Prometheus,
    instants: dict[int, list[dict[str, Any]]],
    changes: list[tuple[float, str]],
    *,
    began: float,
    scale: float,
    out: Path,
) -> None:
    end = time.time()
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = Figure(figsize=(22, rows * HEIGHT_OF_A_CELL), facecolor="#f4f5f5")
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        # A margin around each for titles and numbers.
        box = (
            (at["x"] + 0.75) / 24,
            1 - (at["y"] + at["h"] - 1.15) / rows,
            (at["w"] - 1.15) / 24,
            (at["h"] - 2.4) / rows,
        )
        if panel["type"] == "row":
            figure.text(0.008, 1 - (at["y"] + 0.8) / rows, panel["title"], fontsize=15, weight="bold")
            continue
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=11, loc="left")
        if panel["type"] == "timeseries":
            _lines(axes, panel, prometheus, began=began, end=end, scale=scale)
            for moment, _ in changes[1:]:
                axes.axvline(moment * scale / 60, color="#888888", linewidth=0.6, linestyle=":")
        elif panel["type"] == "stat":
            _figure(axes, panel, instants[panel["id"]])
        else:
            _table(axes, instants[panel["id"]])
    story = "; ".join(f"from {moment * scale / 60:.0f} min {what}" for moment, what in changes)
    source = "No screenshot of Grafana: drawn in matplotlib by scripts/dashboard_picture.py, from Prometheus's answers"
    story = f"Time axis in minutes: {story}. Tables and figures: while a third is silent."
    figure.text(0.008, 0.004, f"{source} to the dashboard's own queries.\n{story}", fontsize=11)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=70)


def _lines(axes: Any, panel: dict[str, Any], prometheus: Prometheus, *, began: float, end: float, scale: float) -> None:
    stacked: list[tuple[list[float], list[float], str]] = []
    defaults = panel["fieldConfig"]["defaults"]
    for target in panel["targets"]:
        for series in prometheus.query_range(_query(target["expr"], scale), began, end, 1.0):
            label = re.sub(
                r"\{\{(\w+)\}\}", lambda m, of=series["metric"]: of.get(m[1], ""), target["legendFormat"]
            ).strip()
            minutes = [(moment - began) * scale / 60 for moment, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            if defaults["custom"]["stacking"]["mode"] == "normal":
                stacked.append((minutes, values, label))
            else:
                axes.plot(minutes, values, label=label, linewidth=1.4)
    if stacked:
        moments = sorted({moment for minutes, _, _ in stacked for moment in minutes})
        filled = [
            [dict(zip(minutes, values, strict=True)).get(m, 0.0) for m in moments] for minutes, values, _ in stacked
        ]
        axes.stackplot(moments, filled, labels=[label for _, _, label in stacked], alpha=0.75)
    for step in defaults.get("thresholds", {}).get("steps", ())[1:]:
        axes.axhline(step["value"], color="red", linestyle="--", linewidth=0.9)
    axes.set_xlim(0, (end - began) * scale / 60)
    # Room for the legend above the highest line.
    axes.set_ylim(bottom=0, top=defaults.get("max", 1.25 * axes.get_ylim()[1]))
    if defaults.get("unit") == "bytes":
        axes.yaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="upper left", ncols=2, framealpha=0.6)


def _figure(axes: Any, panel: dict[str, Any], answer: list[dict[str, Any]]) -> None:
    value = float(answer[0]["value"][1]) if answer else None
    unit = panel["fieldConfig"]["defaults"]["unit"]
    color = "#bbbbbb"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if value is not None and (step["value"] is None or value >= step["value"]):
            color = step["color"]
    text = {
        "percentunit": lambda v: f"{v:.1%}",
        "s": lambda v: f"{1000 * v:.0f} ms",
        "reqps": lambda v: f"{v:.1f}/s",
    }.get(unit, lambda v: f"{v:g}")
    axes.set_facecolor(color)
    axes.text(0.5, 0.5, "no data" if value is None else text(value), ha="center", va="center", fontsize=20)
    axes.set(xticks=[], yticks=[])


def _table(axes: Any, answer: list[dict[str, Any]]) -> None:
    axes.axis("off")
    if not answer:
        axes.text(0.0, 0.8, "none", fontsize=11)
        return
    names = {name for series in answer for name in series["metric"]}
    columns = [name for name in FIRST_COLUMNS if name in names]
    cells = [[series["metric"].get(name, "") for name in columns] for series in answer]
    table = axes.table(cellText=cells, colLabels=columns, loc="upper left", cellLoc="left")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(range(len(columns)))


if __name__ == "__main__":
    main()
