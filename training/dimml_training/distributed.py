"""Training in several processes that ``torchrun`` started: which one this is, and what all of them know together.

Each function does nothing, or the obvious, in a process that is alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Ranks:
    """This process's number and how many there are, on this machine and on all."""

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process alone writes and speaks."""
        return self.rank == 0

    @property
    def machines(self) -> int:
        """How many machines take part."""
        return self.size // self.local_size


#: One process does all of it.
ALONE = Ranks()


def ranks_of_torchrun() -> Ranks:
    """What ``torchrun`` says in the environment; one process where there is no ``torchrun``."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ALONE
    return Ranks(
        rank=int(os.environ["RANK"]),
        size=int(os.environ["WORLD_SIZE"]),
        local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
    )


def connected() -> Ranks:
    """The processes that are connected at this moment; one where none are."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Ranks(distributed.get_rank(), distributed.get_world_size())


def teachers_of_all(features_MBD: Tensor) -> tuple[Tensor, int]:
    """Features of all ranks side by side, ``[M, ranks·B, D]``, detached, and where this rank's begin.

    Every rank must come with the same B.
    """
    own = features_MBD.detach()
    if connected().size == 1:
        return own, 0
    of_each = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(connected().size)]
    distributed.all_gather(of_each, own.contiguous())
    return torch.cat(of_each, dim=1), connected().rank * own.shape[1]


def rows_of_all(rows: Tensor) -> Tensor:
    """Rows of all ranks, in the order of ranks, on the CPU; ranks may have different numbers of them."""
    own = rows.detach().cpu()
    if connected().size == 1:
        return own
    of_each: list[Any] = [None] * connected().size
    distributed.all_gather_object(of_each, own)
    return torch.cat(of_each)


def mean_of_all(values: dict[str, float]) -> dict[str, float]:
    """Figures averaged over ranks; the same on each."""
    if connected().size == 1:
        return values
    of_each: list[Any] = [None] * connected().size
    distributed.all_gather_object(of_each, values)
    return {name: sum(each[name] for each in of_each) / len(of_each) for name in values}


def average_statistics(module: nn.Module) -> None:
    """Give every rank the mean of all ranks' running statistics of batch normalisation, in place.

    Between steps they differ, each rank having seen its own clips; evaluation needs one set, and one that all clips
    went into.
    """
    if connected().size == 1:
        return
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for statistic in (part.running_mean, part.running_var):
                if statistic is not None:
                    distributed.all_reduce(statistic)
                    statistic.div_(connected().size)
