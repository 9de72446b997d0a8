"""Reports, plots and the pictures of the docs in a real browser: whole, quiet, as narrow as a telephone, and readable.

Every other host is unresolvable there. The built site is `test_site.py`'s, the console `console/`'s.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import crawl_docs
import pytest

from dimml.cli import main
from dimml.fusion import FusionSpec
from dimml_client.scoring.report.timeline_plot import Timeline, draw
from dimml_training.report.page import write_report
from support.browsing import AXE
from support.data import REPOSITORY_ROOT, unavailable
from support.forked_workers import forked_workers

__all__ = ["forked_workers"]

RUN = REPOSITORY_ROOT / "tests" / "made_before" / "0.1.0" / "run"
SAMPLES = REPOSITORY_ROOT / "samples"
#: Pages that stand in the site under their own address; here all that they show, on one page.
SHOWN = [REPOSITORY_ROOT / "README.md", *sorted((REPOSITORY_ROOT / "docs").rglob("*.md"))]
PICTURE = re.compile(r"!\[([^]]*)\]\(([^)\s]+)\)")
PAGES = ("training.html", "scored.html", "plots.html", "docs.html")
#: WCAG 2.2, 1.4.3: text; large text and what is no text have 3.
CONTRAST = 4.5
#: axe-core does not judge text in SVG: each text against the page, or against the cell that it stands in. sRGB to
#: relative luminance and contrast as WCAG 2.2 define them.
FAINT_TEXT = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (top, share, below) => top.slice(0, 3).map((c, i) => share * c + (1 - share) * below[i]);
  const behind = (element) => {
    for (let at = element; at instanceof Element; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("svg text")].map((text) => {
    let below = behind(text.closest("svg"));
    const cell = text.parentElement.querySelector(":scope > rect.cell");
    if (cell) {
      const style = getComputedStyle(cell);
      below = over(numbers(style.fill), Number(style.fillOpacity), below);
    }
    const [a, b] = [luminance(numbers(getComputedStyle(text).fill)), luminance(below)].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), text.textContent];
  }).filter(([contrast]) => contrast < LIMIT).map(([contrast, words]) => `${contrast.toFixed(2)}: ${words}`);
}""".replace("LIMIT", str(CONTRAST))

#: Text of charts as it is shown: a drawing that is scaled to its page takes its text with it.
SMALLEST_TEXT_PX = 8
SMALL_TEXT = """() => [...document.querySelectorAll("svg text")]
  .map((text) => [text.getScreenCTM(), parseFloat(getComputedStyle(text).fontSize), text.textContent])
  .map(([matrix, size, words]) => [Math.hypot(matrix.a, matrix.b) * size, words])
  .filter(([size]) => size < LIMIT).map(([size, words]) => `${size.toFixed(1)} px: ${words}`)
""".replace("LIMIT", str(SMALLEST_TEXT_PX))


def training_report(folder: Path) -> Path:
    """The report of a finished run that has been damaged on purpose and whose fusion was chosen among two."""
    run = Path(shutil.copytree(RUN, folder / "run"))
    heads = {"audio": {"accuracy": 0.4}, "visual": {"accuracy": 0.8}, "fused": {"accuracy": 0.9}}
    one = {"in_means": True, "accuracy": 0.9, "heads": heads, "better": "visual", "regret": -0.0125}
    conditions = {
        "clean": one | {"seen": True},
        "audio:white_10db": one | {"seen": True},
        "audio:white_0db": one | {"seen": True, "accuracy": 0.7},
        "visual:patch_60pct": one | {"seen": False},
    }
    (run / "corruptions.json").write_text(json.dumps({"conditions": conditions}))
    spec = FusionSpec(fused_head=True, certainty="max_prob", pooling="product", temperature=0.2).model_dump(mode="json")
    figures = {"spec": spec, "clean_accuracy": 0.9, "mean_accuracy": 0.8, "mean_regret": 0.0, "worst_regret": -0.1}
    chosen = {"chosen": figures | {"clean_ece": 0.04}, "instead_of": {"paper": figures | {"clean_ece": 0.05}}}
    (run / "fusion.json").write_text(
        json.dumps({"schema_version": 1, "spec": spec, "parameters_sha256": None, "report": chosen})
    )
    return write_report(run)


def timeline(windows: int) -> Timeline:
    """A recording whose sound is silent for a third, and whose picture freezes for another."""
    rows = []
    for n in range(windows):
        gone = {"audio": 1 <= 3 * n // windows < 2, "visual": 3 * n // windows >= 2}
        row: dict[str, Any] = {"start_s": n / 2, "end_s": n / 2 + 1, "label": "low", "error": None}
        row |= {"fused_certainty": 0.7, "fused_weight": 0.2}
        for name, reason in (("audio", "silent"), ("visual", "frozen")):
            row[f"{name}_status"] = f"unusable:{reason}" if gone[name] else "ok"
            row[f"{name}_label"] = None if gone[name] else "high" if n % 5 else "low"
            row[f"{name}_certainty"] = None if gone[name] else 0.6 + 0.3 * (n % 2)
            row[f"{name}_weight"] = 0.0 if gone[name] else 0.4
        rows.append(row)
    return Timeline("camera $1 & 2.mp4", rows, ["high", "low"], ["audio", "visual"], fused_head=True)


def page_of(pictures: list[tuple[str, str]]) -> str:
    """A page of pictures, given as address and text."""
    shown = "\n".join(f'<p><img src="{quote(at)}" alt="{escape(text)}"></p>' for at, text in pictures)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>pictures</title>'
    head += '<link rel="icon" href="data:,">'
    return f'<!doctype html><html lang="en"><head>{head}<style>img {{ max-width: 100% }}</style></head>{shown}</html>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page of PAGES."""
    made = tmp_path_factory.mktemp("pages")
    shutil.copy(training_report(made), made / "training.html")
    words = [str(SAMPLES / "samples.csv"), "--column", "path=file", "--cores", "1", "-q", "--fail-on", "never"]
    out = ["--out", str(made / "t.parquet"), "--report", str(made / "scored.html")]
    assert main(["score", *words, "--repository", str(REPOSITORY_ROOT / "model_repository"), *out]) == 0
    for name, windows in (("short.svg", 12), ("short.png", 12), ("long.svg", 1300)):
        draw(timeline(windows), made / name)
    (made / "plots.html").write_text(page_of([(name, name) for name in ("short.svg", "short.png", "long.svg")]))
    shown = []
    for page in SHOWN:
        for text, target in PICTURE.findall(page.read_text(encoding="utf-8")):
            there = (page.parent / target).resolve()
            assert text, f"{page.name} shows {target} without words for who cannot see it"
            shown.append((f"all/{there.relative_to(REPOSITORY_ROOT)}", text))
    assert len(shown) > 15
    (made / "docs.html").write_text(page_of(shown))
    (made / "all").mkdir()
    for part in ("docs", "README.md"):
        (made / "all" / part).symlink_to(REPOSITORY_ROOT / part)
    return made


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Any]:
    """Chromium; after the pages, so that nothing is forked beside it."""
    if shutil.which("chromium") is None:
        unavailable("chromium is not installed")
    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    with crawl_docs.chromium() as it:
        yield it


def faults(browser: Any, root: str, name: str) -> list[str]:
    """What is wrong with a page: requests, errors, pictures, width, and text that is hard to read, light and dark."""
    page, crawl = browser.new_page(viewport=crawl_docs.NARROW), crawl_docs.Crawl()
    crawl_docs.watch(page, root, crawl)
    page.goto(root + name)
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
    found = [f"broken picture: {source}" for source in page.evaluate(
        "[...document.images].filter((one) => !one.complete || !one.naturalWidth).map((one) => one.src)"
    )]  # fmt: skip
    wide = page.evaluate("document.documentElement.scrollWidth")
    if wide > crawl_docs.NARROW["width"]:
        found.append(f"{wide} px wide")
    found += page.evaluate(SMALL_TEXT)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {words}" for words in page.evaluate(FAINT_TEXT)]
        # The other pages are this file's own, pictures and nothing else.
        if AXE.is_file() and name not in ("plots.html", "docs.html"):
            if scheme == "light":
                page.evaluate(AXE.read_text(encoding="utf-8"))
            rules = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}
            judged = page.evaluate("(options) => axe.run(document, options)", {"resultTypes": ["violations"], **rules})
            found += [
                f"{scheme}: {one['id']}: {one['nodes'][0]['target']}"
                for one in judged["violations"]
                if one["impact"] in ("serious", "critical")
            ]
    page.close()
    return [*crawl.problems, *found]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_readable(browser: Any, folder: Path, name: str) -> None:
    with crawl_docs.served(folder) as root:
        assert faults(browser, root, name) == []
        assert "<svg" in (folder / name).read_text() or "<img" in (folder / name).read_text()


def test_what_is_wrong_is_seen(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        '<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src \'self\'">'
        '<p style="color: #eee">faint</p><svg width="900"><text fill="#888" font-size="7.5">grey</text></svg>'
        '<img src="gone.png">'
    )
    with crawl_docs.served(tmp_path) as root:
        found = "\n".join(faults(browser, root, "bad.html"))
    faulty = ["404 for", "Content Security Policy", "broken picture", "px wide", "7.5 px: grey", "light: 3.54: grey"]
    if AXE.is_file():
        faulty.append("image-alt")
    assert [fault for fault in faulty if fault not in found] == []
