"""Opening a container with FFmpeg: one named demuxer, one file, no protocol and no other file."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, Final

import av

from dimml.media.types import MediaLimits

#: A protocol that does not exist: no protocol may be opened beneath a demuxer.
_NO_PROTOCOL: Final = "none"
#: FFmpeg compares a demuxer's whole name with this list, and "mov" is only one of the names of that demuxer.
_FORMAT_NAMES: Final = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm"}

#: What PyAV raises over a damaged container; IndexError where a stream appears that it has not listed. Some errors
#: of FFmpeg are MemoryErrors too: catch those first.
UNREADABLE: Final = (av.error.FFmpegError, OSError, ValueError, IndexError)


def _refuse(url: str, flags: int, options: dict[str, Any]) -> BinaryIO:
    raise PermissionError("a recording may not refer to another file")


def open_container(source: bytes | BinaryIO, demuxer: str, limits: MediaLimits) -> Any | None:
    """Open bytes or a file with ``demuxer`` and no other: an ``av.container.InputContainer``.

    None if the file is no such container. Raises MemoryError.
    """
    options = {
        "format_whitelist": _FORMAT_NAMES.get(demuxer, demuxer),
        "protocol_whitelist": _NO_PROTOCOL,
        # One thread per decoder, also while the container is probed.
        "threads": "1",
        "max_pixels": str(limits.max_pixels),
    }
    if demuxer == "mov":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source
    file.seek(0)
    try:
        container = av.open(file, format=demuxer, options=options, io_open=_refuse, metadata_errors="replace")
    except MemoryError:
        raise
    except UNREADABLE:
        return None
    for stream in container.streams:
        if stream.type in {"audio", "video"} and stream.codec_context is not None:
            stream.codec_context.thread_count = 1
    return container
