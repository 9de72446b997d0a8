"""Recordings that the tiny bundle understands: a class's tone as sound, its colour as pictures."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from support.media_maker import Picture, tone, write_clip
from support.several_tracks import write_tracks
from support.tiny_bundle import colour, tone_hz

LABELS = ("red", "green", "blue")


def coloured(label: int) -> Picture:
    """Pictures of a class's colour, 64 x 96, with a mark that moves so that they do not pass for frozen ones."""

    def picture(number: int) -> npt.NDArray[np.uint8]:
        rgb = np.empty((64, 96, 3), np.uint8)
        rgb[:] = colour(label)
        rgb[:8, 8 * (number % 12) : 8 * (number % 12) + 8] = 255
        return rgb

    return picture


def tiny_clip(
    folder: Path,
    label: int,
    seconds: float = 1.0,
    *,
    picture: Picture | Literal["own", "black", "frozen"] | None = "own",
    sound: Literal["own", "silence"] | None = "own",
) -> bytes:
    """An MP4 of class ``label``; a track that is not its own is replaced or left out."""
    path = write_clip(
        folder / f"{label}.mp4",
        seconds,
        picture=coloured(label) if picture == "own" else picture,
        sound=tone(tone_hz(label)) if sound == "own" else sound,
    )
    return path.read_bytes()


def two_voices(folder: Path) -> bytes:
    """A Matroska file with a sound track of class 0 in English, and one of class 1 in French; no picture."""
    voices = [(language, tone(tone_hz(label))) for label, language in enumerate(("eng", "fra"))]
    return write_tracks(folder / "voices.mkv", voices, seconds=1.0).read_bytes()


def marked(clip: bytes, marker: bytes) -> bytes:
    """The MP4 with ``marker`` in a box that every reader skips; ``faulty_decoding`` looks for it."""
    return clip + struct.pack(">I", 8 + len(marker)) + b"free" + marker


def fates(body: dict[str, Any]) -> dict[str, str]:
    """Every modality's ``status`` or ``status:reason`` in a JSON answer or error."""
    modalities = body["error"].get("modalities", {}) if "error" in body else body["modalities"]
    return {n: ":".join(filter(None, (m["status"], m.get("reason")))) for n, m in modalities.items()}
