"""TMC and ECML: heads whose logits give evidence for classes, fused as opinions.

TMC: Han, Zhang, Fu & Zhou, "Trusted Multi-View Classification", ICLR 2021, arXiv 2102.02051. ECML: Xu, Si, Wang, Zhang,
Guan, Zhao & Xu, "Reliable Conflictive Multi-View Learning", AAAI 2024, arXiv 2402.16897.

Evidence is ``e = softplus(z)``, ``α = e + 1``, ``S = Σα``, belief ``b = e / S``, uncertainty ``u = C / S``. Both
minimise, for every head and for the answer, ``Σ_c y_c·(ψ(S) - ψ(α_c)) + λ·KL(Dir(α̃) | Dir(1))``, with
``α̃ = y + (1 - y)·α`` and λ rising from 0 to 1. TMC joins opinions by Dempster's rule, ECML by their average (the mean
of their evidence), with ``γ·Σ_p Σ_{q≠p} (|p_p - p_q|_1 / 2)·(1 - u_p)·(1 - u_q) / (M - 1)`` added, ``p = α / S``: the
conflict of certain heads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dimml_training.config.rivals import EcmlSetting, TmcSetting
from dimml_training.rivals.heads import HeadRows, TunedHeads


def evidential_losses(alphas: Tensor, labels_B: Tensor, divergence: float) -> Tensor:
    """Loss of Dirichlets ``[F, B, C]`` or ``[F, B, H, C]``, one per distribution; λ is ``divergence``."""
    index = labels_B.view(1, -1, *[1] * (alphas.dim() - 3)).expand(*alphas.shape[:-1])[..., None]
    strengths = alphas.sum(dim=-1)
    expected = strengths.digamma() - alphas.gather(-1, index)[..., 0].digamma()
    return expected + divergence * divergence_from_uniform(alphas.scatter(-1, index, 1.0))


def divergence_from_uniform(alphas: Tensor) -> Tensor:
    """``KL(Dir(α) | Dir(1))`` of Dirichlets ``[..., C]``, ``[...]``."""
    classes = torch.tensor(float(alphas.shape[-1]))
    strengths = alphas.sum(dim=-1)
    moments = (alphas - 1.0) * (alphas.digamma() - strengths.digamma()[..., None])
    return strengths.lgamma() - classes.lgamma() - alphas.lgamma().sum(dim=-1) + moments.sum(dim=-1)


def dempster(evidence: Tensor) -> Tensor:
    """Evidence ``[..., C]`` of the opinions of all heads ``[..., H, C]`` by the reduced Dempster rule.

    ``b = (b_1·b_2 + b_1·u_2 + b_2·u_1) / (1 - K)``, ``u = u_1·u_2 / (1 - K)``, ``K = Σ_{i≠j} b_1i·b_2j``, for one head
    after another. A head without evidence changes nothing.
    """
    classes = evidence.shape[-1]
    beliefs = evidence / (evidence.sum(dim=-1, keepdim=True) + classes)
    doubts = classes / (evidence.sum(dim=-1, keepdim=True) + classes)
    belief, doubt = beliefs[..., 0, :], doubts[..., 0, :]
    for head in range(1, evidence.shape[-2]):
        other, others_doubt = beliefs[..., head, :], doubts[..., head, :]
        joined = belief * other + belief * others_doubt + other * doubt
        left = doubt * others_doubt
        whole = joined.sum(dim=-1, keepdim=True) + left  # 1 - K
        belief, doubt = joined / whole, left / whole
    # Of confident heads doubt may vanish in FP32, and the evidence with it become infinite.
    return belief * classes / doubt.clamp(min=1e-6)


def mean_opinion(evidence: Tensor, present: Tensor) -> Tensor:
    """Evidence ``[..., C]`` of the average of the opinions of the heads that are present, ``[..., H, C]``."""
    present = present[..., None].to(evidence.dtype)
    return (evidence * present).sum(dim=-2) / present.sum(dim=-2).clamp(min=1.0)


def conflicts(evidence: Tensor, present: Tensor) -> Tensor:
    """Summed conflict of all ordered pairs of heads that are present, by one less than their number; ``[...]``."""
    alphas = evidence + 1.0
    strengths = alphas.sum(dim=-1)
    certain = (1.0 - evidence.shape[-1] / strengths) * present
    shares = alphas / strengths[..., None]
    distances = (shares[..., :, None, :] - shares[..., None, :, :]).abs().sum(dim=-1) / 2.0
    total = (distances * certain[..., :, None] * certain[..., None, :]).sum(dim=(-2, -1))
    return total / (present.sum(dim=-1) - 1).clamp(min=1)


class Tmc(TunedHeads):
    """Evidence of tuned heads, joined by Dempster's rule."""

    def __init__(self, rows: HeadRows, counted_FR: Tensor, setting: TmcSetting) -> None:
        super().__init__(rows, counted_FR, setting.pull)
        self.annealing = setting.annealing

    def evidence(self, rows: HeadRows) -> Tensor:
        """Evidence of every head, ``[F, B, H, C]``, none of an absent one."""
        return softplus(self.logits(rows)) * rows.present_RH[:, :, None]

    def joined(self, evidence_FBHC: Tensor, present_BH: Tensor) -> Tensor:
        """Evidence of the answer, ``[F, B, C]``."""
        return dempster(evidence_FBHC)

    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """The loss of the answer, and of every head that is present."""
        divergence = min(1.0, progress / self.annealing)
        evidence_FBHC = self.evidence(rows)
        answer_FBC = self.joined(evidence_FBHC, rows.present_RH)
        own_FBH = evidential_losses(evidence_FBHC + 1.0, rows.labels, divergence) * rows.present_RH
        return evidential_losses(answer_FBC + 1.0, rows.labels, divergence) + own_FBH.sum(dim=2)

    def log_probabilities(self, rows: HeadRows) -> Tensor:
        """Logarithms of ``α / S``."""
        alphas_FBC = self.joined(self.evidence(rows), rows.present_RH) + 1.0
        return (alphas_FBC / alphas_FBC.sum(dim=2, keepdim=True)).log()


class Ecml(Tmc):
    """Evidence of tuned heads, averaged, with a loss on conflict."""

    def __init__(self, rows: HeadRows, counted_FR: Tensor, setting: EcmlSetting) -> None:
        super().__init__(rows, counted_FR, setting)
        self.conflict = setting.conflict

    def joined(self, evidence_FBHC: Tensor, present_BH: Tensor) -> Tensor:
        """Evidence of the answer, ``[F, B, C]``."""
        return mean_opinion(evidence_FBHC, present_BH[None])

    def row_losses(self, rows: HeadRows, which_B: Tensor, counted_FB: Tensor, progress: float) -> Tensor:
        """Those of TMC with the averaged opinion, and the conflict."""
        conflict_FB = conflicts(self.evidence(rows), rows.present_RH[None])
        return super().row_losses(rows, which_B, counted_FB, progress) + self.conflict * conflict_FB
