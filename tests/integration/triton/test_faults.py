"""Faults of encoders in a real Triton server, under load, by both paths: its own entry model, and a gateway before it.

Every answer says what it lacks, and no request fails while one encoder is left. `pytest -s` prints the rows of
docs/evidence/gateway.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from tritonclient.utils import InferenceServerException

from support.gateway import Answered, Load, answered_whole, load, print_row
from support.server_process import ServerProcess
from support.tiny_media import LABELS, tiny_clip
from support.triton_faults import Faults, LoadGenerator
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

#: Answers to see in each state.
ENOUGH = 12
#: After a model is loaded or unloaded, when answers are no longer of requests that were under way, in seconds.
SETTLED_S = 0.5
#: Longer than the watchdog would take, if it took a load that failed for a death.
WATCHED_S = 2.0
OK, GONE = "ok", "failed:encoder_gone"
ERROR, NAN, LATE, BUSY = "failed:encoder_error", "failed:non_finite", "timeout:deadline", "failed:encoder_busy"

#: What an encoder whose process dies may be until it is back.
KILLED = (GONE, ERROR, LATE)

#: A status of HTTP (gRPC's UNAVAILABLE is 503), that of the sound, and that of the pictures.
State = tuple[int, str, str]
WHOLE: State = (200, OK, OK)


# --- faults -----------------------------------------------------------------------------------------------------


@contextmanager
def misbehaving(faults: Faults, how: str) -> Iterator[None]:
    """The sound encoder, made to misbehave for the block."""
    faults.tell_sound(how)
    try:
        yield
    finally:
        faults.tell_sound("")


@contextmanager
def unloaded(faults: Faults, *modalities: str) -> Iterator[None]:
    for modality in modalities:
        faults.unload(modality)
    try:
        yield
    finally:
        for modality in modalities:
            faults.load(modality)


def only_stub(faults: Faults, model: str) -> int:
    """The one process of a model: for a moment there is another, which it forks or takes the place of."""
    wait_until(lambda: len(faults.server.stubs(model)) == 1)
    (stub,) = faults.server.stubs(model)
    return stub


@contextmanager
def killed(faults: Faults, modality: str) -> Iterator[None]:
    """Nobody mends it: the watchdog of `dimml triton` loads the model again, and says so."""
    model = faults.bundle.encoder_model(modality)
    before = only_stub(faults, model)
    logged = faults.server.log.count(f"watchdog: {model} is loaded again")
    faults.kill(modality)
    yield
    faults.server.wait_for_log(f"watchdog: {model} is loaded again", count=logged + 1)
    assert only_stub(faults, model) != before


@contextmanager
def garbage(faults: Faults, *, unload: bool) -> Iterator[None]:
    """A model file that is none: what is loaded stays in service when loading it again fails."""
    with faults.garbage("visual"):
        if unload:
            faults.unload("visual")
        with pytest.raises(InferenceServerException, match="ONNX Runtime cannot load"):
            faults.load("visual")
        yield
    faults.load("visual")


FAULTS: dict[str, Callable[[Faults], object]] = {
    "an encoder that raises": lambda faults: misbehaving(faults, "raise"),
    "an encoder that gives NaN": lambda faults: misbehaving(faults, "nan"),
    "an encoder past its deadline": lambda faults: misbehaving(faults, "sleep 4"),
    "a sound encoder unloaded": lambda faults: unloaded(faults, "audio"),
    "a picture encoder unloaded": lambda faults: unloaded(faults, "visual"),
    "both encoders unloaded, loaded again": lambda faults: unloaded(faults, "audio", "visual"),
    "a sound stub killed, mended by `dimml triton`": lambda faults: killed(faults, "audio"),
    "a picture stub killed, mended by `dimml triton`": lambda faults: killed(faults, "visual"),
    "a garbage file loaded over a model": lambda faults: garbage(faults, unload=False),
    "a garbage file, unloaded and loaded": lambda faults: garbage(faults, unload=True),
}


# --- the table --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What clients see on one path while a fault lasts."""

    fault: str
    path: Literal["entry model", "gateway"]
    #: Answers of which ENOUGH come.
    expected: frozenset[State]
    #: Answers that come as well, until a request meets the fault and after it has ended.
    passing: frozenset[State] = frozenset({WHOLE})
    enough: int = ENOUGH
    #: How long it lasts at least.
    lasts_s: float = 0.0
    #: Whether it ends by itself: until all is well again counts from its begin.
    mends_itself: bool = False
    #: Whether from SETTLED_S after its begin, and after its end, there are no others.
    steady: bool = False


def row(fault: str, path: Literal["entry model", "gateway"], *expected: State, **more: object) -> object:
    return pytest.param(Row(fault, path, frozenset(expected), **more), id=f"{fault}-{path}")  # type: ignore[arg-type]


#: Of two that go, and come back, one after the other.
ONE_BY_ONE = frozenset({WHOLE, (200, GONE, OK), (200, OK, GONE)})
TABLE = [
    row("an encoder that raises", "entry model", (200, ERROR, OK)),
    row("an encoder that raises", "gateway", (200, ERROR, OK)),
    row("an encoder that gives NaN", "entry model", (200, NAN, OK)),
    row("an encoder that gives NaN", "gateway", (200, NAN, OK)),
    # Past its bound of abandoned calls, a sleeping encoder is not called at all.
    row("an encoder past its deadline", "entry model", (200, LATE, OK), (200, BUSY, OK)),
    row("an encoder past its deadline", "gateway", (200, LATE, OK)),
    row("a sound encoder unloaded", "gateway", (200, GONE, OK), steady=True),
    row("a picture encoder unloaded", "entry model", (200, OK, GONE)),
    row("both encoders unloaded, loaded again", "gateway", (503, GONE, GONE), passing=ONE_BY_ONE, steady=True),
    row("both encoders unloaded, loaded again", "entry model", (503, GONE, GONE), passing=ONE_BY_ONE),
    row(
        "a sound stub killed, mended by `dimml triton`",
        "entry model",
        *((200, r, OK) for r in (*KILLED, BUSY)),
        mends_itself=True,
    ),
    row(
        "a picture stub killed, mended by `dimml triton`",
        "entry model",
        *((200, OK, r) for r in (*KILLED, BUSY)),
        mends_itself=True,
    ),
    row(
        "a picture stub killed, mended by `dimml triton`", "gateway", *((200, OK, r) for r in KILLED), mends_itself=True
    ),
    row("a garbage file loaded over a model", "entry model", WHOLE, enough=10 * ENOUGH, lasts_s=WATCHED_S),
    row("a garbage file loaded over a model", "gateway", WHOLE, lasts_s=WATCHED_S),
    row("a garbage file, unloaded and loaded", "entry model", (200, OK, GONE)),
    row("a garbage file, unloaded and loaded", "gateway", (200, OK, GONE), steady=True),
]


@contextmanager
def load_by(row: Row, faults: Faults, server: ServerProcess, folder: Path) -> Iterator[Load]:
    """A steady load on ``faulty`` by a row's path."""
    label = 2
    with ExitStack() as stack:
        if row.path == "gateway":
            clip = tiny_clip(folder, label)
            yield stack.enter_context(load(server, clip, expected=LABELS[label], model="faulty"))
        else:
            yield stack.enter_context(LoadGenerator(faults.server.grpc, faults.bundle)).made


def state(answer: Answered) -> State:
    return answer.status, answer.modalities.get("audio", ""), answer.modalities.get("visual", "")


def wait_for(made: Load, states: frozenset[State], count: int, since: float) -> list[Answered]:
    """Block until so many answers in ``states`` have ended since then; all that have."""
    made.wait_until(lambda: sum(state(answer) in states for answer in made.since(since)) >= count)
    return made.since(since)


@pytest.mark.parametrize("row", TABLE)
def test_answers_while_a_fault_lasts_and_once_it_has_ended(
    row: Row, faults: Faults, server: ServerProcess, tmp_path: Path
) -> None:
    whole = frozenset({WHOLE})
    with load_by(row, faults, server, tmp_path) as made:
        # Before: an earlier test may have left an encoder busy.
        wait_for(made, whole, ENOUGH, answered_whole(made, time.monotonic()))
        before = time.monotonic()
        with FAULTS[row.fault](faults):  # type: ignore[attr-defined]  # Each is a context manager.
            began = time.monotonic()
            settled = began + SETTLED_S if row.steady else began
            wait_for(made, row.expected, row.enough, max(settled, began + row.lasts_s))
            during = made.since(settled)
            if row.steady:
                assert {state(answer) for answer in during} == row.expected
        ended = time.monotonic()
        broken = max((answer.at for answer in made.since(began) if answer.degraded), default=ended)
        whole_s = answered_whole(made, broken) - (began if row.mends_itself else ended)
        settled = ended + SETTLED_S if row.steady else ended
        afterwards = wait_for(made, whole, ENOUGH, settled)
        if row.steady:
            assert {state(answer) for answer in afterwards} == whole
        seen = made.since(before)
    assert {state(answer) for answer in seen} <= row.expected | row.passing
    assert row.expected & {state(answer) for answer in seen}
    for answer in seen:
        assert answer.degraded == (answer.status == 200 and state(answer) != WHOLE)
        assert answer.label == (answer.expected if answer.status == 200 else None)
    if row.path == "gateway":
        print_row(row.fault, made, whole_s)
