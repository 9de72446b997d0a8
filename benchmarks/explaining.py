"""What an explanation adds to a request: servers side by side, the same clip to each in turn.

    python benchmarks/explaining.py
    python benchmarks/explaining.py --requests 300 --before ../main     # and an older checkout's server

Every server has the demo bundle and one client at a time; one is asked for answers alone, one for Shapley values, one
for the occlusion curve too. Ratios are of medians, to answers alone. Beside them the CPU time of the server's process,
its decode workers' left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from harness.load import exchange, http_request
from tracing import CLASSES, ROOT, connection_to, cpu_time_s, server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--before", type=Path, help="another checkout, whose server is measured beside them")
    arguments = parser.parse_args()
    clip = (ROOT / "samples" / "clean_three.mp4").read_bytes()
    load_before = os.getloadavg()[0]
    asked = {"plain": None, "shapley": "shapley", "occlusion": "occlusion"}
    checkouts = dict.fromkeys(asked, ROOT)
    with ExitStack() as stack:
        if arguments.before is not None:
            asked["before"], checkouts["before"] = None, arguments.before.resolve()
        settings = {name: ("explain=occlusion",) if explain else () for name, explain in asked.items()}
        servers = {name: stack.enter_context(server(checkouts[name], *settings[name])) for name in asked}
        # Once all have started: a server cuts off who connects and says nothing for long.
        connections = {name: stack.enter_context(connection_to(address)) for name, (address, _) in servers.items()}
        requests = {name: http_request(clip, CLASSES, explain=explain) for name, explain in asked.items()}
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        explain_ms: dict[str, list[float]] = {name: [] for name in asked}
        cpu_s: dict[str, float] = {}
        for number in range(-20, arguments.requests):
            if number == 0:
                cpu_s = {name: -cpu_time_s(pid) for name, (_, pid) in servers.items()}
            for name, connection in connections.items():
                began = time.perf_counter()
                answer = json.loads(exchange(connection, requests[name]))
                if number >= 0:
                    seconds[name].append(time.perf_counter() - began)
                    explain_ms[name].append(answer.get("explanation", {}).get("explain_ms", 0.0))
                assert answer["label"] == "three", answer
                assert ("explanation" in answer) == (asked[name] is not None), answer
        for name, (_, pid) in servers.items():
            cpu_s[name] += cpu_time_s(pid)
    print(f"load average before {load_before:.2f}, after {os.getloadavg()[0]:.2f}; {arguments.requests} requests each")
    for name, values in seconds.items():
        median, p90 = statistics.median(values), statistics.quantiles(values, n=10)[-1]
        ratio = median / statistics.median(seconds["plain"])
        cpu_ms = 1000 * cpu_s[name] / arguments.requests
        print(
            f"{name:9}  median {1000 * median:7.2f} ms  p90 {1000 * p90:7.2f} ms  ratio {ratio:.3f}  "
            f"explain_ms {statistics.median(explain_ms[name]):6.2f}  CPU {cpu_ms:6.2f} ms"
        )


if __name__ == "__main__":
    main()
