"""Debian's Chromium, headless, by WebDriver: a plain form, fetch from an allowed origin, and the docs page."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from callers.cases import SAMPLES

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_LIMIT_S = 30.0
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # W3C WebDriver, section 11
_PAGE = """<!DOCTYPE html><title>form</title>
<form method="post" enctype="multipart/form-data" action="{url}/v1/predict">
<input type="file" name="media"><input type="file" name="audio"><input name="top_k"><button>send</button></form>
<pre></pre>
<script>
async function ask(file) {{
  const data = new FormData();
  data.append("media", file);
  const answer = await fetch("{url}/v1/predict", {{method: "POST", body: data}});
  const id = answer.headers.get("X-Request-Id");
  document.querySelector("pre").textContent = `${{answer.status}} ${{id}}${{await answer.text()}}`;
}}
</script>"""


def installed() -> bool:
    return all(shutil.which(program) for program in ("chromium", "chromedriver"))


class Page:
    """A page of another origin than the server's, on a free loopback port; ``url`` of the server is set later."""

    def __init__(self) -> None:
        page = self
        self.url = ""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = _PAGE.format(url=page.url).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Browser:
    """One session of WebDriver."""

    def __init__(self, session: httpx.Client) -> None:
        self._session = session

    def command(self, path: str, **content: Any) -> Any:
        answer = self._session.post(path, json=content)
        value = answer.json()["value"]
        if answer.is_error:
            raise OSError(f"{path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value

    def open(self, url: str) -> None:
        self.command("url", url=url)

    def element(self, selector: str) -> str:
        """The first that matches, as soon as there is one."""
        return str(self.command("element", using="css selector", value=selector)[_ELEMENT])

    def click(self, selector: str) -> None:
        self.command(f"element/{self.element(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        """Into a file's input: its path."""
        self.command(f"element/{self.element(selector)}/value", text=text)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.command("execute/sync", script=script, args=list(arguments))

    def text_with(self, pattern: str, selector: str = "body") -> str:
        """The text of an element once it matches; what it is by then where it never does."""
        until = time.monotonic() + _LIMIT_S
        while True:
            text = str(self.run("return (document.querySelector(arguments[0]) || {}).textContent", selector))
            if re.search(pattern, text) or time.monotonic() > until:
                return text
            time.sleep(0.05)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a new profile, and the driver that it is steered by."""
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            started = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout or ())
            found = next((one for one in started if one), None)
            if found is None:
                raise OSError("chromedriver did not start")
            with httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=60.0, trust_env=False) as http:
                options = {"args": [*_FLAGS, f"--user-data-dir={profile}"]}
                wanted = {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"implicit": 10_000}}}
                answer = http.post("/session", json={"capabilities": wanted}).json()["value"]
                if "sessionId" not in answer:
                    raise OSError(f"Chromium did not start: {answer['message'].splitlines()[0]}")
                http.base_url = httpx.URL(f"{http.base_url}/session/{answer['sessionId']}")
                try:
                    yield Browser(http)
                finally:
                    http.delete("")
        finally:
            driver.terminate()
            driver.wait()


def form(browser: Browser, page: str, url: str) -> str | None:
    """A form of another origin, as HTML alone sends it, with a file field and a text that stay empty."""
    browser.open(page)
    browser.type('input[name="media"]', str(SAMPLES / "no_sound.mp4"))
    browser.click("button")
    text = browser.text_with("request_id")
    right = '"label":"four"' in text and '"degraded":true' in text
    return None if right else f"form: shows {text[:200]!r}"


def fetch(browser: Browser, page: str, url: str) -> str | None:
    """A script of a page whose origin ``cors_origins`` names; it may read the request's id too."""
    browser.open(page)
    browser.type('input[name="media"]', str(SAMPLES / "clean_three.mp4"))
    browser.run('ask(document.querySelector("input").files[0])')
    text = browser.text_with("request_id", "pre")
    return None if re.match(r'200 (?!null)\S+\{.*"label":"three"', text) else f"fetch: gets {text[:200]!r}"


def docs(browser: Browser, page: str, url: str) -> str | None:
    """``/docs``: its form for a prediction, opened and sent with a file alone."""
    operation = "#operations-predict-predict_v1_predict_post"
    browser.open(f"{url}/docs")
    browser.click(f"{operation} .opblock-summary-control")
    browser.click(f"{operation} .try-out__btn")
    browser.type(f'{operation} input[type="file"]', str(SAMPLES / "clean_seven.mp4"))
    browser.click(f"{operation} .execute")
    text = browser.text_with('"label"|"error"', f"{operation} .live-responses-table tbody")
    return None if '"seven"' in text else f"docs: shows {text[:300]!r}"


CHECKS: dict[str, Callable[[Browser, str, str], str | None]] = {"form": form, "fetch": fetch, "docs": docs}


def version() -> str:
    result = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", result.stdout)
    return found[0] if found else "?"


def all_of_them(page: Page, url: str) -> list[str]:
    """What is wrong in the browser."""
    page.url = url
    found = []
    with chromium() as browser:
        for name, check in CHECKS.items():
            try:
                problem = check(browser, page.origin, url)
            except (OSError, httpx.HTTPError) as error:
                problem = f"{name}: {error}"
            if problem is not None:
                found.append(problem)
    return found
