"""QMF (Zhang, Wu, Zhang, Hu, Fu, Zhou & Peng, ICML 2023).

"Provable Dynamic Fusion for Low-Quality Multimodal Data", arXiv 2306.02050. A head's weight is its negative energy,
``w_m = logsumexp(z_m) / 10`` (the tenth is its code's), the answer ``Σ_m w_m·z_m``, with the weights taken as constants
in its loss. The loss is ``CE(answer) + Σ_m CE(z_m) + λ·Σ_m rank_m``, where ``rank_m(i, j) = max(0, g(κ_i, κ_j)·(w_i -
w_j) + |κ_i - κ_j|)``, ``g`` the sign of ``κ_i - κ_j``: of two rows, that with the lower mean loss κ over the training
so far is to have the higher weight. κ is scaled to 0..1 over all rows, and j is the next row of the batch, as in its
code.
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

    def __init__(self, rows: HeadRows, fits: int, setting: QmfSetting) -> None:
        super().__init__(rows, fits, setting.pull)
        self.rank = setting.rank
        heads = rows.logits_RHC.shape[1]
        # Summed losses of every row in every fit, and how often it was met.
        self.summed_FRH = torch.zeros(fits, len(rows.labels), heads)
        self.met_R = torch.zeros(len(rows.labels))

    def fused(self, logits_FBHC: Tensor, present_BH: Tensor) -> Tensor:
        """The answer's logits, ``[F, B, C]``."""
        weights_FBH = energy_weights(logits_FBHC).detach() * present_BH
        return (weights_FBH[..., None] * logits_FBHC).sum(dim=2)

    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """QMF's loss of every row."""
        logits_FBHC = self.logits(rows)
        own_FBH = cross_entropies(logits_FBHC, rows.labels) * rows.present_RH
        losses_FB = cross_entropies(self.fused(logits_FBHC, rows.present_RH), rows.labels) + own_FBH.sum(dim=2)
        # Of rows kept from a fit nothing is counted, their loss included, which would scale the others.
        self.summed_FRH[:, which_B] += own_FBH.detach() * counted_FB[:, :, None]
        self.met_R[which_B] += 1.0
        # A pair counts where the fit may see both rows and both have the head.
        both_FBH = counted_FB[:, :, None] * rows.present_RH
        both_FBH = both_FBH * both_FBH.roll(-1, dims=1)
        weights_FHB = energy_weights(logits_FBHC).transpose(1, 2)
        histories_FHB = self._histories(which_B).transpose(1, 2)
        ranks_FBH = ranking_losses(weights_FHB, histories_FHB).transpose(1, 2) * both_FBH
        return losses_FB + self.rank * ranks_FBH.sum(dim=2)

    def _histories(self, which_B: Tensor) -> Tensor:
        """Mean losses of these rows so far, scaled to 0..1 over all rows that were met, ``[F, B, H]``."""
        means_FRH = self.summed_FRH / self.met_R.clamp(min=1.0)[None, :, None]
        known_FRH = means_FRH[:, self.met_R > 0]
        low_FH, high_FH = known_FRH.amin(dim=1), known_FRH.amax(dim=1)
        scale_FH = (high_FH - low_FH).clamp(min=1e-12)
        return (means_FRH[:, which_B] - low_FH[:, None]) / scale_FH[:, None]

    def log_probabilities(self, rows: HeadRows) -> Tensor:
        """Logarithms of the softmax of the weighted sum."""
        return self.fused(self.logits(rows), rows.present_RH).log_softmax(dim=2)
