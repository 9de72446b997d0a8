"""Recognition of MPEG transport streams by their packets: sync bytes alone are none (ISO/IEC 13818-1, 2.4.3)."""

from __future__ import annotations

from typing import BinaryIO, Final

#: Distance of packets, and that of M2TS, which puts four bytes of time before each.
STEPS: Final = (188, 192)
_SYNC: Final = 0x47
_PACKET_BYTES: Final = 188
_PAT_PID: Final = 0
#: Where a demuxer has to find a table or the beginning of a PES packet: tables come every 0.1 s, or every 0.5 s at
#: least, and those of sound more often.
_SEARCHED_BYTES: Final = 2**20


def packets_from(data: bytes, first: int, step: int, least: int, *, faults: bool) -> bool:
    """Whether ``least`` packets lie ``step`` bytes apart from ``first`` on.

    With ``faults``, some of them, and of those behind them in ``data``, may be marked as damaged by a receiver, but not
    half; else none.
    """
    if data[first : first + step * least : step] != bytes([_SYNC]) * least:
        return False
    count = max(least, (len(data) - first) // step) if faults else least
    heads = [data[at : at + 5] for at in range(first, first + step * count, step)]
    plausible = sum(map(_is_header, heads))
    return 2 * plausible > len(heads) if faults else plausible == len(heads)


def carries_content(file: BinaryIO, first: int, step: int) -> bool:
    """Whether there is something for a demuxer near ``first``: a program association table, or a PES packet."""
    file.seek(first)
    data = file.read(_SEARCHED_BYTES)
    return any(_begins_content(data[at : at + _PACKET_BYTES]) for at in range(0, len(data), step))


def _is_header(head: bytes) -> bool:
    """Whether five bytes can begin a packet: not marked as in error, scrambling that exists, and some content."""
    if len(head) < 5 or head[0] != _SYNC or head[1] & 0x80 or head[3] & 0xC0 == 0x40 or not head[3] & 0x30:
        return False
    # The length of an adaptation field must leave at least a byte for a payload, if there is one.
    return not head[3] & 0x20 or head[4] <= (182 if head[3] & 0x10 else 183)


def _begins_content(packet: bytes) -> bool:
    if not _is_header(packet[:5]) or not packet[1] & 0x40 or not packet[3] & 0x10:
        return False
    payload = packet[5 + packet[4] if packet[3] & 0x20 else 4 :]
    if (packet[1] & 0x1F) << 8 | packet[2] == _PAT_PID:
        # Behind the pointer: the table's identifier, 0, and the bit of a section that has a CRC (2.4.4.3).
        section = payload[1 + payload[0] :][:2] if payload else b""
        return len(section) == 2 and section[0] == 0 and bool(section[1] & 0x80)
    return payload.startswith(b"\0\0\1")
