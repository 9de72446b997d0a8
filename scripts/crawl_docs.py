"""Crawl the built site in Debian's Chromium, every other host unresolvable: `python scripts/crawl_docs.py`.

    make docs && .venv/bin/python scripts/crawl_docs.py --axe axe.min.js --screens /tmp/screens

Follows every link from index.html and prints failed requests, requests to other hosts, errors of scripts, dead links,
what SEARCHES find and where QUESTIONS lead. `--axe` judges PAGES with axe-core (of npm: `npm install axe-core`), light
and dark. `--screens` keeps pictures of some. Exits with 1 where anything was found.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from playwright.sync_api import Browser, Page, Request, Response, sync_playwright

#: Judged by axe-core: one of each kind.
PAGES = (
    *("index", "tutorial", "guides", "training", "deploy", "cli"),
    *("http_api", "statuses", "python_names", "evidence/hardening"),
)
#: What is searched for, and the page that must be found first.
SEARCHES = {
    "unusable:frozen": "statuses.html",
    "absent:no_track": "statuses.html",
    "roll back": "versions.html",
    "POST /v1/predict": "http_api.html",
}
#: Questions of a new reader: the link of the first page that is clicked, and what is then seen without scrolling.
QUESTIONS = {
    "How do I train on my own clips?": ("Train: a first config", "dimml init clips.csv"),
    "What do I send over gRPC?": ("KServe v2: what to send", "as one element of the BYTES tensor MEDIA"),
    "What happens when a camera dies?": ("When a modality fails", "a camera dies: it sends black"),
    "How do I roll back?": ("Versions: roll back", "dimml models load grid --version 1"),
    "What does unusable:frozen mean?": ("unusable:frozen", "a camera that hangs, whose last picture is sent again"),
}
SCREENS = ("index", "deploy", "cli", "statuses", "python_names", "results")
NARROW = {"width": 360, "height": 740}
WIDE = {"width": 1280, "height": 900}
NO_OTHER_HOST = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@dataclass
class Crawl:
    """What a crawl found."""

    pages: list[str] = field(default_factory=list)
    links: int = 0
    requests: int = 0
    problems: list[str] = field(default_factory=list)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on a free port of loopback; gives its address, with a slash at the end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, headless, with no way to any other host than 127.0.0.1."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[NO_OTHER_HOST])
        try:
            yield browser
        finally:
            browser.close()


def watch(page: Page, root: str, crawl: Crawl) -> None:
    """Note what ``page`` asks for from now on, and what of it fails or goes elsewhere than below ``root``."""

    def asked(request: Request) -> None:
        crawl.requests += 1
        if not request.url.startswith((root, "data:", "blob:")):
            crawl.problems.append(f"{page.url}: asks another host: {request.url}")

    def answered(response: Response) -> None:
        if response.status >= 400:
            crawl.problems.append(f"{page.url}: {response.status} for {response.url}")

    page.on("request", asked)
    page.on("response", answered)

    def failed(request: Request) -> None:
        # A page that is left aborts what it still waits for, such as its icon.
        if request.failure != "net::ERR_ABORTED":
            crawl.problems.append(f"{page.url}: {request.failure} for {request.url}")

    page.on("requestfailed", failed)
    page.on("pageerror", lambda error: crawl.problems.append(f"{page.url}: {error}"))
    page.on("console", lambda line: line.type == "error" and crawl.problems.append(f"{page.url}: console: {line.text}"))


def crawl_site(page: Page, root: str, crawl: Crawl) -> None:
    """Follow every link from the first page; where one names a heading, the page that it leads to must have it."""
    waiting, ids, named = [f"{root}index.html"], dict[str, set[str]](), set[tuple[str, str, str]]()
    while waiting:
        url = waiting.pop()
        if url in ids:
            continue
        page.goto(url)
        ids[url] = set(page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
        crawl.pages.append(url.removeprefix(root))
        broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        crawl.problems += [f"{url}: broken picture {source}" for source in broken]
        for link in page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)"):
            target, fragment = urldefrag(link)
            if target.startswith(root):
                crawl.links += 1
                named.add((url, target, fragment))
                if target.endswith(".html"):
                    waiting.append(target)
    for url, target, fragment in sorted(named):
        if target in ids:
            if fragment and fragment not in ids[target]:
                crawl.problems.append(f"{url}: no heading {fragment} in {target}")
        elif page.request.head(target).status != 200:
            crawl.problems.append(f"{url}: dead link {target}")


def search(page: Page, root: str, words: str) -> list[str]:
    """Type ``words`` into the first page's search box; gives the pages found, best first."""
    page.goto(f"{root}index.html")
    page.fill("input[name=q]", words)
    page.press("input[name=q]", "Enter")
    # The list grows while it is shown.
    page.wait_for_function("document.querySelector('.search-summary')?.textContent.includes('found')")
    links = page.evaluate("[...document.querySelectorAll('#search-results ul.search > li > a')].map(a => a.href)")
    return [urlsplit(urldefrag(link)[0]).path.lstrip("/") for link in links]


def ask(page: Page, root: str, question: str) -> str:
    """Click the link that answers a question of QUESTIONS; gives where it leads, or nothing if none is seen."""
    link, answer = QUESTIONS[question]
    page.goto(f"{root}index.html")
    page.locator("article").get_by_role("link", name=link, exact=True).click()
    page.wait_for_load_state()
    found, height = (
        page.locator("article :is(p, pre, td, li)").filter(has_text=answer).first,
        page.evaluate("innerHeight"),
    )
    # A browser scrolls to a heading again as the page above it takes its final form.
    for _ in range(30):
        seen = found.bounding_box()
        if seen and 0 <= seen["y"] <= height - seen["height"]:
            return page.url.removeprefix(root)
        page.wait_for_timeout(100)
    return ""


def overflow(page: Page, root: str, names: Sequence[str], width: int) -> list[str]:
    """Pages that are wider than a window of ``width`` px."""
    page.set_viewport_size({"width": width, "height": 800})
    found = []
    for name in names:
        page.goto(root + name)
        wanted = page.evaluate("document.documentElement.scrollWidth")
        if wanted > width:
            found.append(f"{name}: {wanted} px wide on {width}")
    return found


def axe_findings(browser: Browser, root: str, script: Path) -> list[str]:
    """Serious and critical findings of axe-core on PAGES, light and dark."""
    found = []
    for scheme in ("light", "dark"):
        page = browser.new_context(color_scheme=scheme, viewport=WIDE).new_page()
        for name in PAGES:
            page.goto(f"{root}{name}.html")
            page.add_script_tag(path=str(script))
            for violation in page.evaluate("axe.run().then(result => result.violations)"):
                if violation["impact"] in ("serious", "critical"):
                    where = "; ".join(str(node["target"][0]) for node in violation["nodes"][:3])
                    found.append(f"{name}, {scheme}: {violation['id']} ({len(violation['nodes'])}): {where}")
        page.context.close()
    return found


def take_screens(browser: Browser, root: str, folder: Path) -> None:
    """Pictures of SCREENS: light, dark, and narrow."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, scheme, size in (("light", "light", WIDE), ("dark", "dark", WIDE), ("narrow", "light", NARROW)):
        page = browser.new_context(color_scheme=scheme, viewport=size).new_page()
        for name in SCREENS:
            page.goto(f"{root}{name}.html")
            page.screenshot(path=folder / f"{name.replace('/', '_')}_{kind}.png")
        page.context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, nargs="?", default=Path("build/docs"))
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    parser.add_argument("--screens", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    crawl = Crawl()
    with served(arguments.site) as root, chromium() as browser:
        page = browser.new_page(viewport=WIDE)
        watch(page, root, crawl)
        crawl_site(page, root, crawl)
        for words, wanted in SEARCHES.items():
            found = search(page, root, words)
            print(f"search for {words!r}: {', '.join(found[:5])}")
            if found[:1] != [wanted]:
                crawl.problems.append(f"search for {words!r} does not find {wanted} first")
        for question, (link, _) in QUESTIONS.items():
            where = ask(page, root, question)
            print(f"{question} [{link}]: {where}")
            if not where:
                crawl.problems.append(f"{question}: no answer is seen")
        crawl.problems += overflow(page, root, crawl.pages, NARROW["width"])
        for width in (1000, 1366):
            crawl.problems += overflow(page, root, [f"{name}.html" for name in PAGES], width)
        page.close()
        if arguments.axe:
            crawl.problems += axe_findings(browser, root, arguments.axe)
        if arguments.screens:
            take_screens(browser, root, arguments.screens)
    judged = f"axe-core on {len(PAGES)} pages, light and dark" if arguments.axe else "axe-core not asked"
    print(f"{len(crawl.pages)} pages, {crawl.links} links, {crawl.requests} requests; {judged}")
    print("\n".join(crawl.problems) or "nothing found")
    return 1 if crawl.problems else 0


if __name__ == "__main__":
    sys.exit(main())
