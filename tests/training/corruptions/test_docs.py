"""docs/robustness.md names every family of the corruption suite with its severities, and no other."""

from __future__ import annotations

import re

from dimml_training.config.corruption_suite import FAMILIES
from support.data import REPOSITORY_ROOT


def test_the_tables_are_the_suite() -> None:
    text = (REPOSITORY_ROOT / "docs" / "robustness.md").read_text()
    told = [
        (name, seen, severities)
        for name, seen, severities in re.findall(r"^\| `(\w+)` \| (seen|development) \| (.*?) \|", text, re.MULTILINE)
    ]
    assert told == [
        (
            family.name,
            "seen" if family.seen else "development",
            ", ".join(f"**{label}**" if label in family.standard else label for label in family.severities),
        )
        for family in FAMILIES
    ]
