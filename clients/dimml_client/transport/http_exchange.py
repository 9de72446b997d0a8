"""One request and its answer through httpx, blocking or in an event loop, within a time limit in total."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import httpx

from dimml.errors import InvalidParameterError, UnavailableError
from dimml_client.transport.credentials import Credentials
from dimml_client.transport.errors import no_answer
from dimml_client.transport.proxies import proxy_hint
from dimml_client.transport.tls_errors import closed_hint, untrusted
from dimml_client.transport.trace_context import trace_context


class HttpExchange(ABC):
    """Exchanges with one server; connections are kept open between them."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        #: The server's base URL, without a slash at its end.
        self.url = url.rstrip("/")
        self._secure = self.url.startswith("https:")
        verify = credentials.ssl_context() if self._secure else True
        self._options: dict[str, Any] = {"base_url": self.url, "headers": credentials.headers, "verify": verify}

    async def __call__(
        self,
        method: str,
        path: str,
        timeout_s: float,
        *,
        fields: Mapping[str, str] | None = None,
        parts: Mapping[str, Path | bytes] | None = None,
    ) -> httpx.Response:
        """Send a request, with a multipart body of ``fields`` and files ``parts`` if any, and read its whole answer.

        Raises DeadlineExceededError past ``timeout_s``, UnavailableError, and InvalidParameterError naming a part.
        """
        with ExitStack() as stack, self._typed_errors(timeout_s):
            files = {name: _opened(name, source, stack) for name, source in (parts or {}).items()}
            content = {"data": fields, "files": files or None, "headers": trace_context()}
            return await self._send(method, path, timeout_s, content)

    @abstractmethod
    async def _send(self, method: str, path: str, timeout_s: float, content: dict[str, Any]) -> httpx.Response: ...

    @abstractmethod
    async def close(self) -> None:
        """Close connections."""

    @contextmanager
    def _typed_errors(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except (httpx.TimeoutException, TimeoutError) as error:
            raise no_answer(self.url, timeout_s) from error
        except httpx.ConnectError as error:
            if why := untrusted(str(error)):
                raise UnavailableError(f"no trusted connection to {self.url}: {why}") from error
            raise UnavailableError(
                f"cannot connect to {self.url} ({error}); is the server running? `dimml serve` starts one"
                f"{proxy_hint(self.url)}"
            ) from error
        except httpx.RequestError as error:
            if why := untrusted(str(error)):
                raise UnavailableError(f"no trusted connection to {self.url}: {why}") from error
            hint = closed_hint(str(error), secure=self._secure) + proxy_hint(self.url)
            raise UnavailableError(f"the connection to {self.url} broke: {error}{hint}") from error
        except httpx.InvalidURL as error:
            raise InvalidParameterError(f"{self.url}: {error}", field="url") from error


class BlockingExchange(HttpExchange):
    """Exchanges that never suspend."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        super().__init__(url, credentials)
        self._client = httpx.Client(**self._options)

    async def _send(self, method: str, path: str, timeout_s: float, content: dict[str, Any]) -> httpx.Response:
        # httpx bounds each read and write: a slow peer would get a new timeout with every byte.
        end = time.monotonic() + timeout_s
        request = self._client.build_request(method, path, timeout=timeout_s, **content)
        bounds: dict[str, float] = request.extensions["timeout"]
        if isinstance(request.stream, httpx.SyncByteStream):
            request.stream = _Bounded(request.stream, end, bounds)
        response = self._client.send(request, stream=True)
        try:
            bounds["read"] = _left_s(end)
            body = b"".join(_until(end, response.iter_raw()))
        finally:
            response.close()
        # Read raw, as sent: the new response decodes the content encoding.
        headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"transfer-encoding"]
        return httpx.Response(response.status_code, headers=headers, content=body, request=request)

    async def close(self) -> None:
        """Close connections."""
        self._client.close()


class AsyncExchange(HttpExchange):
    """Exchanges in an event loop. A cancelled exchange closes its connection."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        super().__init__(url, credentials)
        self._client = httpx.AsyncClient(**self._options)

    async def _send(self, method: str, path: str, timeout_s: float, content: dict[str, Any]) -> httpx.Response:
        async with asyncio.timeout(timeout_s):
            request = self._client.build_request(method, path, timeout=None, **content)
            if content["files"] and isinstance(request.stream, httpx.SyncByteStream):
                request.stream = _ReadInThread(request.stream)
            return await self._client.send(request)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


class _ReadInThread(httpx.AsyncByteStream):
    """A request body whose files are read in a thread: a slow disk must not hold up the event loop."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = iter(self._stream)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk


class _Bounded(httpx.SyncByteStream):
    """A request body that stops at ``end``, and leaves the remaining time for the answer's head."""

    def __init__(self, stream: httpx.SyncByteStream, end: float, bounds: dict[str, float]) -> None:
        self._stream = stream
        self._end = end
        self._bounds = bounds

    def __iter__(self) -> Iterator[bytes]:
        yield from _until(self._end, self._stream)
        self._bounds["read"] = _left_s(self._end)

    def close(self) -> None:
        self._stream.close()


def _until(end: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks. Raises httpx.TimeoutException before one that comes after ``end`` (of ``time.monotonic``)."""
    for chunk in chunks:
        _left_s(end)
        yield chunk


def _left_s(end: float) -> float:
    left_s = end - time.monotonic()
    if left_s <= 0.0:
        raise httpx.ReadTimeout("the whole exchange took too long")
    return left_s


def _opened(name: str, source: Path | bytes, stack: ExitStack) -> tuple[str, IO[bytes] | bytes]:
    """Return a part's bytes, and the part's name as file name, since the server does not use the caller's."""
    if isinstance(source, bytes):
        return name, source
    try:
        return name, stack.enter_context(source.open("rb"))
    except OSError as error:
        raise InvalidParameterError(f"{name}: cannot read {source}: {error.strerror}", field=name) from error
