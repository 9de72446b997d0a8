"""From a memory-mapped array of clips to batches, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dimml.modality import Modality
from dimml.signal_check import QualityThresholds, no_signal
from dimml.status import Reason
from dimml_training.distributed import ALONE, Ranks

#: Rows by modality ``[B, *shape]``, and class indices ``[B]``.
Batch = tuple[dict[str, Tensor], Tensor]

#: As if all frames of a row were of one time: the signal check then leaves freezing to whoever knew the times.
ONE_TIME = (0.0,)


@dataclass(frozen=True)
class ClipRows:
    """Clips as tensors: per modality an array ``[slots, *shape]`` (usually memory-mapped), and which slot each clip
    of this set is in; ``labels`` are class indices ``[N]``."""

    arrays: Mapping[str, npt.NDArray[Any]]
    slots: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.slots)

    def rows(self, modality: str, clips: Sequence[int] | slice) -> npt.NDArray[Any]:
        """A copy of some clips' rows, ``[len(clips), *shape]``."""
        return np.asarray(self.arrays[modality][self.slots[clips]])


def prepared_no_signal(modality: Modality, row: npt.NDArray[Any], quality: QualityThresholds) -> Reason | None:
    """Why a row of a prepared clip, perhaps corrupted since, carries no signal, or None.

    Whether a picture is frozen depends on the times of its frames. The decoder had them and refused what was frozen,
    so a row that was prepared is not: a still picture, for one, fills every frame and is a signal.
    """
    return no_signal(modality, row, quality, times_s=ONE_TIME)


class _BatchDataset(Dataset[Batch]):
    """Indexed by a list of clips, so that a batch is one gather per modality."""

    def __init__(self, clips: ClipRows) -> None:
        self.clips = clips

    def __getitem__(self, indices: list[int]) -> Batch:
        rows = {name: torch.from_numpy(self.clips.rows(name, indices)) for name in self.clips.arrays}
        return rows, torch.from_numpy(self.clips.labels[indices])


class EpochSampler(Sampler[list[int]]):
    """Lists of clip indices. Shuffled by (seed, epoch); Lightning tells it the epoch.

    Several processes share the work. In training each takes its part of every batch, parts of one size, so that
    together they make the steps of one process; in evaluation each takes one stretch of the clips, in order.
    """

    def __init__(self, clips: int, batch_size: int, *, seed: int | None, ranks: Ranks = ALONE) -> None:
        self.clips = clips
        self.batch_size = batch_size
        self.seed = seed
        self.ranks = ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.seed is None:
            return math.ceil(len(self._stretch) / self.batch_size)
        return math.ceil(self._usable / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.seed is None:
            for start in range(0, len(self._stretch), self.batch_size):
                yield list(self._stretch[start : start + self.batch_size])
            return
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.clips)[: self._usable]
        for start in range(0, self._usable, self.batch_size):
            batch = order[start : start + self.batch_size]
            part = len(batch) // self.ranks.size
            yield batch[self.ranks.rank * part :][:part].tolist()

    @property
    def _stretch(self) -> range:
        """The clips of this rank in evaluation."""
        rank, size = self.ranks.rank, self.ranks.size
        return range(self.clips * rank // size, self.clips * (rank + 1) // size)

    @property
    def _usable(self) -> int:
        """A last batch of less than two clips per process is left out of training: batch normalisation and DUC need
        two. So is what the processes cannot share evenly."""
        size = self.ranks.size
        last = self.clips % self.batch_size
        if size == 1 and self.clips == 1:
            return 1
        return self.clips - last + (last // size * size if last >= 2 * size else 0)


def batches(clips: ClipRows, batch_size: int, *, seed: int | None = None, ranks: Ranks = ALONE) -> DataLoader[Batch]:
    """Batches in order, or shuffled anew each epoch where a seed is given; this process's part of them.

    Read in this process: a gather from a memory map costs less than handing tensors between processes.
    """
    sampler = EpochSampler(len(clips), batch_size, seed=seed, ranks=ranks)
    return DataLoader(_BatchDataset(clips), sampler=sampler, batch_size=None)
