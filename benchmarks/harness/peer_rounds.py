"""Rounds of every contender in turn, case by case, and their tables."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.contenders import Contender
from harness.load import Measured, closed_loop, open_loop
from harness.ratios import ratio
from harness.report import table
from harness.servers import Round, Running, free_port, measure, started

#: Tries at a round that others spoil.
TRIES = 3
#: Longest wait for an answer while an encoder stalls, and how many requests a round then has.
STALLED_LIMIT_S, STALLED_REQUESTS = 5.0, 100
STALLED_SHARE, STEADY_SHARE = 0.7, 0.8
IDLE_REQUESTS = 60


@dataclass(frozen=True)
class Load:
    """Recordings of one case, the label that each must have, and how much of them is sent."""

    clips: Sequence[bytes]
    labels: Sequence[str]
    requests: int
    clients: int


@dataclass
class Found:
    """All rounds so far: by contender and case, by number of the round. Notes are for the reader."""

    rounds: dict[str, dict[str, dict[int, Round]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def counted(self, contender: str, case: str) -> dict[int, Round]:
        """Rounds that count, by number."""
        rounds = self.rounds.get(contender, {}).get(case, {})
        return {number: one for number, one in rounds.items() if not one.spoiled}

    def note(self, text: str) -> None:
        """Keep, and say at once."""
        print(text, file=sys.stderr, flush=True)
        if text not in self.notes:
            self.notes.append(text)


def full_name(contender: Contender) -> str:
    """With what decodes, where it is not dimml's decoder."""
    return contender.name if contender.decoder == "dimml" else f"{contender.name}, {contender.decoder}"


class Bench:
    """Measures one contender at a time on the server's core; this process must be on the generator's."""

    def __init__(
        self,
        loads: Mapping[str, Load],
        cores: tuple[int, int],
        found: Found,
        others: float,
        own: Mapping[str, Mapping[str, Load]] | None = None,
    ) -> None:
        """``loads``: by case, ``both`` among them; ``others``: share of a core that others may take.

        ``own`` are the loads of contenders, by name, whose labels are others.
        """
        self._own = own or {}
        self._loads, self._cores, self._found, self._others = loads, cores, found, others

    def one_turn(self, number: int, contender: Contender, cases: Sequence[str]) -> None:
        """Start a contender, and do one round of each case. Raises RuntimeError if it does not start."""
        server_core, _ = self._cores
        both = self._loads["both"]
        port = free_port()
        probe = contender.request(both.clips[0])
        with started(
            contender.command(port), contender.environment, port=port, probe=probe, core=server_core
        ) as server:
            if cases != ["stalled"]:
                warm = [contender.request(clip) for clip in both.clips]
                closed_loop(server.address, warm, 5 * both.clients, both.clients)
            for case in cases:
                self._case(number, contender, case, server)

    def _case(self, number: int, contender: Contender, case: str, server: Running) -> None:
        load = self._own.get(contender.name, self._loads)[case]
        requests = [contender.request(clip) for clip in load.clips]
        send = self._sender(number, contender, case, server, requests)
        name = full_name(contender)
        for _ in range(TRIES):
            found, measured = measure(server, self._cores[1], send, self._others)
            found.differing = sum(
                contender.label(body) != load.labels[index % len(load.labels)]
                for index, body in measured.answers.items()
            )
            if case == "stalled":
                _late_ones_count(found, measured)
            self._found.rounds.setdefault(name, {}).setdefault(case, {})[number] = found
            shown = f"{found.rate:.1f}/s, {found.cpu_ms:.2f} ms of a processor, p99 {found.p99_ms:.0f} ms"
            print(f"round {number + 1}, {name}, {case}: {shown} {found.spoiled}", file=sys.stderr, flush=True)
            if found.failures:
                self._found.note(f"{name}, {case}: not answered: {json.dumps(found.failures)}")
            if not found.spoiled:
                break

    def _sender(
        self, number: int, contender: Contender, case: str, server: Running, requests: Sequence[bytes]
    ) -> Callable[[], Measured]:
        load = self._loads[case]
        if case in ("stalled", "steady"):
            rate = self._rate(number, full_name(contender)) * (STALLED_SHARE if case == "stalled" else STEADY_SHARE)
            count = min(load.requests, STALLED_REQUESTS) if case == "stalled" else load.requests
            limit_s = STALLED_LIMIT_S if case == "stalled" else 60.0
            return lambda: open_loop(server.address, requests, count, per_s=rate, limit_s=limit_s)
        if case == "idle":
            return lambda: closed_loop(server.address, requests, min(load.requests, IDLE_REQUESTS), 1)
        return lambda: closed_loop(server.address, requests, load.requests, load.clients)

    def _rate(self, number: int, name: str) -> float:
        """Requests a second of the same contender at saturation: in this round, else in any."""
        rounds = self._found.rounds.get(name, {}).get("both", {})
        if number in rounds:
            return rounds[number].rate
        if not rounds:
            raise RuntimeError("the case 'both' must be measured first")
        return statistics.median(one.rate for one in rounds.values())


def _late_ones_count(found: Round, measured: Measured) -> None:
    """Let a request without an answer count as one that took for ever."""
    seconds = [*measured.seconds, *(math.inf for _ in range(measured.failed))]
    found.p50_ms, found.p99_ms = (1000 * float(np.quantile(seconds, q, method="higher")) for q in (0.5, 0.99))


def _median(rounds: Mapping[int, Round], value: Callable[[Round], float]) -> float:
    return statistics.median(value(one) for one in rounds.values())


def _ms(value: float) -> str:
    return "none" if math.isinf(value) or math.isnan(value) else f"{value:.0f} ms"


def case_table(found: Found, case: str, contenders: Sequence[str], first: str) -> str:
    """Medians of the rounds that count, and the ratio of ``first`` to each by rounds made side by side."""
    head = ["", "requests/s", "processor ms a request", "p50", "p99", "memory", "other labels", "rounds"]
    of = "the one in bold" if "," in first else "dimml"
    head += [f"rate of {of} to its", f"processor time of {of} to its"]
    rows, own = [], found.counted(first, case)
    for name in contenders:
        tried, rounds = found.rounds.get(name, {}).get(case, {}), found.counted(name, case)
        if not tried:
            continue
        if not rounds:
            rows.append([name, *["–"] * 6, f"0 of {len(tried)}", "–", "–"])
            continue
        common = sorted(own.keys() & rounds.keys())
        ratios = ["", ""]
        if name != first and common:
            for place, value in enumerate((lambda one: one.rate, lambda one: one.cpu_ms)):
                made = ratio([(value(rounds[number]), value(own[number])) for number in common])
                ratios[place] = f"{made.value:.2f} ({made.low:.2f} to {made.high:.2f})"
        asked = sum(one.answered for one in rounds.values())
        differing = sum(one.differing for one in rounds.values())
        rows.append(
            [
                f"**{name}**" if name == first else name,
                f"{_median(rounds, lambda one: one.rate):.1f}",
                f"{_median(rounds, lambda one: one.cpu_ms):.2f}",
                _ms(_median(rounds, lambda one: one.p50_ms)),
                _ms(_median(rounds, lambda one: one.p99_ms)),
                f"{_median(rounds, lambda one: one.memory_bytes / 1e6):.0f} MB",
                f"{differing} of {asked}",
                f"{len(rounds)} of {len(tried)}",
                *ratios,
            ]
        )
    return table(head, rows)


def stalled_table(found: Found, contenders: Sequence[str], first: str) -> str:
    """Answers while one encoder stalls."""
    head = ["", f"sent at {100 * STALLED_SHARE:.0f} % of its own rate", "answered", "p50", "p99", "rounds"]
    rows = []
    for name in contenders:
        tried = found.rounds.get(name, {}).get("stalled", {})
        # Load that waits for answers takes no core: others are no matter here, as long as it was sent in time.
        rounds = found.counted(name, "stalled") or tried
        if not rounds:
            continue
        rate = STALLED_SHARE * statistics.median(one.rate for one in found.rounds[name]["both"].values())
        answered = sum(one.answered for one in rounds.values())
        asked = answered + sum(one.failed for one in rounds.values())
        p50, p99 = (_median(rounds, value) for value in (lambda one: one.p50_ms, lambda one: one.p99_ms))
        bold = f"**{name}**" if name == first else name
        rows.append([bold, f"{rate:.0f}/s", f"{100 * answered / asked:.0f} %", _ms(p50), _ms(p99), str(len(rounds))])
    return table(head, rows)
