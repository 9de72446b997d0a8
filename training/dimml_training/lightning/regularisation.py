"""What is done to a batch, or asked of its answers, alike for every method: mixup, outliers, consistent answers.

Randomness comes from torch's global generator, which training seeds for every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Beta
from torch.nn.functional import one_hot

from dimml.modality import Modality
from dimml_training.data.loader import Batch
from dimml_training.data.outliers import outliers


def mixed_up(batch: Batch, alpha: float, classes: int) -> Batch:
    """Mix every clip with another one of the batch (mixup, Zhang et al. 2018, arXiv 1710.09412).

    ``x = λ·x_i + (1 - λ)·x_j`` and the same of the targets, λ from Beta(alpha, alpha), or 1 - λ if that is higher, so
    that a clip's label stays the likelier one. All modalities of a clip share λ and j. A clip whose partner has other
    modalities stays as it is.
    """
    size = len(batch.labels_B)
    if size < 2:
        return batch
    device = batch.labels_B.device
    partner_B = torch.arange(size, device=device).roll(int(torch.randint(1, size, ())))
    share_B = Beta(alpha, alpha).sample(torch.Size([size])).to(device)
    share_B = torch.maximum(share_B, 1.0 - share_B)
    for there_B in batch.present.values():
        share_B = torch.where(there_B == there_B[partner_B], share_B, torch.ones_like(share_B))
    partner_B = torch.where(share_B < 1.0, partner_B, torch.arange(size, device=device))
    rows = {}
    for name, own in batch.rows.items():
        there_B = batch.present.get(name, torch.ones_like(batch.labels_B, dtype=torch.bool))
        place_B = there_B.cumsum(dim=0) - 1  # of each clip among the modality's rows
        share = share_B[there_B].view(-1, *[1] * (own.dim() - 1))
        rows[name] = share * own + (1.0 - share) * own[place_B[partner_B[there_B]]] if len(own) else own
    hard_BC = one_hot(batch.labels_B, classes).float()
    soft_BC = share_B[:, None] * hard_BC + (1.0 - share_B[:, None]) * hard_BC[partner_B]
    return batch._replace(rows=rows, targets=_of_rows(batch, soft_BC), clip_targets=soft_BC)


def with_outliers(batch: Batch, modalities: Sequence[Modality], share: float, classes: int) -> Batch:
    """Replace about ``share`` of each modality's rows by outliers, whose target is the uniform distribution.

    A clip's own target becomes uniform only where every modality that it has is an outlier.
    """
    soft_BC = batch.clip_targets
    if soft_BC is None:
        soft_BC = one_hot(batch.labels_B, classes).float()
    targets = dict(batch.targets) or _of_rows(batch, soft_BC)
    rows, chosen = dict(batch.rows), {}
    lost_B = torch.ones_like(batch.labels_B, dtype=torch.bool)
    for modality in modalities:
        own, there_B = rows[modality.name], batch.present.get(modality.name)
        made = torch.rand(len(own), device=own.device) < share
        chosen[modality.name] = made
        if made.any():
            rows[modality.name] = own.index_put((made,), outliers(modality, own[made]))
            targets[modality.name] = torch.where(made[:, None], 1.0 / classes, targets[modality.name])
        lost_B &= made if there_B is None else torch.ones_like(lost_B).index_put((there_B,), made)
    soft_BC = torch.where(lost_B[:, None], 1.0 / classes, soft_BC)
    return batch._replace(rows=rows, targets=targets, clip_targets=soft_BC, outliers=chosen)


def between(clean: Mapping[str, Tensor], corrupted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Mix clean and corrupted rows, evenly at random, as AugMix does (Hendrycks et al. 2020, arXiv 1912.02781)."""
    found = {}
    for name, rows in clean.items():
        share = torch.rand(len(rows), *[1] * (rows.dim() - 1), device=rows.device)
        found[name] = share * corrupted[name] + (1.0 - share) * rows
    return found


def divergence(one_BC: Tensor, other_BC: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats of two answers' logits, ``[B]``: 0 for equal ones, at most ln 2."""
    log_p, log_q = one_BC.log_softmax(dim=1), other_BC.log_softmax(dim=1)
    middle = torch.logaddexp(log_p, log_q) - math.log(2.0)
    return 0.5 * ((log_p.exp() * (log_p - middle)).sum(dim=1) + (log_q.exp() * (log_q - middle)).sum(dim=1))


def inconsistency(one: Mapping[str, Tensor], other: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
    """Divergence of the answers of each head to two views, mean over the clips that it has, summed over heads."""
    found = []
    for head, logits_BC in one.items():
        gap_B = divergence(logits_BC, other[head])
        there_B = present.get(head)
        found.append(gap_B.mean() if there_B is None else (gap_B * there_B).sum() / there_B.sum().clamp(min=1))
    return torch.stack(found).sum()


def _of_rows(batch: Batch, soft_BC: Tensor) -> dict[str, Tensor]:
    """Targets of each modality's rows, ``[B_m, C]``, from those of the clips."""
    return {n: soft_BC if n not in batch.present else soft_BC[batch.present[n]] for n in batch.rows}
