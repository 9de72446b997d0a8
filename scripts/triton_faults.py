"""Break encoders of a real Triton server under a steady load, one way after another, and print what it cost.

    python scripts/triton_faults.py [--seconds 6] [--clients 4]

Each row: requests from the moment of the fault until answers are whole again, how many failed, how many were answered
without the modality (and with which statuses), and the time from the beginning of the mending (for a killed process:
from the kill, since it mends by itself) to the last answer without the modality. Needs what the tests need:
`make test` sets it up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from tritonclient.utils import InferenceServerException

from support.triton_faults import Faults, LoadGenerator, make_faulty_bundle
from support.triton_process import running_triton

_LIMIT_S = 60.0
_WHOLE = ("ok", "ok")


@dataclass(frozen=True)
class Fault:
    """One row: ``broken`` breaks on entering and mends on leaving; ``mended_by_hand`` False where it mends itself."""

    name: str
    broken: Callable[[], object]
    mended_by_hand: bool = True


def main() -> None:
    """Run all faults and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each fault lasts")
    parser.add_argument("--clients", type=int, default=4, help="requests at a time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        bundle = make_faulty_bundle(repository)
        with running_triton(repository) as server, LoadGenerator(server.grpc, bundle, clients=given.clients) as load:
            faults = Faults(server, repository, bundle)
            load.wait_for(lambda seen: seen.answers[_WHOLE] >= 20, _LIMIT_S)
            print("| fault | requests | failures | degraded | statuses seen (audio, visual) | whole again after |")
            print("|---|---|---|---|---|---|", flush=True)
            for fault in all_faults(faults):
                print(row(fault, load, given.seconds), flush=True)


def all_faults(faults: Faults) -> list[Fault]:
    """The faults of docs/evidence/triton.md."""
    return [
        Fault("encoder unloaded", lambda: unloaded(faults, "visual")),
        Fault("encoder raises", lambda: misbehaving(faults, "raise")),
        Fault("encoder gives NaN", lambda: misbehaving(faults, "nan")),
        Fault("encoder sleeps past its deadline", lambda: misbehaving(faults, "sleep 4")),
        Fault("encoder's process killed", lambda: killed(faults, "visual"), mended_by_hand=False),
        Fault("model file is garbage, loaded over it", lambda: garbage(faults, unload=False)),
        Fault("model file is garbage, unloaded and loaded", lambda: garbage(faults, unload=True)),
        Fault("both encoders unloaded", lambda: unloaded(faults, "audio", "visual")),
    ]


def row(fault: Fault, load: LoadGenerator, seconds: float) -> str:
    """Break, wait, mend, wait; one line of the table."""
    load.take()
    broken_at = time.monotonic()
    with fault.broken():  # type: ignore[attr-defined]  # each is a context manager
        time.sleep(seconds)
        during = load.take()
        mended_at = time.monotonic() if fault.mended_by_hand else broken_at
    after = load.wait_for(lambda seen: seen.answers[_WHOLE] >= 20, _LIMIT_S)
    answers: Counter[tuple[str, ...]] = during.answers + after.answers
    failures = len(during.failures) + len(after.failures)
    last_bad = max(during.degraded_at, after.degraded_at, mended_at)
    recovery_s = max(0.0, last_bad - mended_at)
    statuses = ", ".join(f"`{' '.join(key)}` {count}" for key, count in sorted(answers.items()) if key != _WHOLE)
    wrong = during.wrong_labels + after.wrong_labels
    requests = during.requests + after.requests
    note = f" ({wrong} wrong labels)" if wrong else ""
    return (
        f"| {fault.name} | {requests} | {failures} | {during.degraded + after.degraded}{note} "
        f"| {statuses or 'none'} | {recovery_s:.1f} s |"
    )


@contextmanager
def unloaded(faults: Faults, *modalities: str) -> Iterator[None]:
    """Encoders unloaded through Triton's repository call."""
    for modality in modalities:
        faults.unload(modality)
    yield
    for modality in modalities:
        faults.load(modality)


@contextmanager
def misbehaving(faults: Faults, what: str) -> Iterator[None]:
    """Let the sound encoder misbehave."""
    faults.tell_sound(what)
    yield
    faults.tell_sound("")


@contextmanager
def killed(faults: Faults, modality: str) -> Iterator[None]:
    """An encoder's process killed; `dimml triton` is left to mend it."""
    faults.kill(modality)
    yield


@contextmanager
def garbage(faults: Faults, *, unload: bool) -> Iterator[None]:
    """An encoder's file replaced by garbage, and loaded."""
    with faults.garbage("visual"):
        if unload:
            faults.unload("visual")
        try:
            faults.load("visual")
        except InferenceServerException:
            pass
        else:
            raise AssertionError("garbage was loaded")
        yield
    faults.load("visual")


if __name__ == "__main__":
    main()
