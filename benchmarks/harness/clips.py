"""Recordings that benchmarks upload: whole files, and the same ones without their sound or pictures."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import av

from dimml.bundle import Bundle


def default_clips() -> Path:
    """The GRID corpus beside the repository, or where DIMML_DATA says."""
    data = os.environ.get("DIMML_DATA", "")
    root = Path(data) if data else Path(__file__).resolve().parents[3] / "shared" / "data"
    return root / "grid_s1" / "clips"


def read_clips(folder: Path, count: int) -> list[bytes]:
    """The first ``count`` .mp4 files of a folder by name. Raises SystemExit if there are none."""
    found = [path.read_bytes() for path in sorted(folder.glob("*.mp4"))[:count]]
    if not found:
        raise SystemExit(f"{folder} holds no .mp4 files: name a folder of recordings with --clips")
    return found


def without(bundle: Bundle, clips: Sequence[bytes], modality: str) -> list[bytes]:
    """The same recordings without the track that a modality is made from; nothing is encoded anew."""
    track = {m.name: m.track for m in bundle.modalities}[modality]
    return [_without(clip, track) for clip in clips]


def _without(clip: bytes, track: str) -> bytes:
    target = io.BytesIO()
    with av.open(io.BytesIO(clip)) as source, av.open(target, "w", format="mp4") as result:
        kept = [stream for stream in source.streams if stream.type in ("audio", "video") and stream.type != track]
        copies = {stream.index: result.add_stream_from_template(stream) for stream in kept}
        for packet in source.demux(kept):
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                result.mux(packet)
    return target.getvalue()
