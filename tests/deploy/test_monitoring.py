"""Rules by promtool's own tests, the dashboard's queries by its parser, and that docs and provisioning fit them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from support.data import REPOSITORY_ROOT
from support.manifests import DEPLOY, documents
from support.monitoring import DASHBOARD, RULES, program, queries, rules, shortened

RULE_TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
#: The rule of a slow burn looks at days.
SLOW = pytest.mark.slow(reason="promtool evaluates days of samples")
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=240
    )
    return done.returncode, done.stdout + done.stderr


def test_the_rules_are_rules() -> None:
    code, said = promtool("check", "rules", *RULES)
    assert code == 0, said


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=SLOW if path.stem == "error_budget_slow" else (), id=path.stem) for path in RULE_TESTS],
)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    code, said = promtool("test", "rules", path)
    assert code == 0, said


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    seen: dict[str, set[bool]] = {}
    for path in RULE_TESTS:
        for test in documents(path)[0]["tests"]:
            for case in test.get("alert_rule_test", ()):
                seen.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert seen == {name: {True, False} for name in ALERTS}


def test_promtool_would_find_a_wrong_threshold(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    for path in RULES:
        (tmp_path / "rules" / path.name).write_text(path.read_text().replace("increase10m > 0.2", "increase10m > 0.4"))
    test = DEPLOY / "prometheus" / "tests" / "modality_dark.yml"
    (tmp_path / "tests" / test.name).write_text(test.read_text())
    code, said = promtool("test", "rules", tmp_path / "tests" / test.name)
    assert code != 0
    assert "DimmlModalityDark" in said


def test_every_alert_has_a_runbook() -> None:
    page = (REPOSITORY_ROOT / "docs" / "monitoring.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    for name, rule in ALERTS.items():
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (file, anchor) == ("docs/monitoring.md", name.lower())
        assert anchor in headings, f"{name} has no runbook"
        assert rule["labels"]["severity"] in ("page", "ticket")
    assert headings == {name.lower() for name in ALERTS}


def test_every_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    found = queries()
    assert len(found) > 25
    asked = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(found.values())]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}))
    code, said = promtool("check", "rules", tmp_path / "queries.yml")
    assert code == 0, said


def test_the_dashboard_reads_the_provisioned_source_and_its_panels_do_not_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    (given,) = documents(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml")
    uids = re.findall(
        r'"uid": "(\w+)"', json.dumps({key: dashboard[key] for key in ("panels", "templating", "annotations")})
    )
    assert set(uids) == {given["datasources"][0]["uid"]}
    assert dashboard["uid"] == "dimml"
    covered: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not covered & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        covered |= cells
        assert panel["type"] == "row" or panel["description"]
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)


def test_shortening_leaves_names_and_numbers_alone() -> None:
    rule = "job:x:rate5m > 14.4 * 0.005 and rate(y_total[5m]) > 0  # for: 2m, [1h] and [30s] and offset 5m"
    assert shortened(rule, 60) == (
        "job:x:rate5m > 14.4 * 0.005 and rate(y_total[5s]) > 0  # for: 2s, [60s] and [1s] and offset 5s"
    )
