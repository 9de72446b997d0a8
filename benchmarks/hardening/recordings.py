"""Recordings to send, whole and damaged."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = ROOT / "model_repository"
SAMPLES = ROOT / "samples"
GOOD = SAMPLES / "clean_seven.mp4"
#: Larger seeds are left out: their copies, not their damage, would take the time.
MAX_SEED_BYTES = 600_000

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Sample clips, and the shared ones where they are there."""
    shared = Path(os.environ.get("DIMML_DATA", ROOT.parent / "shared" / "data")) / "media"
    paths = [*sorted(SAMPLES.iterdir()), *(sorted(shared.iterdir()) if shared.is_dir() else [])]
    found = [path.read_bytes() for path in paths if path.suffix != ".csv"]
    return [data for data in found if 0 < len(data) <= MAX_SEED_BYTES]


def mutated(seed: bytes, other: bytes, random_: random.Random) -> bytes:
    """A damaged copy; most damage goes to the first and last 4 KB, where containers keep what they believe."""
    data = bytearray(seed)

    def place() -> int:
        if random_.random() < 0.7:
            edge = random_.randrange(min(4096, len(data)))
            return edge if random_.random() < 0.5 else len(data) - 1 - edge
        return random_.randrange(len(data))

    for _ in range(random_.choice((1, 1, 2, 4, 16, 64))):
        if not data:
            break
        at, kind = place(), random_.randrange(7)
        if kind == 0:
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            data[at : at + 4] = struct.pack(random_.choice([">I", "<I"]), random_.choice(_NUMBERS))
        elif kind == 2:
            data[at : at + random_.randrange(1, 64)] = random_.randbytes(random_.randrange(1, 64))
        elif kind == 3:
            del data[at : at + random_.choice((1, 4, 100, 5000))]
        elif kind == 4:
            piece = data[at : at + random_.choice((4, 64, 2000))]
            data[at:at] = piece * random_.choice((1, 2, 20))
        elif kind == 5:
            start = random_.randrange(len(other))
            data[at : at + 512] = other[start : start + 512]
        elif random_.random() < 0.2:
            del data[at:]
    return bytes(data)
