"""What stands beside the code: hooks, templates, citation, changelog and findings say what the rest says."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from dimml import __version__
from support.data import REPOSITORY_ROOT

TEMPLATES = sorted((REPOSITORY_ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FINDINGS = sorted((REPOSITORY_ROOT / "findings").glob("*.sh"))
CHANGELOG = (REPOSITORY_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
#: Of files that people write to, or that are written about people.
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w+")


def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_hooks_are_local_and_do_what_make_check_does() -> None:
    repos = parsed(REPOSITORY_ROOT / ".pre-commit-config.yaml")["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = [hook["entry"].replace(".venv/bin/", "$(BIN)/") for hook in repos[0]["hooks"]]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (REPOSITORY_ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert hooks == [line.strip() for line in recipe[1].splitlines()]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_forms_have_what_github_asks_of_them(path: Path) -> None:
    """https://docs.github.com/communities/using-templates-to-encourage-useful-issues-and-pull-requests"""
    form = parsed(path)
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"]
    assert form["description"]
    questions = [part for part in form["body"] if part["type"] != "markdown"]
    ids = [part["id"] for part in questions]
    assert len(set(ids)) == len(ids) > 0
    for part in questions:
        assert part["type"] in {"textarea", "input", "dropdown", "checkboxes"}
        assert part["attributes"]["label"]
        options = part["attributes"].get("options", [])
        assert len(set(options)) == len(options)
        assert (part["type"] == "dropdown") == bool(options)
    assert not EMAIL.search(path.read_text(encoding="utf-8"))


def test_the_version_is_the_same_everywhere() -> None:
    citation = parsed(REPOSITORY_ROOT / "CITATION.cff")
    assert citation["version"] == __version__
    released = dict(re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE))
    assert str(citation["date-released"]) == released[__version__]
    assert next(iter(released)) == __version__, "the newest stands first"
    (arxiv,) = [one["value"] for one in citation["references"][0]["identifiers"]]
    assert arxiv.replace(":", " ") in (REPOSITORY_ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")


def test_the_changelog_begins_with_what_is_not_released() -> None:
    assert re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)[0] == "[Unreleased]"
    unreleased = CHANGELOG.partition("## [Unreleased]\n")[2].partition("\n## ")[0]
    headings = re.findall(r"^### (.*)$", unreleased, re.MULTILINE)
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    assert headings == [kind for kind in kinds if kind in headings]


def test_the_sdist_has_what_readme_links_to_and_what_its_commands_need() -> None:
    project = tomllib.loads((REPOSITORY_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [part for part in parts if not (REPOSITORY_ROOT / part.removeprefix("/")).exists()] == []
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (REPOSITORY_ROOT / "README.md").read_text(encoding="utf-8"))
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY_ROOT, capture_output=True, check=True, text=True)
    recipes = set(re.findall(r"[\w./-]+", (REPOSITORY_ROOT / "Makefile").read_text(encoding="utf-8")))
    needed = {*linked, *(recipes & set(listed.stdout.splitlines())), "Makefile"}
    left_out = {name for name in needed if f"/{name.partition('/')[0]}" not in parts}
    # hatchling adds the one; the others are for a checkout.
    assert left_out == {"pyproject.toml", "tests/conftest.py", "tests/test_boundaries.py"}


def test_vulnerabilities_are_reported_through_github_and_to_no_address() -> None:
    page = (REPOSITORY_ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "private vulnerability reporting" in page
    assert not EMAIL.search(page)


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_a_finding_keeps_the_form(path: Path) -> None:
    """That it still finds what it says is tried by hand; it installs packages."""
    text = path.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True)
    head, _, body = text.partition("\nset -euo pipefail\n")
    assert "# Output" in head
    assert "mktemp -d" in body
    assert "trap " in body
    assert not re.search(r"\bdimml\b", body), "without dimml"
    installs = re.findall(r"/pip\" install (.*)", body.replace("\\\n", ""))
    packages = [word for line in installs for word in shlex.split(line) if not word.startswith("-")]
    assert packages
    assert [word for word in packages if "==" not in word] == [], "all are pinned"
    assert [word for word in packages if word.partition("==")[0] not in head] == [], "and named in the head"
    assert f"({path.name})" in (path.parent / "README.md").read_text(encoding="utf-8")


def test_all_findings_are_listed_and_there() -> None:
    listed = re.findall(r"\]\((\w+\.sh)\)", (REPOSITORY_ROOT / "findings" / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == [path.name for path in FINDINGS] != []
