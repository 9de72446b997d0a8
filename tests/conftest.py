"""What holds for every test: third-party libraries send nothing, each has a kind, and any order is a good one."""

from __future__ import annotations

import gc
import importlib
import os
import random
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

from dimml.system.outbound import set_quiet_defaults
from support.tiers import longest_first, mark, scope_of

#: How this process is scheduled as it starts.
SCHEDULING = os.sched_getscheduler(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--order-seed",
        help="run files, and the tests of each, in an order drawn from this seed; 'random' draws the seed too",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before test modules import anything that would send. All worker processes need the same order."""
    set_quiet_defaults()
    # What a test writes need not outlive the machine, and a wait for the disk is longer than most tests.
    os.fsync = lambda file: None
    gc.disable()
    # No test is timed: on a busy machine an example takes as long as it takes.
    hypothesis.settings.register_profile("dimml", deadline=None)
    hypothesis.settings.load_profile("dimml")
    if config.option.order_seed == "random":
        drawn = str(random.SystemRandom().randrange(10**6))
        config.option.order_seed = getattr(config, "workerinput", {}).get("order_seed", drawn)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look at it again with every test."""
    gc.enable()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """What changes how this process is scheduled fails: all tests after it, and their servers, would run that way."""
    result = yield
    assert os.sched_getscheduler(0) == SCHEDULING, f"{item.nodeid} changed this process's scheduling policy"
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker process the seed that was drawn."""
    node.workerinput["order_seed"] = node.config.option.order_seed


@pytest.fixture(scope="session")
def sklearn_metrics() -> Any:
    """``sklearn.metrics``, imported by the first test that asks: it takes seconds, in every process that collects."""
    return importlib.import_module("sklearn.metrics")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.order_seed is not None:
        terminalreporter.write_line(f"order: --order-seed={config.option.order_seed}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before ``-m`` selects. A shuffled file stays together: its tests share what was costly to make."""
    mark(items)
    if config.option.order_seed is None:
        if hasattr(config, "workerinput"):
            longest_first(items)
    else:
        draw = random.Random(config.option.order_seed)
        files = dict.fromkeys(item.path for item in items)
        places = dict(zip(files, draw.sample(range(len(files)), len(files)), strict=True))
        draw.shuffle(items)
        items.sort(key=lambda item: places[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile``, but for the tests that share a server, and in our own order of files."""
    if config.option.dist != "loadfile":
        return None
    config.option.loadscopereorder = False
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return Scheduling(config, log)
