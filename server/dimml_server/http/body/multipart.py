"""Streaming reader of multipart bodies: counts them against the limit, spools large parts to disk."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from dimml.errors import InvalidParameterError, TooLargeError
from dimml.media.types import Source
from dimml_server.http.body.content_encoding import checked_encoding, decoded
from dimml_server.http.body.limits import Uploads
from dimml_server.http.body.plain_form import may_be_plain, plain_parts
from dimml_server.prediction.spool import storing

MAX_PARTS = 32
MAX_FIELD_BYTES = 4096
#: Longest boundary; RFC 2046, section 5.1.1, allows 70 bytes, the parser this many.
MAX_BOUNDARY = 256
#: The field in which a form says how its texts are encoded (RFC 7578, section 4.6).
_CHARSET = "_charset_"
#: Values of Content-Transfer-Encoding that leave a part's bytes as they are (RFC 2045, section 6.2).
_PLAIN = (b"binary", b"8bit", b"7bit")


@dataclass(slots=True)
class Form:
    """Text fields and files of one body. A file beyond the spool threshold is a path, deleted with the form."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, Source] = field(default_factory=dict)


@asynccontextmanager
async def read_form(
    request: Request,
    uploads: Uploads,
    *,
    field_names: frozenset[str],
    max_body_bytes: int,
    spool_bytes: int,
    max_parts: int = MAX_PARTS,
) -> AsyncIterator[Form]:
    """Read a multipart body; parts named in ``field_names`` are text, all others files.

    What an HTML form sends for a field or file that was not filled in is not in the form: an empty text, a file
    without name and bytes.

    Raises TooLargeError as soon as a limit is exceeded, InvalidParameterError for malformed multipart, what ``decoded``
    and ``uploads`` raise, and starlette's ClientDisconnect.
    """
    boundary = checked_head(request.headers, max_body_bytes)
    encoding = checked_encoding(request.headers.get("content-encoding", ""))
    reader = _FormReader(boundary, field_names, spool_bytes, max_parts, uploads.folder)
    # A body that may be kept in memory is put off until all of it is there, as long as it is plainly written.
    declared = request.headers.get("content-length", "")
    whole = bytearray() if not encoding and declared.isdecimal() and int(declared) <= spool_bytes else None
    try:
        async with uploads.reading():
            async for chunk in decoded(request.stream(), encoding, max_body_bytes):
                if whole is None:
                    reader.feed(chunk)
                elif len(whole) + len(chunk) <= spool_bytes and (whole or may_be_plain(chunk, boundary)):
                    whole += chunk
                else:
                    reader.feed(bytes(whole + chunk))
                    whole = None
        if whole is not None:
            reader.feed_whole(whole)
            whole = None  # Its parts have been copied, and the request may take long.
        yield reader.form()
    finally:
        reader.discard()


def checked_head(headers: Headers, max_body_bytes: int) -> bytes:
    """Check a request's headers; return the form's boundary. Raises InvalidParameterError, TooLargeError."""
    kind, options = parse_options_header(headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidParameterError("send the recording as multipart/form-data", field="Content-Type")
    if len(boundary) > MAX_BOUNDARY:
        raise InvalidParameterError(
            f"the form's boundary has {len(boundary)} bytes, more than {MAX_BOUNDARY}", field="Content-Type"
        )
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body_bytes:
        raise _too_large(max_body_bytes)
    return boundary


def _too_large(max_body_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {max_body_bytes} bytes, this server's limit")


class _FormReader:
    """Callbacks of python-multipart's parser, building a ``Form``."""

    def __init__(
        self, boundary: bytes, field_names: frozenset[str], spool_bytes: int, max_parts: int, place: Path | None
    ) -> None:
        self._max_parts = max_parts
        self._place = place
        self._field_names = field_names | {_CHARSET}
        self._parts = 0
        self._spool_bytes = spool_bytes
        self._form = Form()
        self._ended = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._header_name = self._header_value = b""
        self._name = ""
        #: The part's ``filename`` parameter; None without one.
        self._file_name: bytes | None = None
        self._data: bytearray | bytes = bytearray()
        #: Bytes of files in memory; the threshold applies to all of them together.
        self._held_bytes = 0
        self._file: BinaryIO | None = None
        self._boundary = boundary
        self._parser: MultipartParser | None = None

    def feed_whole(self, body: bytearray) -> None:
        """Parse a whole body of at most ``spool_bytes``, of which nothing has been fed."""
        parts = plain_parts(body, self._boundary, self._max_parts)
        if parts is None:
            self.feed(bytes(body))
            return
        view = memoryview(body)
        for part in parts:
            self._on_part_begin()
            self._name, self._file_name = part.name.decode(), part.file_name
            self._on_headers_finished()
            if self._name in self._field_names:
                self._on_part_data(view, part.begin, part.end)
            else:
                self._data = bytes(view[part.begin : part.end])
            self._on_part_end()
        self._on_end()

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body."""
        if self._parser is None:
            self._parser = self._new_parser()
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise InvalidParameterError("the body is not well-formed multipart/form-data") from error

    def form(self) -> Form:
        """Return the form. Raises InvalidParameterError if the body is incomplete."""
        if not self._ended:
            raise InvalidParameterError("the multipart body ends before its closing boundary")
        return self._form

    def discard(self) -> None:
        """Delete spooled files."""
        if self._file is not None:
            self._file.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _new_parser(self) -> MultipartParser:
        return MultipartParser(
            self._boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def _on_part_begin(self) -> None:
        if self._parts >= self._max_parts:
            raise TooLargeError(f"the body has more than {self._max_parts} parts")
        self._parts += 1
        self._name, self._file_name, self._data = "", None, bytearray()
        self._header_name = self._header_value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        header = self._header_name.lower()
        if header == b"content-disposition":
            options = parse_options_header(self._header_value)[1]
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            self._file_name = options.get(b"filename")
        elif header == b"content-transfer-encoding" and self._header_value.strip().lower() not in _PLAIN:
            raise InvalidParameterError(
                "a part has a Content-Transfer-Encoding: send its bytes as they are (RFC 7578, section 4.7)",
                field="Content-Transfer-Encoding",
            )
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        if not self._name:
            raise InvalidParameterError("a part of the multipart body has no name")
        if self._name in self._form.fields or self._name in self._form.files:
            raise InvalidParameterError(f"{self._name!r} is sent more than once", field=self._name)

    def _on_part_data(self, data: bytes | memoryview, start: int, end: int) -> None:
        if self._file is not None:
            with storing():
                self._file.write(memoryview(data)[start:end])
            return
        self._data += memoryview(data)[start:end]
        if self._name in self._field_names:
            if len(self._data) > MAX_FIELD_BYTES:
                raise TooLargeError(f"{self._name!r} is longer than {MAX_FIELD_BYTES} bytes", field=self._name)
        elif self._held_bytes + len(self._data) > self._spool_bytes:
            self._spool()

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._form.files[self._name] = Path(self._file.name)
            with storing():
                self._file.close()
            self._file = None
        elif self._name in self._field_names:
            try:
                text = self._data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidParameterError(f"{self._name!r} is not UTF-8 text", field=self._name) from error
            self._add_field(text)
        elif self._data or self._file_name != b"":
            self._form.files[self._name] = bytes(self._data)  # No copy of what is bytes already.
            self._held_bytes += len(self._data)
        self._data = bytearray()

    def _add_field(self, text: str) -> None:
        if self._name == _CHARSET:
            if text.lower() not in ("", "utf-8", "us-ascii"):
                raise InvalidParameterError(f"texts must be UTF-8, the form says {text[:40]!r}", field=_CHARSET)
        elif text:
            self._form.fields[self._name] = text

    def _on_end(self) -> None:
        self._ended = True

    def _spool(self) -> None:
        with storing():
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="dimml-upload-", dir=self._place)
            # The client's file name is not used in the path.
            self._file = (Path(self._folder.name) / str(len(self._form.files))).open("xb")
            self._file.write(self._data)
        self._data = bytearray()
