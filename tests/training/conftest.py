"""Training tests run beside others on few cores: one thread for torch, and one seed. Those that read share a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dimml_training.loop.train import train
from support.exporting import operators_made_once
from support.forked_workers import forked_workers
from support.tiny_training import configured, write_clips

__all__ = ["forked_workers", "operators_made_once"]


@pytest.fixture(autouse=True)
def _one_thread_and_the_same_chances() -> None:
    """What draws without a seed of its own draws the same in every order of the tests."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_core() -> Iterator[None]:
    """One decode worker for each data set: the start of one takes longer than decoding the clips."""
    with pytest.MonkeyPatch.context() as machine:
        machine.setattr("dimml_training.data.prepare.usable_cores", lambda: 1)
        yield


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def finished(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, shared by tests that only read it."""
    out = tmp_path_factory.mktemp("runs") / "stripes"
    torch.set_num_threads(1)
    train(configured(clips), out, cache_dir=cache)
    return out
