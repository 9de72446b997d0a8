"""PDF: Cao, Xia, Ding, Zhang & Hu, "Predictive Dynamic Fusion", ICML 2024, arXiv 2406.04802.

A confidence network per head (as ConfidNet, Corbière et al. 2019, arXiv 1910.04851) predicts the probability of the
true class, ``p_m``, from the head's features. Mono-confidence is ``p_m``, holo-confidence ``Σ_{j≠m} ln p_j / Σ_i ln
p_i``, and their sum is the co-belief ``CB_m``. The relative calibration multiplies it by ``k_m = min(1, DU_m /
mean_{j≠m} DU_j)``, ``DU_m = (1/C)·Σ_c |softmax(z_m)_c - 1/C|``: how far a head is from uniform, beside the others (with
two modalities the ratio is the paper's; with more, the mean of the others stands for the other). The answer is ``Σ_m
softmax(k·CB)_m·z_m``. The loss is ``CE(answer) + Σ_m CE(z_m) + Σ_m (p_m - softmax(z_m)_y)²``, in which the weights and
the target of the confidence are constants.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dimml_training.config.rivals import PdfSetting
from dimml_training.rivals.heads import HeadRows, TunedHeads, cross_entropies, softmax_of_present

#: Keeps logarithms of predicted probabilities below 0 and finite.
LEAST = 1e-6


def co_beliefs(confidences: Tensor, present: Tensor) -> Tensor:
    """Mono- plus holo-confidence of heads, both ``[..., H]``; a head alone has no other: holo-confidence 0."""
    logs = confidences.clamp(LEAST, 1.0 - LEAST).log() * present
    total = logs.sum(dim=-1, keepdim=True)
    holo = torch.where(total < 0.0, (total - logs) / total.clamp(max=-LEAST), torch.zeros_like(logs))
    return (confidences + holo) * present


def relative_calibrations(logits: Tensor, present: Tensor) -> Tensor:
    """Factors ``k`` of heads, ``[..., H]``, from logits ``[..., H, C]``; 1 for a head without any other."""
    classes = logits.shape[-1]
    uniformity = (logits.softmax(dim=-1) - 1.0 / classes).abs().mean(dim=-1) * present
    others = (present.sum(dim=-1, keepdim=True) - 1).clamp(min=1)
    mean_of_others = (uniformity.sum(dim=-1, keepdim=True) - uniformity) / others
    ratio = torch.where(mean_of_others > 0.0, uniformity / mean_of_others.clamp(min=1e-12), torch.ones_like(uniformity))
    return ratio.clamp(max=1.0)


class Pdf(TunedHeads):
    """Heads tuned by PDF's loss, weighted by predicted confidence."""

    def __init__(self, rows: HeadRows, counted_FR: Tensor, setting: PdfSetting) -> None:
        super().__init__(rows, counted_FR, setting.pull)
        fits, drawn = len(counted_FR), torch.Generator().manual_seed(0)
        # Every fit starts from the same numbers, as their losses are compared.
        self.hidden = nn.ParameterList(
            (torch.randn(own.shape[1], setting.hidden, generator=drawn) / own.shape[1] ** 0.5).repeat(fits, 1, 1)
            for own in rows.features
        )
        heads = len(rows.features)
        self.hidden_bias_FHU = nn.Parameter(torch.zeros(fits, heads, setting.hidden))
        self.out_FHU = nn.Parameter(torch.zeros(fits, heads, setting.hidden))
        self.out_bias_FH = nn.Parameter(torch.zeros(fits, heads))

    def confidences(self, rows: HeadRows) -> Tensor:
        """Predicted probabilities of the true class, ``[F, B, H]``."""
        found = []
        for head, (own, weight_FDU) in enumerate(zip(self.standardised(rows), self.hidden, strict=True)):
            units_FBU = (torch.einsum("fbd,fdu->fbu", own, weight_FDU) + self.hidden_bias_FHU[:, None, head]).relu()
            found.append((units_FBU * self.out_FHU[:, None, head]).sum(dim=2) + self.out_bias_FH[:, None, head])
        return torch.stack(found, dim=2).sigmoid()

    def fused(self, logits_FBHC: Tensor, confidences_FBH: Tensor, present_BH: Tensor) -> Tensor:
        """The answer's logits, ``[F, B, C]``; the weights are constants to the gradient."""
        with torch.no_grad():
            beliefs = co_beliefs(confidences_FBH, present_BH) * relative_calibrations(logits_FBHC, present_BH)
            weights_FBH = softmax_of_present(beliefs, present_BH)
        return (weights_FBH[..., None] * logits_FBHC).sum(dim=2)

    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """PDF's loss of every row."""
        logits_FBHC, confidences_FBH = self.logits(rows), self.confidences(rows)
        own_FBH = cross_entropies(logits_FBHC, rows.labels)
        missed_FBH = (confidences_FBH - (-own_FBH).exp().detach()).square()
        answer_FB = cross_entropies(self.fused(logits_FBHC, confidences_FBH, rows.present_RH), rows.labels)
        return answer_FB + ((own_FBH + missed_FBH) * rows.present_RH).sum(dim=2)

    def log_probabilities(self, rows: HeadRows) -> Tensor:
        """Logarithms of the softmax of the weighted sum."""
        return self.fused(self.logits(rows), self.confidences(rows), rows.present_RH).log_softmax(dim=2)
