"""Run every check and show what was found."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from dimml_server.doctor.files import settings_findings
from dimml_server.doctor.finding import Finding
from dimml_server.doctor.host import host_findings
from dimml_server.doctor.libraries import library_findings
from dimml_server.doctor.outbound import outbound_findings
from dimml_server.settings.settings import ServerSettings

_COLOURS = {"ok": "green", "note": "yellow", "mend": "red"}


def run_doctor(settings: ServerSettings, *, as_json: bool) -> bool:
    """Print all findings; return whether nothing must be fixed."""
    findings = [
        *host_findings(settings),
        *outbound_findings(),
        *library_findings(settings),
        *settings_findings(settings),
    ]
    healthy = all(finding.level != "mend" for finding in findings)
    if as_json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}))
    else:
        _show(findings)
    return healthy


def _show(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    for finding in findings:
        mark = f"[{_COLOURS[finding.level]}]{finding.level:<4}[/]"
        console.print(f"{mark}  {finding.check}: {escape(finding.found)}", soft_wrap=True)
        if finding.fix:
            console.print(f"      -> {escape(finding.fix)}", soft_wrap=True)
