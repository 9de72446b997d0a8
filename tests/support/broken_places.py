"""Places of recordings that do not open: archives, hosts and names, each with the error code of its row."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    """A tar file of these files, in order."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is one of its texts
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip file of these files, in order."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def closed_port() -> int:
    """A port of loopback where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def broken_manifest(folder: Path, clip: bytes) -> tuple[Path, list[str | None]]:
    """A manifest of good rows amid broken ones; the error code of each, None for a good one."""
    write_tar(folder / "good.tar", {"a.mp4": clip, "deep/b.mp4": clip})
    write_tar(folder / "good.tar.gz", {"a.mp4": clip}, "w:gz")
    write_tar(folder / "good.tgz", {"a.mp4": clip}, "w:gz")
    write_zip(folder / "good.zip", {"a.mp4": clip})
    (folder / "noise.tar").write_bytes(b"no archive" * 200)
    (folder / "noise.zip").write_bytes(b"no archive" * 200)
    whole = (folder / "good.tar").read_bytes()
    (folder / "cut.tar").write_bytes(whole[: 512 + len(clip) // 2])
    port = closed_port()
    places: list[tuple[str, str | None]] = [
        (f"tar://a.mp4::file://{folder}/good.tar", None),
        (f"tar://missing.mp4::file://{folder}/good.tar", "unreadable"),
        (f"tar://a.mp4::file://{folder}/missing.tar", "unreadable"),
        (f"tar://a.mp4::file://{folder}/noise.tar", "unreadable"),
        (f"tar://a.mp4::file://{folder}/cut.tar", "unreadable"),
        (f"zip://a.mp4::file://{folder}/good.zip", None),
        (f"zip://a.mp4::file://{folder}/noise.zip", "unreadable"),
        (f"zip://a.mp4::http://127.0.0.1:{port}/good.zip", "unreadable"),
        (f"ftp://127.0.0.1:{port}/a.mp4", "unreadable"),
        (f"http://127.0.0.1:{port}/a.mp4", "unreadable"),
        ("s4://bucket/a.mp4", "unreadable"),
        ("http://[::bad/a.mp4", "unreadable"),
        ("a\0b.mp4", "invalid_parameter"),
        ("\ud800.mp4", "invalid_parameter"),
        ("x" * 5000, "unreadable"),
        (f"tar://deep/b.mp4::file://{folder}/good.tar", None),
        (f"tar://a.mp4::file://{folder}/good.tar.gz", None),
        (f"tar://a.mp4::file://{folder}/good.tgz", None),
    ]
    manifest = folder / "broken.jsonl"
    manifest.write_text("".join(json.dumps({"path": place}) + "\n" for place, _ in places))
    return manifest, [code for _, code in places]
