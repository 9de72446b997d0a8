"""Python's HTTP clients, and dimml's own, each over one session for all its requests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

from callers.cases import BOUNDARY, Answer, Case, multipart

_LIMIT_S = 60.0
_STREAMED = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def version(package: str) -> str | None:
    """The version that is installed, or None."""
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None


def httpx(url: str, cases: Sequence[Case], ca: Path | None) -> list[Answer]:
    import httpx

    verify = ssl.create_default_context(cafile=ca) if ca else True
    with httpx.Client(verify=verify, timeout=_LIMIT_S, trust_env=False) as client:

        def ask(case: Case) -> Answer:
            with _form(case) as form:
                chunked = {"content": multipart(case), "headers": _STREAMED}
                answer = client.request(case.method, url + case.path, **(chunked if _is_chunked(case) else form))
            return Answer(case.name, answer.status_code, answer.content, answer.http_version.removeprefix("HTTP/"))

        return _each(cases, ask, httpx.HTTPError)


def requests(url: str, cases: Sequence[Case], ca: Path | None) -> list[Answer]:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(ca) if ca else True

        def ask(case: Case) -> Answer:
            with _form(case) as form:
                chunked = {"data": multipart(case), "headers": _STREAMED}
                parts = chunked if _is_chunked(case) else form
                answer = session.request(case.method, url + case.path, timeout=_LIMIT_S, **parts)
            return Answer(case.name, answer.status_code, answer.content, f"{answer.raw.version / 10:g}")

        return _each(cases, ask, requests.RequestException)


def aiohttp(url: str, cases: Sequence[Case], ca: Path | None) -> list[Answer]:
    """With FormData, and asking before it sends what is large."""
    import aiohttp

    async def ask(session: aiohttp.ClientSession, case: Case) -> Answer:
        content: dict[str, object] = {}
        try:
            if case.file is not None and _is_chunked(case):

                async def pieces() -> object:
                    for piece in multipart(case):
                        yield piece

                content = {"data": pieces(), "headers": _STREAMED}
            elif case.file is not None:
                form = aiohttp.FormData(case.fields)
                form.add_field("media", case.file.open("rb"), filename=case.file.name)
                content = {"data": form}
            asks_first = "expect" in case.ways
            async with session.request(case.method, url + case.path, expect100=asks_first, **content) as answer:
                version = f"{answer.version.major}.{answer.version.minor}" if answer.version else ""
                return Answer(case.name, answer.status, await answer.read(), version)
        except aiohttp.ClientError as error:
            return Answer(case.name, 0, repr(error).encode())

    async def all_of_them() -> list[Answer]:
        context = ssl.create_default_context(cafile=ca) if ca else True
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(_LIMIT_S)) as session:
            return [await ask(session, case) for case in cases]

    return asyncio.run(all_of_them())


def _each(cases: Sequence[Case], ask: Callable[[Case], Answer], failure: type[Exception]) -> list[Answer]:
    found = []
    for case in cases:
        try:
            found.append(ask(case))
        except failure as error:
            found.append(Answer(case.name, 0, repr(error).encode()))
    return found


@contextmanager
def _form(case: Case) -> Iterator[dict[str, object]]:
    """As httpx and requests take it."""
    if case.file is None:
        yield {}
        return
    with case.file.open("rb") as file:
        yield {"files": {"media": file}, "data": case.fields}


def _is_chunked(case: Case) -> bool:
    return "chunked" in case.ways
