"""MLA's entropy weighting (Zhang, Yoon, Bansal & Yao, CVPR 2024).

"Multimodal Representation Learning by Alternating Unimodal Adaptation", arXiv 2311.10707, section on test-time fusion:
with ``e_m`` the entropy of ``softmax(z_m)``, ``λ_m = exp(max_v e_v - e_m) / Σ_u exp(max_v e_v - e_u)``, and the answer
is ``Σ_m λ_m·z_m``. The maximum cancels. Its alternating training is not part of this rival: the heads are tuned by
``Σ_m CE(z_m)``, on frozen encoders.
"""

from __future__ import annotations

from torch import Tensor

from dimml_training.config.rivals import MlaSetting
from dimml_training.rivals.heads import HeadRows, TunedHeads, cross_entropies, softmax_of_present


def entropies(logits: Tensor) -> Tensor:
    """Entropy in nats of ``softmax(logits [..., C])``, ``[...]``."""
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)


class Mla(TunedHeads):
    """Heads tuned by their own cross entropies, weighted by their entropies; ``temperature`` divides these."""

    def __init__(self, rows: HeadRows, counted_FR: Tensor, setting: MlaSetting) -> None:
        super().__init__(rows, counted_FR, setting.pull)
        self.temperature = setting.temperature

    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """The heads' own cross entropies, summed."""
        return (cross_entropies(self.logits(rows), rows.labels) * rows.present_RH).sum(dim=2)

    def log_probabilities(self, rows: HeadRows) -> Tensor:
        """Logarithms of the softmax of the weighted sum."""
        logits_FBHC = self.logits(rows)
        weights_FBH = softmax_of_present(-entropies(logits_FBHC) / self.temperature, rows.present_RH)
        return (weights_FBH[..., None] * logits_FBHC).sum(dim=2).log_softmax(dim=2)
