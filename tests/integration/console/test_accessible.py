"""Everybody can use the page: axe-core, keyboard alone, narrow screens; and it is small and quick."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from dimml_server.console.page import page_files
from support.browsing import AXE, Console
from support.data import REPOSITORY_ROOT, unavailable
from support.server_process import ServerProcess

SAMPLES = REPOSITORY_ROOT / "samples"
#: All that a first view fetches, and all that there is without sample clips.
FIRST_VIEW_BYTES, PAGE_BYTES = 150_000, 300_000
TABS = ("Try", "Timeline", "Models", "Now")


def filled(console: Console, tab: str) -> None:
    """Each tab with as much in it as it can have."""
    page = console.page
    page.get_by_role("button", name="seven: clean").click()
    console.answer("seven")
    if tab == "Try":
        page.get_by_role("checkbox", name="audio").uncheck()
        page.get_by_text("before:").wait_for()
        page.get_by_role("button", name="Which moments mattered?").click()
        page.get_by_role("img", name="fall of the probability").first.wait_for()
    else:
        console.tab(tab)
    if tab == "Timeline":
        page.get_by_role("button", name="Judge all of it").click()
        page.get_by_role("slider", name="Place in the recording").wait_for()
    elif tab == "Models":
        page.get_by_role("button", name="Show the controls").click()
        page.get_by_role("region", name="Control of avdigits").wait_for()
        page.get_by_role("article", name="avdigits version 1").get_by_text("Accuracy").first.wait_for()
    elif tab == "Now":
        page.get_by_role("img", name="Requests a second").locator("canvas").wait_for()


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_is_for_everybody(console: Console, tab: str) -> None:
    """axe-core in light and dark, and a narrow screen that scrolls in one direction: of one page, which is costly."""
    if not AXE.is_file():
        unavailable("axe-core is not installed: make console")
    filled(console, tab)
    for folded in console.page.get_by_text("as a table").all()[:2]:
        if folded.is_visible():
            folded.click()
    assert console.axe() == []
    console.page.emulate_media(color_scheme="dark")
    assert console.axe("color-contrast") == []
    console.page.set_viewport_size({"width": 360, "height": 900})
    assert console.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_keyboard_alone_is_enough(console: Console) -> None:
    page = console.page
    page.get_by_role("button", name="three: clean").wait_for()
    page.get_by_role("tab", name="Try").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("tab", name="Timeline", selected=True).wait_for()
    page.get_by_role("tabpanel", name="Timeline").get_by_role("button", name="Drop a recording").wait_for()
    page.keyboard.press("Home")
    page.get_by_role("tab", name="Try", selected=True).wait_for()
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.evaluate("""() => {
            let at = document.activeElement;
            while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
            return [at.textContent.trim(), getComputedStyle(at).outlineStyle];
        }""")
        assert focused[1] != "none", f"focus is not seen on {focused[0]!r}"
        if focused[0] == "three: clean":
            break
    page.keyboard.press("Enter")
    console.answer("three")


def test_light_and_dark_are_switched_and_not_kept(console: Console) -> None:
    page = console.page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Colours: system").click()
    page.get_by_role("button", name="Colours: light").click()
    console.until(f"{background} !== {light!r}")
    page.reload()
    page.get_by_role("button", name="Colours: system").wait_for()
    assert page.evaluate(background) == light


def test_the_page_is_small(browser: Any, server: ServerProcess) -> None:
    with Console.opened(browser, server.url, path="/health/live") as console:
        sizes: dict[str, int] = {}
        console.page.on("response", lambda response: sizes.__setitem__(response.url, len(response.body())))
        console.page.goto(f"{server.url}/console")
        console.page.get_by_role("button", name="Drop a recording").wait_for()
        console.page.wait_for_load_state("networkidle")
    fetched = {url: size for url, size in sizes.items() if "/console/" in url}
    assert len(fetched) >= 3
    assert sum(fetched.values()) < FIRST_VIEW_BYTES, fetched
    everything = sum(one.path.stat().st_size for name, one in page_files().items() if not name.startswith("samples/"))
    assert everything < PAGE_BYTES


def test_the_page_is_served_as_its_policy_says_and_assets_are_kept(server: ServerProcess) -> None:
    moved = httpx.get(f"{server.url}/console")
    assert (moved.status_code, moved.headers["Location"]) == (307, "console/")
    page = httpx.get(f"{server.url}/console/")
    assert page.headers["Content-Security-Policy"] == (
        "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; frame-ancestors 'none'; object-src 'none'"
    )
    assert page.headers["Cache-Control"] == "no-cache"
    assert "<style" not in page.text
    assert " style=" not in page.text
    for name in page_files():
        if name.startswith("assets/"):
            asset = httpx.head(f"{server.url}/console/{name}")
            assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert httpx.get(f"{server.url}/console/../settings.py").status_code == 404
    assert httpx.get(f"{server.url}/console/%2e%2e/page.py").status_code == 404
