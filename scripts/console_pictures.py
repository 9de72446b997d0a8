"""Take the pictures of the console that README and docs/console.md show: light, dark, and 360 px wide.

    python scripts/console_pictures.py [--out docs/images]

Starts a server with the demo bundle and gives it traffic for a minute, so that the tab Now has something to show. Needs
`make console`, Playwright and Debian's Chromium.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import httpx

from support.browsing import Console, launched
from support.data import REPOSITORY_ROOT
from support.server_process import running_server

SAMPLES = REPOSITORY_ROOT / "samples"
TRAFFIC = ("clean_three.mp4", "silent_sound.mp4", "noisy_sound.mp4", "black_picture.mp4", "clean_seven.mp4")
#: Name of a picture: tab, colours, width and height.
PICTURES = {
    "covered": ("Covered", "light", 1180, 700),
    "try": ("Try", "light", 1280, 1060),
    "timeline": ("Timeline", "light", 1280, 960),
    "models": ("Models", "light", 1280, 900),
    "now-dark": ("Now", "dark", 1280, 1060),
    "narrow": ("Try", "light", 360, 1500),
}


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=REPOSITORY_ROOT / "docs" / "images")
    parser.add_argument("--traffic-s", type=float, default=60.0)
    given = parser.parse_args()
    with running_server(REPOSITORY_ROOT / "model_repository", model_control="explicit", explain="occlusion") as server:
        send_traffic(server.url, given.traffic_s)
        with launched() as browser:
            for name, (tab, scheme, width, height) in PICTURES.items():
                with Console.opened(browser, server.url, scheme=scheme, width=width) as console:
                    show(console, tab)
                    console.page.set_viewport_size({"width": width, "height": height})
                    # The canvases draw anew after that.
                    console.page.wait_for_timeout(400)
                    path = given.out / f"console-{name}.png"
                    console.page.screenshot(path=path)
                    print(path, path.stat().st_size)


def send_traffic(url: str, seconds: float) -> None:
    """Predict sample clips, one after another."""
    stop = threading.Event()
    threading.Timer(seconds, stop.set).start()
    with httpx.Client(base_url=url) as client:
        turn = 0
        while not stop.wait(0.15):
            clip = SAMPLES / TRAFFIC[turn % len(TRAFFIC)]
            client.post("/v1/predict", files={"media": clip.read_bytes()})
            turn += 1


def show(console: Console, tab: str) -> None:
    """Open a tab, with something in it."""
    page: Any = console.page
    if tab == "Covered":
        page.get_by_role("button", name="eight: a thumb on the lens").click()
        console.answer("eight")
        page.wait_for_timeout(800)
    elif tab == "Try":
        page.get_by_role("button", name="two: white noise").click()
        console.answer("two")
        slider = page.get_by_role("slider", name="Cover: visual")
        slider.focus()
        for _ in range(4):
            slider.press("ArrowRight")
        page.get_by_text("before:").wait_for()
        page.wait_for_timeout(500)
    elif tab == "Timeline":
        console.tab(tab)
        page.locator("dm-timeline input#file").set_input_files(SAMPLES / "long.mp4")
        page.get_by_label("Step, seconds").fill("0.2")
        page.get_by_label("Step, seconds").press("Tab")
        page.get_by_role("button", name="Judge all of it").click()
        page.get_by_text("all complete").wait_for()
        lanes = page.get_by_role("slider", name="Place in the recording")
        lanes.focus()
        for _ in range(7):
            lanes.press("ArrowRight")
    else:
        console.tab(tab)
        page.wait_for_timeout(800)
    page.evaluate("scrollTo(0, 0)")


if __name__ == "__main__":
    main()
