"""Multipart bodies as nearly all clients write them, split in one step once they are complete.

A state machine that may be fed any bytes in any pieces costs many calls for every part. A body that is in memory anyway
and is written in the plainest way needs a search for its boundaries only. Whatever is written otherwise is left to
python-multipart, which alone decides what is malformed.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: A quoted value without an escape, as a pattern.
_TEXT: Final = rb'"([ !#-\[\]-~]{%b})"'
#: What follows a boundary: the head of a part. Longer names and further header fields are rare.
_HEAD: Final = re.compile(
    rb"\r\nContent-Disposition: form-data; name="
    + _TEXT % b"1,100"
    + rb"(?:; filename="
    + _TEXT % b"0,200"
    + rb")?(?:\r\nContent-Type: [!-~][ -~]{0,99})?\r\n\r\n"
)
_ENDS: Final = (b"--", b"--\r\n")


class Part(NamedTuple):
    """One part: its name and ``filename``, None without one, and where in the body its bytes begin and end."""

    name: bytes
    file_name: bytes | None
    begin: int
    end: int


def may_be_plain(start: bytes, boundary: bytes) -> bool:
    """Whether a body that starts so may be one that ``plain_parts`` splits."""
    head = b"--" + boundary + b"\r\nContent-Disposition: "
    return head.startswith(start[: len(head)])


def plain_parts(body: bytes | bytearray, boundary: bytes, max_parts: int) -> list[Part] | None:
    """Split a whole body into its parts; None if it is not written in the plainest way, not whole, or of more parts."""
    delimiter = b"\r\n--" + boundary
    if not body.startswith(delimiter[2:]):
        return None
    parts: list[Part] = []
    at = len(delimiter) - 2
    while (head := _HEAD.match(body, at)) is not None:
        begin = head.end()
        end = body.find(delimiter, begin)
        if end < 0 or len(parts) == max_parts:
            return None
        parts.append(Part(head[1], head[2], begin, end))
        at = end + len(delimiter)
    return parts if parts and body[at : at + 5] in _ENDS else None
