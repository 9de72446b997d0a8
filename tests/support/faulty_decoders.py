"""Decode functions that misbehave on command when pictures are wanted, in place of a decoder with a fault.

Handed to ``DecodePool(decode_function=…)``, which imports them by name in its workers. Sound is decoded properly.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import numpy as np

from dimml.errors import InvalidParameterError, TooLargeError
from dimml.media import Decoded, DecodeRequest, decode
from dimml.modality import Waveform


def _unless_pictured(request: DecodeRequest, misbehave: Callable[[], None]) -> Decoded:
    if any(not isinstance(modality, Waveform) for modality in request.modalities):
        misbehave()
    return decode(request)


def segfaults_on_pictures(request: DecodeRequest) -> Decoded:
    """Killed by a signal, as after a fault in a codec."""
    return _unless_pictured(request, lambda: os.kill(os.getpid(), signal.SIGSEGV))


def exits_on_pictures(request: DecodeRequest) -> Decoded:
    """Gone, as after the kernel's out-of-memory killer."""
    return _unless_pictured(request, lambda: os._exit(9))


def hangs_on_pictures(request: DecodeRequest) -> Decoded:
    """Never comes back."""
    return _unless_pictured(request, lambda: time.sleep(600))


def allocates_on_pictures(request: DecodeRequest) -> Decoded:
    """Asks for 4 GB."""
    return _unless_pictured(request, lambda: np.ones(2**29).sum() and None)


def raises_on_pictures(request: DecodeRequest) -> Decoded:
    """A bug of ours."""

    def bug() -> None:
        raise RuntimeError("a bug")

    return _unless_pictured(request, bug)


def always_hangs(request: DecodeRequest) -> Decoded:
    """Never comes back, whatever is wanted."""
    time.sleep(600)
    raise AssertionError


def sleeps_by_clip_s(request: DecodeRequest) -> Decoded:
    """Takes ``clip_s`` seconds."""
    time.sleep(request.clip_s)
    return decode(request)


def refuses(request: DecodeRequest) -> Decoded:
    """Our own errors, by what is asked for."""
    if request.clip_s > 1:
        raise TooLargeError("too large", field="media")
    raise InvalidParameterError("wrong", field="start_s")


def tells_its_process(request: DecodeRequest) -> Decoded:
    """The worker's process id, as ``start_s``."""
    return Decoded(start_s=float(os.getpid()))


def killed_by_a_name(request: DecodeRequest) -> Decoded:
    """By a file with ``kills`` in its name; one with ``slow`` takes a while."""
    names = "".join(str(source) for source in request.sources.values())
    if "kills" in names:
        os._exit(9)
    if "slow" in names:
        time.sleep(0.15)
    return decode(request)
