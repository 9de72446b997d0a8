"""A change of models or traffic is made in all processes or in none, whatever one of them does meanwhile."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from dimml.errors import DimmlError, RequestError, UnavailableError
from dimml_server.processes.changes import Changes
from dimml_server.processes.channel import ChannelClosedError


class Process:
    """A serving process in memory: what it serves, what it has prepared, and how it fails."""

    def __init__(self, **served: dict[str, str]) -> None:
        self.served: dict[str, dict[str, str]] = served
        self.splits: dict[str, dict[str, float]] = {}
        self.prepared: tuple[str, dict[str, str]] | None = None
        self.discarded = 0
        self.killed = False
        self.raises: dict[str, Exception] = {}
        self.calls: list[str] = []

    async def call(self, method: str, /, **arguments: Any) -> Any:
        self.calls.append(method)
        await asyncio.sleep(0)
        if method in self.raises:
            raise self.raises[method]
        if method == "prepare":
            name = arguments.get("name") or arguments["model"]
            versions = {"load": {"2": "b"}, "unload": {}, "drop": {"1": "a"}}.get(arguments["kind"])
            self.prepared = name, arguments["versions"] if versions is None else versions
            return {"name": name, "versions": self.prepared[1]}
        if method == "commit":
            assert self.prepared is not None
            name, self.served[name] = self.prepared
            self.prepared = None
            return self.splits.get(name, {})
        if method == "discard":
            self.discarded += self.prepared is not None
            self.prepared = None
            return arguments["failures"]
        if method == "set_split":
            self.splits[arguments["name"]] = arguments["split"]
        return None

    def kill(self) -> None:
        self.killed = True


def joined(processes: list[Process], file: Path | None = None) -> Changes:
    changes = Changes(lambda: processes, file)

    async def join() -> None:
        for process in processes:
            served = {"versions": process.served, "splits": process.splits}
            assert await changes.join(served, lambda: None) is None

    asyncio.run(join())
    return changes


def two() -> list[Process]:
    return [Process(tiny={"1": "a"}), Process(tiny={"1": "a"})]


def test_all_prepare_before_any_switches() -> None:
    processes = two()
    changes = joined(processes)
    asyncio.run(changes.load("tiny", origin=processes[1]))
    assert [process.served for process in processes] == [{"tiny": {"2": "b"}}] * 2
    assert [process.calls for process in processes] == [["prepare", "commit"]] * 2
    assert changes.serves("tiny", 2)
    assert not changes.serves("tiny", 1)


@pytest.mark.parametrize("which", [0, 1], ids=["asked", "another"])
@pytest.mark.parametrize("error", [RequestError("it does not load"), ChannelClosedError()], ids=["fails", "dies"])
def test_if_one_cannot_prepare_none_switches(which: int, error: Exception) -> None:
    processes = two()
    changes = joined(processes)
    processes[which].raises["prepare"] = error
    with pytest.raises(DimmlError) as refused:
        asyncio.run(changes.load("tiny", origin=processes[0]))
    assert [process.served for process in processes] == [{"tiny": {"1": "a"}}] * 2
    assert all(process.prepared is None for process in processes)
    assert not any(process.killed for process in processes)
    assert "commit" not in processes[0].calls + processes[1].calls
    assert isinstance(refused.value, RequestError if isinstance(error, RequestError) else UnavailableError)
    if which == 1:
        assert processes[0].discarded == 1
    del processes[which].raises["prepare"]
    asyncio.run(changes.load("tiny", origin=processes[0]))
    assert changes.serves("tiny", 2)


@pytest.mark.parametrize("error", [UnavailableError("no"), ChannelClosedError()], ids=["fails", "dies"])
def test_one_that_does_not_switch_is_replaced_by_one_that_serves_the_new_list(error: Exception) -> None:
    processes = two()
    changes = joined(processes)
    processes[1].raises["commit"] = error
    asyncio.run(changes.load("tiny", origin=processes[0]))
    assert [process.killed for process in processes] == [False, True]
    new = {"versions": {"tiny": {"2": "b"}}, "splits": {}}
    assert changes.served is not None
    assert changes.served.as_json() == new


def test_a_process_joins_only_with_the_list_of_the_others() -> None:
    changes = joined(two())
    joins: list[str] = []

    async def scenario() -> None:
        old = {"versions": {"tiny": {"1": "a"}}, "splits": {}}
        await changes.load("tiny")
        wanted = await changes.join(old, lambda: joins.append("old"))
        assert wanted == {"versions": {"tiny": {"2": "b"}}, "splits": {}}
        assert await changes.join(wanted, lambda: joins.append("new")) is None

    asyncio.run(scenario())
    assert joins == ["new"]


def test_no_process_joins_during_a_change() -> None:
    processes = two()
    changes = joined(processes)
    order: list[str] = []

    async def scenario() -> None:
        change = asyncio.ensure_future(changes.load("tiny"))
        await asyncio.sleep(0)
        old = {"versions": {"tiny": {"1": "a"}}, "splits": {}}
        wanted = await changes.join(old, lambda: order.append("joined with the old list"))
        assert change.done()
        assert wanted is not None

    asyncio.run(scenario())
    assert order == []


def test_without_a_process_there_is_no_change() -> None:
    with pytest.raises(UnavailableError):
        asyncio.run(Changes(list, None).unload("tiny"))


def test_unload_and_drop_reach_all() -> None:
    processes = two()
    changes = joined(processes)
    asyncio.run(changes.unload("tiny"))
    assert [process.served for process in processes] == [{"tiny": {}}] * 2
    assert changes.served is not None
    assert changes.served.as_json()["versions"] == {}
    asyncio.run(changes.drop("tiny", 2))
    assert changes.serves("tiny", 1)


def test_what_calls_set_is_stored_and_what_settings_say_is_not(tmp_path: Path) -> None:
    file = tmp_path / "routing.json"
    processes = [Process(tiny={"1": "a", "2": "b"}, other={"1": "c"}) for _ in range(2)]
    for process in processes:
        process.splits = {"other": {"1": 100.0}}
    changes = joined(processes, file)
    asyncio.run(changes.set_split("tiny", {"1": 50.0, "2": 50.0}, origin=processes[0]))
    assert json.loads(file.read_text()) == {"tiny": {"split": {"1": 50.0, "2": 50.0}, "shadow": None}}
    # A version with a share goes: each process gives it to the others, and the file follows.
    for process in processes:
        process.splits["tiny"] = {}
    asyncio.run(changes.load("tiny"))
    assert json.loads(file.read_text())["tiny"]["split"] == {}


def test_a_split_that_is_refused_is_set_nowhere(tmp_path: Path) -> None:
    processes = two()
    changes = joined(processes, tmp_path / "routing.json")
    processes[1].raises["check_split"] = RequestError("no such version", field="split")
    with pytest.raises(RequestError):
        asyncio.run(changes.set_split("tiny", {"9": 100.0}, origin=processes[1]))
    assert [process.splits for process in processes] == [{}, {}]
    assert not (tmp_path / "routing.json").exists()


def test_what_the_file_has_and_the_start_could_not_do_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "routing.json"
    file.write_text('{"tiny": {"split": {"1": 100.0}}, "gone": {"split": {"7": 100.0}}}')
    processes = two()
    for process in processes:
        process.splits = {"tiny": {"1": 100.0}}
    changes = joined(processes, file)
    asyncio.run(changes.set_split("tiny", {}, origin=processes[0]))
    assert json.loads(file.read_text()) == {"tiny": {"split": {}, "shadow": None}}
