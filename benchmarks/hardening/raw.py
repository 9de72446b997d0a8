"""HTTP by hand: to know when the last byte went out, and to send what no client would."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter


@dataclass(frozen=True)
class Answer:
    """Status 0: the connection ended without one. Times are ``perf_counter``'s; ``sent`` is of the last byte."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    began: float = 0.0
    sent: float = 0.0
    answered: float = 0.0

    @property
    def total_s(self) -> float:
        """From the first byte sent to the last byte of the answer."""
        return self.answered - self.began

    @property
    def after_last_byte_s(self) -> float:
        """From the last byte sent to the answer; 0 for one that came before."""
        return max(0.0, self.answered - self.sent)


def multipart(files: Mapping[str, bytes], fields: Mapping[str, object] | None = None) -> tuple[bytes, str]:
    """A body and its content type; fields go first."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in (fields or {}).items():
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, data in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def head(path: str, headers: Mapping[str, object], method: str = "POST") -> bytes:
    """The head of a request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer with a Content-Length. Raises EOFError or ConnectionError where there is none."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(lines[0].split()[1]), headers, body


async def post(
    address: str,
    path: str,
    body: bytes,
    content_type: str,
    *,
    limit_s: float,
    headers: Mapping[str, object] | None = None,
) -> Answer:
    """One POST on a connection of its own."""
    host, _, port = address.rpartition(":")
    began = sent = perf_counter()
    all_headers = {"Content-Type": content_type, "Content-Length": len(body), "Connection": "close", **(headers or {})}
    writer = None
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            reading = asyncio.ensure_future(read_answer(reader))
            try:
                with contextlib.suppress(ConnectionError):  # It may have answered and closed already.
                    writer.write(head(path, all_headers) + body)
                    await writer.drain()
                sent = perf_counter()
                status, found, text = await reading
            finally:
                reading.cancel()
            return Answer(status, text, found, began, sent, perf_counter())
    except (OSError, EOFError, TimeoutError):
        return Answer(0, began=began, sent=sent, answered=perf_counter())
    finally:
        if writer is not None:
            writer.close()
