"""The built site in Debian's Chromium, every other host unresolvable: it loads whole, finds, and fits a telephone.

`scripts/crawl_docs.py` follows every link of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import crawl_docs
import pytest
from playwright.sync_api import Browser

from support.data import REPOSITORY_ROOT, unavailable

SITE = REPOSITORY_ROOT / "build" / "docs"


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    """Address of the site."""
    if not (SITE / "index.html").exists():
        unavailable("build/docs is not there: run `make docs`")
    with crawl_docs.served(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if shutil.which("chromium") is None:
        unavailable("chromium is not installed")
    with crawl_docs.chromium() as started:
        yield started


@pytest.mark.parametrize(("words", "wanted"), crawl_docs.SEARCHES.items())
def test_search_finds_and_asks_no_other_host(browser: Browser, root: str, words: str, wanted: str) -> None:
    crawl = crawl_docs.Crawl()
    assert wanted in crawl_docs.search(browser, root, words, crawl)[:5]
    assert crawl.requests > 5
    assert crawl.problems == []


def test_pages_fit_a_telephone_and_a_screen(browser: Browser, root: str) -> None:
    assert crawl_docs.overflow(browser, root, ["index.html", "cli.html"], 360) == []
    assert crawl_docs.overflow(browser, root, ["cli.html"], 1366) == []


def test_what_is_too_wide_is_seen(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "wide.html").write_text('<!doctype html><p style="width: 900px">wide')
    with crawl_docs.served(tmp_path) as address:
        (found,) = crawl_docs.overflow(browser, address, ["wide.html"], 360)
    assert found.startswith("wide.html: 9")


def test_what_fails_is_seen(browser: Browser, root: str) -> None:
    crawl = crawl_docs.Crawl()
    page = browser.new_page()
    crawl_docs.watch(page, root, crawl)
    page.goto(f"{root}nowhere.html")
    page.set_content('<script src="https://example.org/x.js"></script>')
    page.close()
    found = "\n".join(crawl.problems)
    assert f"404 for {root}nowhere.html" in found
    assert "asks another host: https://example.org/x.js" in found
    assert "failed: https://example.org/x.js" in found
