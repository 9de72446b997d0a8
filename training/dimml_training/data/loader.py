"""Batches from memory-mapped arrays of clips, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dimml.modality import Modality
from dimml.signal_check import QualityThresholds, no_signal
from dimml.status import Reason
from dimml_training.distributed import ALONE, Ranks


class Batch(NamedTuple):
    """Rows by modality ``[B_m, *shape]``, of those B clips alone that have the modality, and class indices ``[B]``.

    ``present`` has booleans ``[B]``, which clips have the modality, for each that any clip of the whole set lacks.

    What training makes of a batch: ``targets``, the distributions by modality ``[B_m, C]`` that its rows are to be
    answered with, and ``clip_targets`` ``[B, C]``, those of whole clips, where they are not the classes; ``outliers``,
    booleans ``[B_m]``, which rows show nothing of the clip.
    """

    rows: dict[str, Tensor]
    labels_B: Tensor
    present: dict[str, Tensor] = {}  # noqa: RUF012  # a default that nothing changes
    targets: dict[str, Tensor] = {}  # noqa: RUF012
    clip_targets: Tensor | None = None
    outliers: dict[str, Tensor] = {}  # noqa: RUF012


#: A single time for all frames of a row makes the signal check skip freezing, which the decoder has already checked.
ONE_TIME = (0.0,)


def labels_of(batch: Batch, modality: str) -> Tensor:
    """Class indices ``[B_m]`` of the clips that have a modality."""
    there_B = batch.present.get(modality)
    return batch.labels_B if there_B is None else batch.labels_B[there_B]


def showing(batch: Batch, modality: str) -> Tensor | None:
    """Which clips have a modality that shows them, ``[B]``: present and no outlier. None where all have."""
    there_B, outlier = batch.present.get(modality), batch.outliers.get(modality)
    if outlier is None:
        return there_B
    if there_B is None:
        return ~outlier
    return there_B.index_put((there_B,), ~outlier)


def without_lone_rows(batch: Batch) -> Batch:
    """Leave out a modality of which the batch has one row only, since batch normalisation needs two."""
    if not batch.present:
        return batch
    lone = [name for name in batch.present if len(batch.rows[name]) == 1]
    rows = {name: tensor[:0] if name in lone else tensor for name, tensor in batch.rows.items()}
    present = {name: torch.zeros_like(there_B) if name in lone else there_B for name, there_B in batch.present.items()}
    return Batch(rows, batch.labels_B, present)


def spread_out(values: Tensor, present_B: Tensor | None) -> Tensor:
    """Place values ``[B_m, …]`` of the clips that have a modality among all B clips, zeros elsewhere: ``[B, …]``."""
    if present_B is None:
        return values
    placed = values.new_zeros(len(present_B), *values.shape[1:])
    return placed.index_put((present_B,), values)


@dataclass(frozen=True)
class ClipRows:
    """A set of N clips as arrays.

    ``arrays`` has one array ``[slots, *shape]`` per modality (usually memory-mapped), ``slots`` the slot of each clip,
    ``[N]``, and ``labels`` the class indices, ``[N]``. ``present`` has booleans ``[N]``, which clips have the modality,
    for each that any clip lacks; what the arrays hold for a clip without it means nothing.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    slots: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    present: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.slots)

    def rows(self, modality: str, clips: Sequence[int] | slice) -> npt.NDArray[Any]:
        """Copy the rows of some clips, ``[len(clips), *shape]``."""
        return np.asarray(self.arrays[modality][self.slots[clips]])

    def in_batches(self, modality: str, size: int = 256) -> Iterator[npt.NDArray[Any]]:
        """Copy the rows of all clips that have the modality, ``[up to size, *shape]`` at a time."""
        having = np.flatnonzero(self.has(modality))
        for first in range(0, len(having), size):
            yield self.rows(modality, having[first : first + size].tolist())

    def has(self, modality: str) -> npt.NDArray[np.bool_]:
        """Which clips have the modality, ``[N]``."""
        return self.present.get(modality, np.ones(len(self), np.bool_))

    def whole(self) -> npt.NDArray[np.bool_]:
        """Which clips have every modality, ``[N]``."""
        return np.asarray(np.logical_and.reduce([np.ones(len(self), np.bool_), *map(self.has, self.arrays)]))

    def counts(self) -> dict[str, int]:
        """Number of clips that have each modality."""
        return {name: int(self.has(name).sum()) for name in self.arrays}

    def take(self, clips: npt.NDArray[np.int64]) -> ClipRows:
        """The chosen clips, by index."""
        kept = {name: there[clips] for name, there in self.present.items()}
        lacking = {name: there for name, there in kept.items() if not there.all()}
        return ClipRows(self.arrays, self.slots[clips], self.labels[clips], lacking)


def prepared_no_signal(modality: Modality, row: npt.NDArray[Any], quality: QualityThresholds) -> Reason | None:
    """Reason why a row of a prepared clip, possibly corrupted since, carries no signal; None if it carries one.

    A row is never reported as frozen: that depends on the times of the frames, and the decoder, which knew them, has
    already refused frozen clips. A still picture, for example, fills every frame and is a signal.
    """
    return no_signal(modality, row, quality, times_s=ONE_TIME)


class _BatchDataset(Dataset[Batch]):
    """Dataset indexed by a list of clips, so that a batch is one gather per modality, of the clips that have it."""

    def __init__(self, clips: ClipRows) -> None:
        self.clips = clips

    def __getitem__(self, indices: list[int]) -> Batch:
        present = {name: there[indices] for name, there in self.clips.present.items()}
        rows = {}
        for name in self.clips.arrays:
            having = np.asarray(indices)[present[name]].tolist() if name in present else indices
            rows[name] = torch.from_numpy(self.clips.rows(name, having))
        there = {name: torch.from_numpy(of_batch) for name, of_batch in present.items()}
        return Batch(rows, torch.from_numpy(self.clips.labels[indices]), there)


class EpochSampler(Sampler[list[int]]):
    """Sampler of batches, as lists of clip indices, shuffled by (seed, epoch); Lightning sets the epoch.

    Several processes share the work. In training each takes an equal part of every batch, so that together they make
    the steps of one process; in evaluation each takes one contiguous part of the clips, in order.
    """

    def __init__(self, clips: int, batch_size: int, *, seed: int | None, ranks: Ranks = ALONE) -> None:
        self.clips = clips
        self.batch_size = batch_size
        self.seed = seed
        self.ranks = ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order of the next pass."""
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
        """Number of clips used in an epoch of training.

        A last batch of fewer than two clips per process is left out, since batch normalisation and DUC need two, and
        so are clips that the processes cannot share evenly.
        """
        size = self.ranks.size
        last = self.clips % self.batch_size
        if size == 1 and self.clips == 1:
            return 1
        return self.clips - last + (last // size * size if last >= 2 * size else 0)


def batches(clips: ClipRows, batch_size: int, *, seed: int | None = None, ranks: Ranks = ALONE) -> DataLoader[Batch]:
    """Load this process's part of the batches, in order, or shuffled anew each epoch if a seed is given.

    There are no worker processes: a gather from a memory map costs less than passing tensors between processes.
    """
    sampler = EpochSampler(len(clips), batch_size, seed=seed, ranks=ranks)
    return DataLoader(_BatchDataset(clips), sampler=sampler, batch_size=None)
