"""Faults of encoders inside a real Triton server, under load: no request fails, and every answer says what it lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from support.triton_faults import Faults, Load, LoadGenerator, tiny_inputs

pytestmark = pytest.mark.timeout(600)

#: Answers to see in each state.
ENOUGH = 12
LIMIT_S = 60.0
WHOLE = ("ok", "ok")


@pytest.fixture
def load(faults: Faults) -> Iterator[LoadGenerator]:
    """A steady load that has seen whole answers."""
    with LoadGenerator(faults.server.grpc, faults.bundle) as generator:
        generator.wait_for(lambda seen: seen.answers[WHOLE] >= ENOUGH, LIMIT_S)
        yield generator


def whole_again(load: LoadGenerator) -> Load:
    """Wait for whole answers; what was seen on the way."""
    return load.wait_for(lambda seen: seen.answers[WHOLE] >= ENOUGH, LIMIT_S)


def check(seen: Load, allowed: set[tuple[str, str]]) -> None:
    assert seen.failures == []
    assert seen.wrong_labels == 0
    assert set(seen.answers) <= allowed | {WHOLE}, seen.answers


def degraded_answers(load: LoadGenerator, statuses: set[tuple[str, str]]) -> Load:
    """Wait for answers with these statuses; what was seen on the way."""
    return load.wait_for(lambda seen: sum(seen.answers[status] for status in statuses) >= ENOUGH, LIMIT_S)


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ("raise", {("failed:encoder_error", "ok")}),
        ("nan", {("failed:non_finite", "ok")}),
        # Past its bound of calls that nobody waits for, a sleeping encoder is not called at all.
        ("sleep 4", {("timeout:deadline", "ok"), ("failed:encoder_busy", "ok")}),
    ],
)
def test_an_encoder_that_misbehaves(
    faults: Faults, load: LoadGenerator, fault: str, statuses: set[tuple[str, str]]
) -> None:
    faults.tell_sound(fault)
    try:
        check(degraded_answers(load, statuses), statuses)
    finally:
        faults.tell_sound("")
    check(whole_again(load), statuses)


def test_an_encoder_that_is_unloaded(faults: Faults, load: LoadGenerator) -> None:
    gone = {("ok", "failed:encoder_gone")}
    faults.unload("visual")
    try:
        check(degraded_answers(load, gone), gone)
    finally:
        faults.load("visual")
    check(whole_again(load), gone)


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_an_encoder_whose_process_is_killed(faults: Faults, load: LoadGenerator, modality: str) -> None:
    fates = ("failed:encoder_gone", "failed:encoder_error", "timeout:deadline", "failed:encoder_busy")
    allowed = {(fate, "ok") if modality == "audio" else ("ok", fate) for fate in fates}
    (before,) = faults.server.stubs(faults.bundle.encoder_model(modality))
    faults.kill(modality)
    check(degraded_answers(load, allowed), allowed)
    # Nobody does anything: the watchdog of `dimml triton` loads the model again, and says so.
    check(whole_again(load), allowed)
    (after,) = faults.server.stubs(faults.bundle.encoder_model(modality))
    assert after != before
    faults.server.wait_for_log(f"watchdog: {faults.bundle.encoder_model(modality)} is loaded again")


def test_a_model_file_that_is_garbage(faults: Faults, load: LoadGenerator) -> None:
    gone = {("ok", "failed:encoder_gone")}
    with faults.garbage("visual"):
        # What is loaded stays in service when loading it again fails.
        with pytest.raises(InferenceServerException, match="ONNX Runtime cannot load"):
            faults.load("visual")
        time.sleep(2.0)  # Longer than the watchdog would take, if it took this for a death.
        check(load.wait_for(lambda seen: seen.requests >= 10 * ENOUGH, LIMIT_S), set())
        faults.unload("visual")
        with pytest.raises(InferenceServerException, match="ONNX Runtime cannot load"):
            faults.load("visual")
        check(degraded_answers(load, gone), gone)
    faults.load("visual")
    check(whole_again(load), gone)


def test_both_encoders_gone_then_back(faults: Faults, load: LoadGenerator) -> None:
    faults.unload("audio")
    faults.unload("visual")
    try:
        seen = load.wait_for(lambda seen: len(seen.failures) >= ENOUGH, LIMIT_S)
    finally:
        faults.load("audio")
        faults.load("visual")
    for failure in seen.failures:
        assert "UNAVAILABLE" in failure
        assert "no encoder answered: audio failed:encoder_gone, visual failed:encoder_gone" in failure
    recovered = load.wait_for(lambda seen: seen.answers[WHOLE] >= ENOUGH, LIMIT_S)
    assert recovered.wrong_labels == 0


def test_a_request_without_the_faulty_modality_does_not_notice(faults: Faults) -> None:
    faults.tell_sound("raise")
    try:
        with faults.client() as client:
            answer = client.infer("faulty", tiny_inputs(tritonclient.grpc, 1, ("visual",)))
    finally:
        faults.tell_sound("")
    assert answer.as_numpy("STATUS")[0].tolist() == [b"absent:not_sent", b"ok"]
    assert answer.as_numpy("PROBABILITIES")[0].argmax() == 1


def test_a_request_s_own_time_limit_bounds_a_sleeping_encoder(faults: Faults, settled: Callable[[], None]) -> None:
    settled()
    faults.tell_sound("sleep 4")
    try:
        with faults.client() as client:
            began = time.monotonic()
            answer = client.infer("faulty", tiny_inputs(tritonclient.grpc, 2), parameters={"timeout_ms": 500})
            took_s = time.monotonic() - began
    finally:
        faults.tell_sound("")
    assert answer.as_numpy("STATUS")[0].tolist() == [b"timeout:deadline", b"ok"]
    assert answer.as_numpy("PROBABILITIES")[0].argmax() == 2
    assert took_s < 3.0, "the encoder's own time limit is 1.5 s, its sleep 4 s"
    settled()


@pytest.fixture
def settled(faults: Faults) -> Callable[[], None]:
    """Wait until a request is answered with both modalities."""

    def wait() -> None:
        end = time.monotonic() + LIMIT_S
        with faults.client() as client:
            while (
                client.infer("faulty", tiny_inputs(tritonclient.grpc, 0)).as_numpy("STATUS")[0].tolist() != [b"ok"] * 2
            ):
                assert time.monotonic() < end
                time.sleep(0.1)

    return wait
