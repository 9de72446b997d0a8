"""Fitting rivals: several fits of one rival side by side, each to the rows that it may see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from dimml_training.config.rivals import RivalKind, RivalSetting
from dimml_training.rivals.evidential import Ecml, Tmc
from dimml_training.rivals.heads import HeadRows, Rival
from dimml_training.rivals.mla import Mla
from dimml_training.rivals.pdf import Pdf
from dimml_training.rivals.qmf import Qmf
from dimml_training.rivals.stacker import Stacker

#: Rows of a step, and the learning rate of Adam, which falls to zero by a cosine.
BATCH_ROWS: Final = 256
LEARNING_RATE: Final = 0.02

#: How each rival is built from all rows, which of them each fit sees, and a setting of its own.
RIVALS: Final[Mapping[RivalKind, Callable[..., Rival]]] = {
    "qmf": Qmf,
    "pdf": Pdf,
    "tmc": Tmc,
    "ecml": Ecml,
    "mla": Mla,
    "stacker": Stacker,
}


@dataclass(frozen=True)
class Rows:
    """Rows to fit to, and how often each is drawn: ``weights_R``, of any sum."""

    rows: HeadRows
    weights_R: Tensor


def fit(kind: RivalKind, setting: RivalSetting, given: Rows, counted_FR: Tensor, *, steps: int, seed: int) -> Rival:
    """Fit a rival F times side by side, each fit to the rows that ``counted_FR`` (booleans) leaves it.

    The same rows are drawn for every fit; each takes the mean over those that it may see. Equal arguments give equal
    fits, whatever torch's global generator has drawn.
    """
    drawn = torch.Generator().manual_seed(seed)
    rival = RIVALS[kind](given.rows, counted_FR, setting)
    optimiser = torch.optim.Adam(rival.parameters(), lr=LEARNING_RATE)
    counted_FR = counted_FR.float()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        which_B = torch.multinomial(given.weights_R, BATCH_ROWS, replacement=True, generator=drawn)
        counted_FB = counted_FR[:, which_B]
        losses_FB = rival.row_losses(given.rows.take(which_B), which_B, counted_FB, step / steps)
        means_F = (losses_FB * counted_FB).sum(dim=1) / counted_FB.sum(dim=1).clamp(min=1.0)
        optimiser.zero_grad(set_to_none=True)
        loss: Tensor = (means_F + rival.penalty()).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return rival.eval()
