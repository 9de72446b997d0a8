"""Every relative link in README and docs leads to a file, lines and tracked files are of a sane size."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support.data import REPOSITORY_ROOT

PAGES = sorted(
    page for folder in (".", "docs", "docs/adr", "docs/evidence") for page in (REPOSITORY_ROOT / folder).glob("*.md")
)
#: Written by scripts, line by line.
GENERATED = {"results.md", "media_matrix.md", "media_differential.md"}
MAX_LINE = 130
MAX_FILE_BYTES = 4 * 2**20
MAX_DEMO_BYTES = 10 * 2**20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_that_code_names_are_there() -> None:
    """In messages, help texts, comments, configs and dashboards; with the heading where one is named."""
    command = ["git", "grep", "-nIoE", r"docs/[a-z0-9_/]+\.(md|png|svg)(#[a-z0-9-]+)?", "--", ":!*.md"]
    named = subprocess.run(command, cwd=REPOSITORY_ROOT, capture_output=True, check=True, text=True).stdout.splitlines()
    assert len(named) > 100
    missing = []
    for line in named:
        place, _, found = line.rpartition(":")
        page, _, heading = found.partition("#")
        if found == "docs/operators.md":  # of onnx-tensorrt
            continue
        path = REPOSITORY_ROOT / page
        text = path.read_text(encoding="utf-8") if path.suffix == ".md" and path.exists() else ""
        headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
        if not path.exists() or (heading and heading not in headings):
            missing.append(f"{place}: {found}")
    assert missing == []


def test_lines_of_docs_are_not_too_long() -> None:
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        # What cannot be broken: tables, pictures, what is replaced when the site is built, code by indentation.
        prose = re.findall(r"^(?!\||!\[|<!--|    ).*$", text, re.MULTILINE)
        if page.is_relative_to(REPOSITORY_ROOT / "docs") and page.name not in GENERATED:
            found += [f"{page.name}: {line[:60]}…" for line in prose if len(line) > MAX_LINE]
    assert found == []


def pages_linked_from(page: Path) -> set[Path]:
    targets = re.findall(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return {(page.parent / target).resolve() for target in targets}


def test_every_page_of_docs_can_be_reached_from_its_index_and_that_from_the_readme() -> None:
    docs = REPOSITORY_ROOT / "docs"
    assert docs / "index.md" in pages_linked_from(REPOSITORY_ROOT / "README.md")
    reached, waiting = set[Path](), {docs / "index.md"}
    while waiting:
        reached |= waiting
        found = {page for waiter in waiting for page in pages_linked_from(waiter)}
        waiting = {page for page in found - reached if page.is_relative_to(docs)}
    assert {page for folder in (".", "adr", "evidence") for page in (docs / folder).glob("*.md")} <= reached


def test_tracked_files_stay_small() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY_ROOT, capture_output=True, check=True).stdout
    sizes = {
        name: (REPOSITORY_ROOT / name).stat().st_size
        for name in listed.decode().split("\0")
        if name and (REPOSITORY_ROOT / name).is_file()
    }
    assert max(sizes.values()) <= MAX_FILE_BYTES
    demo = [size for name, size in sizes.items() if name.startswith(("model_repository/", "samples/"))]
    assert 0 < sum(demo) <= MAX_DEMO_BYTES


def test_every_decision_is_listed_and_every_citation_names_one() -> None:
    folder = REPOSITORY_ROOT / "docs" / "adr"
    numbers = {path.name[:4]: path for path in folder.glob("[0-9]*.md")}
    index = (folder / "README.md").read_text(encoding="utf-8")
    for number, path in numbers.items():
        title = path.read_text(encoding="utf-8").partition("\n")[0]
        assert title.startswith(f"# {int(number)}. ")
        assert f"| [{number}]({path.name}) | {title.partition('. ')[2]} |" in index
    sources = [
        p
        for part in ("core", "training", "export", "server", "clients", "tests")
        for p in (REPOSITORY_ROOT / part).rglob("*.py")
    ]
    cited = {number for path in sources for number in re.findall(r"docs/adr/(\d{4})", path.read_text(encoding="utf-8"))}
    assert cited
    assert cited <= numbers.keys()
