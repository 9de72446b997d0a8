"""Links and resources of a folder of HTML, without a browser: `python scripts/site_links.py [build/docs]`.

Every relative link leads to a file of the folder, and to an id in it where it names one; nothing that a page loads is
of another host.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser fetches by itself, by element.
LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "use": "href",
}
#: Kinds of ``link`` that fetch nothing.
NOT_LOADED = {"index", "search", "next", "prev", "canonical", "author", "up"}


@dataclass
class Page:
    """Ids, links and loaded resources of one page."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.ids.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values and values.get("rel") not in NOT_LOADED:
            self.page.loaded.append(values[LOADED[tag]])


def read_pages(folder: Path) -> dict[Path, Page]:
    """Read every page below ``folder``."""
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        reader = _Reader()
        reader.feed(path.read_text(encoding="utf-8"))
        pages[path.resolve()] = reader.page
    return pages


def problems(folder: Path) -> list[str]:
    """List dead links, and what would be loaded from another host."""
    pages = read_pages(folder)
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder.resolve())
        for target in [*page.links, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https", "mailto") or parts.netloc:
                if target in page.loaded:
                    found.append(f"{name} loads {target}")
                continue
            if parts.scheme == "data":
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.is_file():
                found.append(f"{name} links to {target}")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].ids:
                found.append(f"{name} links to {target}, which has no such heading")
    return found


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs")
    found = problems(folder)
    print("\n".join(found) or f"{len(read_pages(folder))} pages: no dead link, nothing of another host")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
