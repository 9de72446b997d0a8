"""Balancing the encoders' gradients in joint training; written from the papers and checked against their code.

OGM-GE: Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR 2022, arXiv 2203.15332,
github GeWu-Lab/OGM-GE_CVPR2022. MMPareto: Wei & Hu, "MMPareto: Boosting Multimodal Learning with Innocent Unimodal
Assistance", ICML 2024, arXiv 2405.17730, github GeWu-Lab/MMPareto_ICML2024.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

#: Added to the standard deviation of OGM-GE's noise, as in its code.
NOISE_FLOOR = 1e-8


def ogm_coefficients(
    part_logits: Sequence[Tensor], labels_B: Tensor, alpha: float, present: Sequence[Tensor | None] = ()
) -> Tensor:
    """Scale factors of each modality's gradient, ``[M]``: equations 8 to 10 of OGM-GE.

    A modality's score is the sum over the batch of the true class's probability under the logits it adds alone,
    ``part_logits``; ρ is its score over the others' mean score (with two modalities: over the other's). Where ρ > 1
    the coefficient is ``1 - tanh(alpha·ρ)``, elsewhere 1. With ``present``, booleans ``[B]`` for each modality, a score
    is the mean over the samples that have the modality: they differ in number.
    """
    right = [logits.detach().softmax(dim=1).gather(1, labels_B[:, None])[:, 0] for logits in part_logits]
    if any(there_B is not None for there_B in present):
        scores_M = torch.stack(
            [
                own_B.mean() if there_B is None else (own_B * there_B).sum() / there_B.sum().clamp(min=1)
                for own_B, there_B in zip(right, present, strict=True)
            ]
        )
    else:
        scores_M = torch.stack([own_B.sum() for own_B in right])
    if len(scores_M) == 1:
        return torch.ones_like(scores_M)
    others_M = (scores_M.sum() - scores_M) / (len(scores_M) - 1)
    # Without any sample of the others there is nothing to be ahead of.
    ratio_M = torch.where(others_M > 0.0, scores_M / others_M, torch.ones_like(scores_M))
    return torch.where(ratio_M > 1.0, 1.0 - torch.tanh(alpha * ratio_M), torch.ones_like(ratio_M))


@torch.no_grad()
def ogm_modulate(encoder: nn.Module, coefficient: Tensor) -> None:
    """Scale the gradients of an encoder's convolutions and add Gaussian noise of their own deviation (equation 12).

    The noise keeps up the strength of the gradient; it comes from torch's global generator.
    """
    for parameter in encoder.parameters():
        if parameter.grad is not None and parameter.dim() > 2:
            noise = torch.randn_like(parameter.grad) * (parameter.grad.std() + NOISE_FLOOR)
            parameter.grad.mul_(coefficient).add_(noise)


def pareto_weights(joint: Iterable[Tensor], own: Iterable[Tensor]) -> tuple[float, float]:
    """MMPareto's weights of the gradients of the joint loss and of the modality's own, summing to 1.

    If the gradients agree (cosine > 0), a half each; otherwise the weights of the shortest vector between them, the
    Pareto direction: ``argmin_a |a·g_joint + (1-a)·g_own|``, which has a closed form for two vectors.
    """
    joint, own = list(joint), list(own)
    across = sum(float((j * o).sum()) for j, o in zip(joint, own, strict=True))
    if across > 0.0:
        return 0.5, 0.5
    of_joint, of_own = (sum(float(g.square().sum()) for g in gradients) for gradients in (joint, own))
    length = of_joint + of_own - 2.0 * across
    if length <= 0.0:
        return 0.5, 0.5
    weight = (of_own - across) / length
    return weight, 1.0 - weight


def pareto_gradients(joint: Sequence[Tensor], own: Sequence[Tensor], gamma: float) -> list[Tensor]:
    """MMPareto's gradient of each parameter of one encoder, from those of the joint loss and of its own loss.

    ``2·(a·g_joint + b·g_own)``, never shorter than ``g_joint + g_own`` (parameter by parameter, as in its code), times
    ``gamma``.
    """
    a, b = pareto_weights(joint, own)
    found = []
    for j, o in zip(joint, own, strict=True):
        mixed = 2.0 * (a * j + b * o)
        length = mixed.norm()
        stretch = torch.where(length > 0.0, (j + o).norm() / length, torch.ones_like(length)).clamp(min=1.0)
        found.append(gamma * stretch * mixed)
    return found
