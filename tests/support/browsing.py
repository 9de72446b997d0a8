"""The console in a real browser, watched: no error, no request to another host, no breach of the page's policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

from support.data import REPOSITORY_ROOT
from support.waiting import wait_until

#: By npm, for tests alone; it is no part of the page.
AXE = REPOSITORY_ROOT / "server" / "console" / "node_modules" / "axe-core" / "axe.min.js"
_FLAGS = (
    "--no-sandbox",  # CI runs as root
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)
_LIMIT_MS = 15_000
#: Serious ones, and those that are worse.
_IMPACTS = frozenset({"serious", "critical"})
_REPORT_BREACHES = """
document.addEventListener("securitypolicyviolation",
  (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""


@contextmanager
def launched() -> Iterator[Any]:
    """Debian's Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Console:
    """One page, and what it did."""

    page: Any
    url: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    #: Statuses of answers that a test provokes; the browser writes each to its console.
    expected: set[int] = field(default_factory=set)

    @classmethod
    @contextmanager
    def opened(
        cls, browser: Any, url: str, *, path: str = "/console", width: int = 1280, scheme: str = "light", **options: Any
    ) -> Iterator[Console]:
        """Open the page in a context of its own, and hold at the end that all was well."""
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",
            accept_downloads=True,
            **options,
        )
        context.add_init_script(_REPORT_BREACHES)
        page = context.new_page()
        page.set_default_timeout(_LIMIT_MS)
        it = cls(page, url)
        page.on("console", it._spoken)
        page.on("pageerror", lambda error: it.errors.append(f"exception: {error}"))
        page.on("request", it._requested)
        page.on("dialog", lambda dialog: it.errors.append(f"dialog: {dialog.message}"))
        try:
            page.goto(url + path)
            yield it
            assert it.errors == [], "\n".join(it.errors)
            assert it.hosts <= {urlsplit(url).netloc}, f"another host was asked: {it.hosts}"
        finally:
            context.close()

    def _spoken(self, message: Any) -> None:
        failed = "Failed to load resource" in message.text
        if message.type == "error" and not (
            failed and any(f"status of {one} " in message.text for one in self.expected)
        ):
            self.errors.append(f"console: {message.text}")

    def _requested(self, request: Any) -> None:
        if not request.url.startswith("blob:"):
            self.hosts.add(urlsplit(request.url).netloc)

    def tab(self, name: str) -> None:
        """Open a tab."""
        self.page.get_by_role("tab", name=name).click()

    def choose_model(self, name: str, version: int = 1) -> None:
        """Choose the model that recordings are judged by."""
        self.page.get_by_label("Model", exact=True).select_option(f"{version} {name}")

    def send(self, *files: Path | dict[str, Any]) -> None:
        """Choose a recording in the tab that is shown."""
        self.page.get_by_label("Recording", exact=True).locator("visible=false").first.set_input_files(list(files))

    def answer(self, label: str) -> Any:
        """Wait for an answer with this label; its card."""
        card = self.page.get_by_role("article", name="Answer")
        card.locator(".label", has_text=label).wait_for()
        return card

    def until(self, expression: str, element: Any = None) -> None:
        """Wait until JavaScript is true of the page, or of one locator's element.

        ``wait_for_function`` of Playwright 1.65 evaluates an expression (a function it does not) again at each poll,
        and past the first the page's policy forbids it: EvalError, wherever the first look comes too early.
        """
        seen = self.page if element is None else element
        wait_until(lambda: seen.evaluate(expression), _LIMIT_MS / 1000, expression)

    def meter(self, name: str) -> float:
        """Value of a bar."""
        return float(self.page.get_by_role("meter", name=name).get_attribute("aria-valuenow"))

    def axe(self, *rules: str) -> list[str]:
        """Serious findings of axe-core on the page as it is now, of all rules or these, as ``rule: element``."""
        if not self.page.evaluate("'axe' in window"):
            # Evaluated, not added as a script: the page's policy allows none but its own.
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        options = {"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {})
        found = self.page.evaluate("(options) => axe.run(document, options)", options)
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in _IMPACTS
            for node in one["nodes"]
        ]
