"""QMF (Zhang, Wu, Zhang, Hu, Fu, Zhou & Peng, ICML 2023).

"Provable Dynamic Fusion for Low-Quality Multimodal Data", arXiv 2306.02050. A head's weight is its negative energy,
``w_m = logsumexp(z_m) / 10`` (the tenth is its code's), the answer ``Σ_m w_m·z_m``, with the weights taken as constants
in its loss. The loss is ``CE(answer) + Σ_m CE(z_m) + λ·Σ_m rank_m``, where ``rank_m(i, j) = max(0, g(κ_i, κ_j)·(w_i -
w_j) + |κ_i - κ_j|)``, ``g`` the sign of ``κ_i - κ_j``: of two rows, that with the lower mean loss κ over the training
so far is to have the higher weight. κ is scaled to 0..1 over the rows that the fit has met with this head, and j is the
next row of the batch, as in its code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dimml_training.config.rivals import QmfSetting
from dimml_training.rivals.heads import HeadRows, TunedHeads, cross_entropies

#: Divides the logarithm of the summed exponentials.
ENERGY_SCALE = 10.0


def energy_weights(logits: Tensor) -> Tensor:
    """Weights of heads from logits ``[..., C]``, ``[...]``."""
    return logits.logsumexp(dim=-1) / ENERGY_SCALE


def ranking_losses(weights: Tensor, histories: Tensor) -> Tensor:
    """``rank(i, i + 1)`` along the last axis, with the first row after the last; both ``[..., B]``."""
    next_weights, next_histories = weights.roll(-1, dims=-1), histories.roll(-1, dims=-1)
    gap = histories - next_histories
    return (gap.sign() * (weights - next_weights) + gap.abs()).clamp(min=0.0)


class Qmf(TunedHeads):
    """Heads tuned by QMF's loss, under its weights."""

    def __init__(self, rows: HeadRows, counted_FR: Tensor, setting: QmfSetting) -> None:
        super().__init__(rows, counted_FR, setting.pull)
        self.rank = setting.rank
        # Summed losses of every row's heads in every fit, and how often the fit met them.
        self.summed_FRH = torch.zeros(len(counted_FR), *rows.present_RH.shape)
        self.met_FRH = torch.zeros_like(self.summed_FRH)

    def fused(self, logits_FBHC: Tensor, present_BH: Tensor) -> Tensor:
        """The answer's logits, ``[F, B, C]``."""
        weights_FBH = energy_weights(logits_FBHC).detach() * present_BH
        return (weights_FBH[..., None] * logits_FBHC).sum(dim=2)

    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """QMF's loss of every row."""
        logits_FBHC = self.logits(rows)
        own_FBH = cross_entropies(logits_FBHC, rows.labels) * rows.present_RH
        losses_FB = cross_entropies(self.fused(logits_FBHC, rows.present_RH), rows.labels) + own_FBH.sum(dim=2)
        # Rows kept from a fit, and absent heads, are never met: their losses, or zeros, would scale the others.
        met_FBH = counted_FB[:, :, None] * rows.present_RH
        self.summed_FRH[:, which_B] += own_FBH.detach()
        self.met_FRH[:, which_B] += met_FBH
        # A pair counts where the fit may see both rows and both have the head.
        both_FBH = met_FBH * met_FBH.roll(-1, dims=1)
        weights_FHB = energy_weights(logits_FBHC).transpose(1, 2)
        histories_FHB = self._histories(which_B).transpose(1, 2)
        ranks_FBH = ranking_losses(weights_FHB, histories_FHB).transpose(1, 2) * both_FBH
        return losses_FB + self.rank * ranks_FBH.sum(dim=2)

    def _histories(self, which_B: Tensor) -> Tensor:
        """Mean losses of these rows so far, scaled to 0..1 over the rows that a fit has met, ``[F, B, H]``; else 0."""
        means_FRH = self.summed_FRH / self.met_FRH.clamp(min=1.0)
        met_FRH = self.met_FRH > 0
        low_F1H = means_FRH.masked_fill(~met_FRH, torch.inf).amin(dim=1, keepdim=True)
        high_F1H = means_FRH.masked_fill(~met_FRH, -torch.inf).amax(dim=1, keepdim=True)
        scaled_FBH = (means_FRH[:, which_B] - low_F1H) / (high_F1H - low_F1H).clamp(min=1e-12)
        return scaled_FBH.masked_fill(~met_FRH[:, which_B], 0.0)

    def log_probabilities(self, rows: HeadRows) -> Tensor:
        """Logarithms of the softmax of the weighted sum."""
        return self.fused(self.logits(rows), rows.present_RH).log_softmax(dim=2)
