"""A logistic stacker: multinomial logistic regression on the heads' log probabilities (Wolpert 1992).

Its inputs are ``ln softmax(z_m)`` of every head less their mean over the classes, zeros for an absent one, and a flag
for each head that is present.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dimml_training.config.rivals import StackerSetting
from dimml_training.rivals.heads import HeadRows, Rival, cross_entropies


def stacked(rows: HeadRows) -> Tensor:
    """Inputs of the regression, ``[B, H·C + H]``: head by head, then the flags."""
    log_p = rows.logits_RHC.log_softmax(dim=2)
    centred = (log_p - log_p.mean(dim=2, keepdim=True)) * rows.present_RH[:, :, None]
    return torch.cat([centred.flatten(1), rows.present_RH.float()], dim=1)


class Stacker(Rival):
    """Weights from every head's every class to every class; ``l2`` weighs half their squared length."""

    def __init__(self, rows: HeadRows, counted_FR: Tensor, setting: StackerSetting) -> None:
        super().__init__()
        fits, (heads, classes) = len(counted_FR), rows.logits_RHC.shape[1:]
        self.l2 = setting.l2
        self.weight_FIC = nn.Parameter(torch.zeros(fits, heads * classes + heads, classes))
        self.bias_FC = nn.Parameter(torch.zeros(fits, classes))

    def fused(self, rows: HeadRows) -> Tensor:
        """The answer's logits, ``[F, B, C]``; zeros for a row without any head."""
        logits = torch.einsum("bi,fic->fbc", stacked(rows), self.weight_FIC) + self.bias_FC[:, None]
        return logits * rows.present_RH.any(dim=1)[None, :, None]

    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """Cross entropies."""
        return cross_entropies(self.fused(rows), rows.labels)

    def penalty(self) -> Tensor:
        """``l2/2·|W|²``, of each fit."""
        return 0.5 * self.l2 * self.weight_FIC.square().sum(dim=(1, 2))

    def log_probabilities(self, rows: HeadRows) -> Tensor:
        """Logarithms of the regression's distribution."""
        return self.fused(rows).log_softmax(dim=2)
