"""Training in several processes started by ``torchrun``: ranks, and values gathered or averaged over all of them.

In a single process, each function does nothing or returns the process's own values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, and the number of processes on all machines and on this one."""

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the first process, which alone writes files and messages."""
        return self.rank == 0

    @property
    def machines(self) -> int:
        """Number of machines that take part."""
        return self.size // self.local_size


#: A single process, without ``torchrun``.
ALONE = Ranks()


def ranks_of_torchrun() -> Ranks:
    """Read the ranks that ``torchrun`` sets in the environment; a single process without ``torchrun``."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ALONE
    return Ranks(
        rank=int(os.environ["RANK"]),
        size=int(os.environ["WORLD_SIZE"]),
        local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )


def connected() -> Ranks:
    """Ranks of the process group that is connected at this moment; a single process if there is none."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def teachers_of_all(features_MBD: Tensor) -> tuple[Tensor, int]:
    """Gather the features of all ranks, ``[M, ranks·B, D]``, detached; also return the index of this rank's first row.

    B must be the same on every rank.
    """
    own = features_MBD.detach()
    if connected().size == 1:
        return own, 0
    of_each = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(connected().size)]
    distributed.all_gather(of_each, own.contiguous())
    return torch.cat(of_each, dim=1), connected().rank * own.shape[1]


def rows_of_all(rows: Tensor) -> Tensor:
    """Gather rows of all ranks on the CPU, in order of rank; ranks may have different numbers of rows."""
    own = rows.detach().cpu()
    if connected().size == 1:
        return own
    of_each: list[Any] = [None] * connected().size
    distributed.all_gather_object(of_each, own)
    return torch.cat(of_each)


def mean_of_all(values: dict[str, float]) -> dict[str, float]:
    """Average metrics over ranks; the result is the same on each."""
    if connected().size == 1:
        return values
    of_each: list[Any] = [None] * connected().size
    distributed.all_gather_object(of_each, values)
    return {name: sum(each[name] for each in of_each) / len(of_each) for name in values}


def sum_of_all(values: Tensor) -> Tensor:
    """Sum a tensor of counts over ranks, detached."""
    if connected().size == 1:
        return values.detach()
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total


def average_statistics(module: nn.Module, rows: int | None = None) -> None:
    """Average the running statistics of batch normalisation over ranks, in place.

    During training they differ, because each rank sees its own clips; evaluation needs one set of statistics that
    covers all clips. ``rows`` is the number of rows that this rank has seen, its weight; by default all weigh the same.
    """
    if connected().size == 1:
        return
    share = None
    if rows is not None:
        own = torch.tensor(float(rows), device=next(module.parameters()).device)
        total = sum_of_all(own)
        share = own / total if total > 0 else None
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for statistic in (part.running_mean, part.running_var):
                if statistic is not None and share is None:
                    distributed.all_reduce(statistic)
                    statistic.div_(connected().size)
                elif statistic is not None and share is not None:
                    distributed.all_reduce(statistic.mul_(share))
