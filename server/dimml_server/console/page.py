"""Files of the built console: which there are, and how a browser may keep and use each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Where ``make console`` puts the page; git does not track it, sdist and wheel carry it.
STATIC: Final = Path(__file__).resolve().parent / "static"
INDEX: Final = "index.html"
NOT_BUILT: Final = (
    "the console is not built here: run `make console` in a checkout and restart the server; releases carry it"
)
#: Nothing inline, no other host; recordings and pictures that the page itself holds are ``blob:``.
POLICY: Final = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; frame-ancestors 'none'; object-src 'none'"
)
#: Names of these files hold a hash of what is in them.
_HASHED: Final = "assets/"
_FOR_GOOD: Final = "public, max-age=31536000, immutable"
_REVALIDATED: Final = "no-cache"
#: Only these are served, whatever else lies in the folder. Of media types a browser's sniffing is off for all answers.
_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".mp4": "video/mp4",
    ".wav": "audio/wav",
    ".png": "image/png",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page."""

    path: Path
    media_type: str
    headers: Mapping[str, str]


def page_files(folder: Path = STATIC) -> dict[str, PageFile]:
    """Return the files by their path below ``/console/``, the page itself under an empty one; empty if not built.

    The folder is read once: what is added later is not served, and no path of a request ever meets the file system.
    """
    if not (folder / INDEX).is_file():
        return {}
    found = {}
    for path in sorted(folder.rglob("*")):
        media_type = _TYPES.get(path.suffix)
        if media_type is None or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        headers = {"Cache-Control": _FOR_GOOD if name.startswith(_HASHED) else _REVALIDATED}
        if name == INDEX:
            name, headers["Content-Security-Policy"] = "", POLICY
        found[name] = PageFile(path, media_type, headers)
    return found
