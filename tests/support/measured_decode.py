"""A decode function for ``DecodePool`` that also says how much memory its process has used."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dimml.media import Decoded, DecodeRequest, decode


def measured_decode(request: DecodeRequest) -> Decoded:
    """``dimml.media.decode``; two more times of each track are the process, and its peak resident size in bytes."""
    decoded = decode(request)
    # Not `ru_maxrss`: a process begins with that of the one that started it, here of all tests before.
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak is not None
    peak_bytes = int(peak[1]) * 1024
    for track in decoded.tracks.values():
        track.times_s += (float(os.getpid()), float(peak_bytes))
    return decoded


def forget_peak(process: int) -> None:
    """Let a process's peak resident size begin anew, at what it has now (proc(5), clear_refs)."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
