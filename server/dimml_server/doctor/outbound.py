"""Checks of what third-party libraries send or look up by themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from dimml.system.outbound import SWITCHES, Switch
from dimml_server.doctor.finding import Finding

_CHECK = "outbound"


def outbound_findings() -> Iterator[Finding]:
    """Make one finding for each installed library that has a switch."""
    for switch in SWITCHES:
        for package in switch.packages:
            try:
                yield _finding(switch, package, version(package))
            except PackageNotFoundError:
                continue


def _finding(switch: Switch, package: str, there: str) -> Finding:
    from packaging.version import Version

    name = f"{package} {there}"
    if Version(there) < Version(switch.since):
        return Finding(_CHECK, "ok", f"{name} sends nothing; newer versions are kept from it by {switch.variable}")
    value = os.environ.get(switch.variable, "")
    if switch.stopped_by(os.environ):
        return Finding(_CHECK, "ok", f"{name} sends nothing: {switch.variable}={value}")
    found = f"{name} {switch.sends}: {switch.variable}={value or '(not set)'}"
    return Finding(_CHECK, "note", found, f"unset {switch.variable}, or set it to {switch.value}")
