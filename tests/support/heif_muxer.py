"""A muxer of HEIC and AVIF pictures made of tiles, as telephones store them (ISO/IEC 23008-12; AVIF, section 2)."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import av
import numpy as np

Colour = tuple[int, int, int]


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


@dataclass(frozen=True)
class Codec:
    """How a format's tiles are encoded and named."""

    encoder: str
    options: dict[str, str]
    pixels: str
    item: bytes
    configuration: bytes
    brand: bytes


CODECS: Final = {
    "heic": Codec(
        "libx265", {"x265-params": "log-level=none:qp=4:bframes=0:rc-lookahead=0"}, "yuv444p", b"hvc1", b"hvcC", b"heic"
    ),
    "avif": Codec("libsvtav1", {"crf": "5", "preset": "10"}, "yuv420p", b"av01", b"av1C", b"avif"),
}


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 4.1 does to a process of root's: from its first picture on it is real-time (FIFO, priority 99),
    and so is every process that it starts (findings/svtav1_realtime.sh)."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@cache
def coded_tile(image_format: str, colour: Colour, side: int) -> tuple[bytes, bytes]:
    """A square of one colour as ``(body of the configuration box, coded picture)``."""
    codec = CODECS[image_format]
    file = io.BytesIO()
    with kept_scheduling(), av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec.encoder, rate=1, options=codec.options)
        stream.width = stream.height = side
        stream.pix_fmt = codec.pixels
        picture = av.VideoFrame.from_ndarray(np.full((side, side, 3), colour, np.uint8), format="rgb24")
        frame = picture.reformat(format=codec.pixels, dst_colorspace="ITU601")
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = file.getvalue()
    at = data.find(codec.configuration)
    (size,) = struct.unpack_from(">I", data, at - 4)
    file.seek(0)
    with av.open(file) as container:
        return data[at + 4 : at - 4 + size], bytes(next(container.demux(video=0)))


def picture_grid(
    image_format: str,
    colours: Sequence[Sequence[Colour]],
    side: int,
    size: tuple[int, int],
    *,
    quarter_turns: int = 0,
    mirror: Literal["left-right", "top-bottom"] | None = None,
) -> bytes:
    """A grid of square tiles of one colour each, cropped to ``size`` (width, height), turned anticlockwise,
    then mirrored.

    Equal tiles share their bytes.
    """
    codec = CODECS[image_format]
    rows, columns = len(colours), len(colours[0])
    coded = [coded_tile(image_format, colour, side) for row in colours for colour in row]
    configuration = coded[0][0]
    count = len(coded)
    # Items 1 to count are the tiles, the next one is the grid. Equal tiles share their bytes.
    grid_id = count + 1
    entries = [
        full_box(b"infe", 2, 1, struct.pack(">HH4s", item, 0, codec.item), b"\0") for item in range(1, count + 1)
    ] + [full_box(b"infe", 2, 0, struct.pack(">HH4s", grid_id, 0, b"grid"), b"\0")]
    turned = ([box(b"irot", bytes([quarter_turns]))] if quarter_turns else []) + (
        [] if mirror is None else [box(b"imir", bytes([mirror == "left-right"]))]
    )
    properties = [
        box(codec.configuration, configuration),
        full_box(b"ispe", 0, 0, struct.pack(">II", side, side)),
        full_box(b"ispe", 0, 0, struct.pack(">II", *size)),
        box(b"colr", b"nclx", struct.pack(">HHHB", 1, 13, 6, 0)),
        full_box(b"pixi", 0, 0, bytes([3, 8, 8, 8])),
        *turned,
    ]
    of_tile = bytes([4, 0x81, 2, 4, 5])
    of_grid = bytes([3 + len(turned), 3, 4, 5, *(0x80 | 6 + i for i in range(len(turned)))])
    associations = [struct.pack(">H", item) + of_tile for item in range(1, count + 1)]
    ipma = full_box(b"ipma", 0, 0, struct.pack(">I", count + 1), *associations, struct.pack(">H", grid_id) + of_grid)
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, *size)
    if max(size) > 0xFFFF:
        grid = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, *size)
    head = box(b"ftyp", codec.brand, b"\0\0\0\0", b"mif1", codec.brand)
    blobs: dict[bytes, int] = {}
    length = 0
    for _, picture in coded:
        if picture not in blobs:
            blobs[picture] = length
            length += len(picture)

    def meta(begin: int) -> bytes:
        locations = [
            struct.pack(">HHHHII", item, 0, 0, 1, begin + blobs[picture], len(picture))
            for item, (_, picture) in enumerate(coded, 1)
        ] + [struct.pack(">HHHHII", grid_id, 1, 0, 1, 0, len(grid))]
        return full_box(
            b"meta", 0, 0,
            full_box(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"pict"), b"\0"),
            full_box(b"pitm", 0, 0, struct.pack(">H", grid_id)),
            full_box(b"iloc", 1, 0, struct.pack(">HH", 0x4400, count + 1), *locations),
            full_box(b"iinf", 0, 0, struct.pack(">H", count + 1), *entries),
            full_box(b"iref", 0, 0, box(b"dimg", struct.pack(f">HH{count}H", grid_id, count, *range(1, count + 1)))),
            box(b"iprp", box(b"ipco", *properties), ipma),
            box(b"idat", grid),
        )  # fmt: skip

    begin = len(head) + len(meta(0)) + 8
    return head + meta(begin) + box(b"mdat", *blobs)


def tiles_for(size: tuple[int, int], side: int, colour: Colour) -> list[list[Colour]]:
    """As many tiles of one colour as cover ``size``."""
    return [[colour] * math.ceil(size[0] / side) for _ in range(math.ceil(size[1] / side))]
