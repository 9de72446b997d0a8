"""What rivals are fitted to, and the heads that they tune.

Shape suffixes: F fits side by side, R rows, B rows of a batch, H heads, C classes, D features of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dimml.fusion import BoolArray, FloatArray
from dimml_training.fusion_selection.condition_rows import IntArray

#: A feature that deviates less is the same in every row, such as a dead one, and stays in its own unit: what a fit has
#: not seen may differ in it, by no end of deviations.
LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class HeadRows:
    """R rows: frozen logits ``[R, H, C]``, booleans of what is present ``[R, H]``, and each head's features ``[R, D]``.

    ``labels`` are class indices, ``[R]``; zeros where they are not known.
    """

    logits_RHC: Tensor
    present_RH: Tensor
    features: tuple[Tensor, ...]
    labels: Tensor

    def take(self, which: Tensor) -> HeadRows:
        """Select rows by index."""
        features = tuple(own[which] for own in self.features)
        return HeadRows(self.logits_RHC[which], self.present_RH[which], features, self.labels[which])


def head_rows(
    logits_RHC: FloatArray, present_RH: BoolArray, features: Sequence[FloatArray], labels_R: IntArray | None = None
) -> HeadRows:
    """Rows of tensors; what is absent is zeros, in logits and features, whatever it was."""
    present = torch.from_numpy(present_RH)
    logits = torch.from_numpy(logits_RHC).float()
    return HeadRows(
        torch.where(present[:, :, None], logits, logits.new_zeros(())),
        present,
        tuple(
            torch.where(present[:, head, None], torch.from_numpy(own).float(), logits.new_zeros(()))
            for head, own in enumerate(features)
        ),
        torch.zeros(len(logits), dtype=torch.int64) if labels_R is None else torch.from_numpy(labels_R),
    )


class Rival(nn.Module, ABC):
    """A rival's fusion, ``fits`` of them side by side, whose losses share no parameter."""

    @abstractmethod
    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """Loss of every row in every fit, ``[F, B]``.

        ``which_B`` are the rows' indices among all, ``counted_FB`` says which fit may see which row, and ``progress``
        is the share of the steps that are done.
        """

    @abstractmethod
    def penalty(self) -> Tensor:
        """What every fit adds to the mean of its losses, ``[F]``."""

    @abstractmethod
    def log_probabilities(self, rows: HeadRows) -> Tensor:
        """Logarithms of the answers' distributions, ``[F, B, C]``; uniform for a row without any head."""


class TunedHeads(Rival):
    """Heads ``z = e^a·z_frozen + b + V·f``: a head's own features f, in units of their deviation, and V from zero.

    ``counted_FR`` (booleans) says which of the rows each fit sees: their mean and deviation are of these alone.
    ``pull`` is the weight of half the squared length of V.
    """

    def __init__(self, rows: HeadRows, counted_FR: Tensor, pull: float) -> None:
        super().__init__()
        fits = len(counted_FR)
        heads, classes = rows.logits_RHC.shape[1:]
        self.pull = pull
        self.log_scale_FH = nn.Parameter(torch.zeros(fits, heads))
        self.bias_FHC = nn.Parameter(torch.zeros(fits, heads, classes))
        self.maps = nn.ParameterList(torch.zeros(fits, own.shape[1], classes) for own in rows.features)
        # Mean and deviation of each head's features by fit, ``[F, D]``.
        self.moments: list[tuple[Tensor, Tensor]] = []
        for head, own in enumerate(rows.features):
            of_fits = [moments(own[seen_R & rows.present_RH[:, head]]) for seen_R in counted_FR.bool()]
            self.moments.append((torch.stack([m for m, _ in of_fits]), torch.stack([d for _, d in of_fits])))

    def standardised(self, rows: HeadRows) -> list[Tensor]:
        """Features ``[F, B, D]`` of each head in units of their deviation, zeros where it is absent."""
        return [
            (own - mean_FD[:, None]) / deviation_FD[:, None] * rows.present_RH[:, head, None]
            for head, (own, (mean_FD, deviation_FD)) in enumerate(zip(rows.features, self.moments, strict=True))
        ]

    def logits(self, rows: HeadRows) -> Tensor:
        """Tuned logits, ``[F, B, H, C]``."""
        found = [
            self.log_scale_FH[:, head, None, None].exp() * rows.logits_RHC[None, :, head]
            + self.bias_FHC[:, None, head]
            + torch.einsum("fbd,fdc->fbc", own, map_FDC)
            for head, (own, map_FDC) in enumerate(zip(self.standardised(rows), self.maps, strict=True))
        ]
        return torch.stack(found, dim=2)

    def penalty(self) -> Tensor:
        """``pull/2·Σ|V|²``, of each fit."""
        return 0.5 * self.pull * torch.stack([map_FDC.square().sum(dim=(1, 2)) for map_FDC in self.maps]).sum(dim=0)


def moments(features_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of features, ``[D]`` each; 0 and 1 of fewer than two rows."""
    if len(features_RD) < 2:
        return torch.zeros(features_RD.shape[1]), torch.ones(features_RD.shape[1])
    deviation_D = features_RD.std(dim=0)
    return features_RD.mean(dim=0), torch.where(deviation_D > LEAST_DEVIATION, deviation_D, torch.ones(()))


def cross_entropies(logits_FBC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross entropy of every row in every fit, ``[F, B]``; of heads ``[F, B, H, C]`` that of each, ``[F, B, H]``."""
    log_p = logits_FBC.log_softmax(dim=-1)
    index = labels_B.view(1, -1, *[1] * (log_p.dim() - 3)).expand(*log_p.shape[:-1])[..., None]
    return -log_p.gather(-1, index)[..., 0]


def softmax_of_present(scores_FBH: Tensor, present_BH: Tensor) -> Tensor:
    """Softmax over the heads that are present, ``[F, B, H]``; zeros where none is."""
    masked = scores_FBH.masked_fill(~present_BH, -torch.inf)
    return (
        torch.where(present_BH.any(dim=1)[None, :, None], masked, torch.zeros_like(masked)).softmax(dim=2) * present_BH
    )
