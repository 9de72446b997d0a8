"""The tiers of the tests: what each test is by where it stands, and which of them share a process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.data import REPOSITORY_ROOT

#: Every test has exactly one of these markers.
KINDS = ("unit", "integration", "triton")
_TESTS = REPOSITORY_ROOT / "tests"
_TRITON = Path("integration", "triton")
#: Folders whose files share what one of them has started.
_SHARING = (
    "tests/integration/console",
    "tests/integration/kserve",
    "tests/integration/processes",
    "tests/integration/triton",
)

#: The files and folders above that take longest, the longest first: begun last, one process would wait for another.
LONGEST = (
    "tests/integration/triton",
    "tests/integration/test_hardening.py",
    "tests/integration/processes",
    "tests/training/loop/test_distributed.py",
    "tests/integration/kserve",
    "tests/integration/http/test_openapi_fuzz.py",
    "tests/training/joint/test_rivals.py",
    "tests/integration/test_notebook.py",
    "tests/integration/test_three_kinds.py",
    "tests/export/test_export.py",
    "tests/core/media/workers/test_pool.py",
    "tests/training/corruptions/test_evaluate.py",
    "tests/integration/observability/test_monitoring.py",
    "tests/integration/versions/test_traffic.py",
    "tests/integration/http/test_faults.py",
    "tests/integration/test_lifecycle.py",
    "tests/training/avdigits/test_maker.py",
    "tests/training/compare/test_replicates.py",
    "tests/clients/scoring/run/test_resume.py",
    "tests/integration/observability/test_traces.py",
    "tests/clients/scoring/engines/test_ray.py",
)

#: Unit tests that are slow all together, by folder or file, and why: together they take as long as all others.
SLOW = {
    "tests/training/compare": "trains",
    "tests/training/corruptions": "trains",
    "tests/training/final_scoring": "trains",
    "tests/training/fusion_selection": "trains, and chooses fusions",
    "tests/training/joint": "trains",
    "tests/training/loop": "trains",
    "tests/training/run": "trains",
    "tests/core/media/decoders/test_files.py": "decodes long recordings",
    "tests/core/media/decoders/test_windows.py": "decodes long recordings",
    "tests/core/media/workers/test_pool.py": "loses worker processes, and waits out their limits",
    "tests/clients/scoring/run/test_resume.py": "kills scoring processes",
    "tests/clients/transport/test_retry.py": "waits out time limits",
    "tests/deploy/test_monitoring.py": "runs promtool for every rule",
    "tests/export/tensorrt/test_graph.py": "exports encoders of every kind",
    "tests/export/test_repository_writer.py": "kills exporting processes",
}


def kind_of(path: Path) -> str:
    """The kind of the tests in the file at ``path``."""
    inside = path.relative_to(_TESTS)
    if inside.is_relative_to(_TRITON):
        return "triton"
    return "integration" if inside.is_relative_to("integration") else "unit"


def mark(items: Iterable[pytest.Item]) -> None:
    """Give every test the marker of its kind. Raises UsageError where one is given by hand, or ``slow`` says no reason.

    ``slow`` is for unit tests of more than some three seconds on a quiet machine, and for what ``SLOW`` names; what
    else is slow, its kind says.
    """
    for item in items:
        kind = kind_of(item.path)
        by_hand = [name for name in KINDS if item.get_closest_marker(name) is not None]
        if by_hand:
            raise pytest.UsageError(f"{item.nodeid}: {by_hand[0]} is given by the test's folder, not by a marker")
        slow = item.get_closest_marker("slow")
        if slow is not None and (kind != "unit" or not slow.kwargs.get("reason")):
            raise pytest.UsageError(f"{item.nodeid}: slow is for unit tests, as slow(reason=...)")
        item.add_marker(kind)
        if slow is None and (reason := slow_because(item.nodeid)) is not None:
            item.add_marker(pytest.mark.slow(reason=reason))


def slow_because(nodeid: str) -> str | None:
    """Why a test is slow by where it stands; None if it is not."""
    file = nodeid.split("::", 1)[0]
    return next((reason for place, reason in SLOW.items() if file == place or file.startswith(f"{place}/")), None)


def longest_first(items: list[pytest.Item]) -> None:
    """Order what shares a process as it is to be begun: after the longest, by the number of its tests."""
    scopes = [scope_of(item.nodeid) for item in items]
    count = Counter(scopes)
    place = {scope: LONGEST.index(scope) if scope in LONGEST else len(LONGEST) for scope in count}
    order = {scope: index for index, scope in enumerate(sorted(count, key=lambda s: (place[s], -count[s], s)))}
    items.sort(key=lambda item: order[scope_of(item.nodeid)])


def scope_of(nodeid: str) -> str:
    """What shares a worker process with this test: its file, or its folder where that shares a server."""
    file = nodeid.split("::", 1)[0]
    return next((folder for folder in _SHARING if file.startswith(f"{folder}/")), file)
