"""The built site in Debian's Chromium, every other host unresolvable: it answers, finds, and fits a telephone.

`scripts/crawl_docs.py` follows every link of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import crawl_docs
import pytest
from playwright.sync_api import Page

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
def page() -> Iterator[Page]:
    """A page of Chromium."""
    if shutil.which("chromium") is None:
        unavailable("chromium is not installed")
    with crawl_docs.chromium() as browser:
        yield browser.new_page(viewport=crawl_docs.WIDE)


def test_questions_are_answered_and_no_other_host_is_asked(page: Page, root: str) -> None:
    crawl = crawl_docs.Crawl()
    crawl_docs.watch(page, root, crawl)
    assert [question for question in crawl_docs.QUESTIONS if not crawl_docs.ask(page, root, question)] == []
    found = {words: crawl_docs.search(page, root, words)[0] for words in crawl_docs.SEARCHES}
    assert found == crawl_docs.SEARCHES
    assert crawl.requests > 20
    assert crawl.problems == []


def test_pages_fit_a_telephone_and_a_screen(page: Page, root: str, tmp_path: Path) -> None:
    assert crawl_docs.overflow(page, root, ["index.html", "cli.html"], 360) == []
    assert crawl_docs.overflow(page, root, ["cli.html"], 1366) == []
    (tmp_path / "wide.html").write_text('<!doctype html><p style="width: 900px">wide')
    with crawl_docs.served(tmp_path) as address:
        (found,) = crawl_docs.overflow(page, address, ["wide.html"], 360)
    assert found.startswith("wide.html: 9")


def test_what_fails_is_seen(page: Page, root: str) -> None:
    crawl = crawl_docs.Crawl()
    crawl_docs.watch(page, root, crawl)
    page.goto(f"{root}nowhere.html")
    page.set_content('<script src="https://example.org/x.js"></script>')
    found = "\n".join(crawl.problems)
    assert f"404 for {root}nowhere.html" in found
    assert "asks another host: https://example.org/x.js" in found
    assert "net::ERR_NAME_NOT_RESOLVED for https://example.org/x.js" in found
