"""The losses of stage 1 (docs/adr/0001; DI-MML, arXiv 2407.19514, section 3.2)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

#: Fewest samples that contrast with one another.
FEWEST: Final = 2


def ordered_pairs(modalities: int) -> tuple[list[int], list[int]]:
    """Indices of the teachers and of the students of all ordered pairs with teacher ≠ student."""
    pairs = [(t, s) for t in range(modalities) for s in range(modalities) if t != s]
    return [t for t, _ in pairs], [s for _, s in pairs]


def duc_loss(
    features_MBD: Tensor,
    effective_MD: Tensor | None,
    temperature: float,
    *,
    teachers_MND: Tensor | None = None,
    first: int = 0,
    present_MB: Tensor | None = None,
    present_MN: Tensor | None = None,
) -> Tensor:
    """Dimension-decoupled unidirectional contrastive loss, a scalar: InfoNCE summed over ordered pairs t ≠ s.

    Within a pair it runs on the dimensions ``P(t→s)``, effective in teacher t and not in student s: the student's
    sample i against all of the teacher's samples j, similarity = dot product / ``temperature``. Teachers are
    detached. An empty P contributes zero. Without ``effective_MD``, every P is all dimensions.

    If several processes share a batch in parts of B, ``teachers_MND`` holds the features of the whole batch, and this
    process's own start at ``first``; the mean over processes is the loss of the whole batch.

    ``present_MB`` says which samples have which modality, ``present_MN`` the same of the whole batch: each pair then
    runs on the samples that have both, and contributes zero if these are fewer than two. Features of an absent
    modality must be finite.
    """
    teacher, student = ordered_pairs(len(features_MBD))
    if not teacher:
        return features_MBD.new_zeros(())
    if effective_MD is None:
        private_PD = torch.ones(len(teacher), features_MBD.shape[2], dtype=torch.bool, device=features_MBD.device)
    else:
        private_PD = effective_MD[teacher] & ~effective_MD[student]
    if teachers_MND is None:
        teachers_MND = features_MBD
    # Dimensions outside P are zeroed on one side of the product, so that all pairs are one batched product.
    students_PBD = features_MBD[student] * private_PD[:, None]
    similarity_PBN = students_PBD @ teachers_MND[teacher].detach().transpose(1, 2) / temperature
    pairs, batch = similarity_PBN.shape[:2]
    own = torch.arange(first, first + batch, device=features_MBD.device).repeat(pairs)
    if present_MB is None:
        loss_PB = cross_entropy(similarity_PBN.flatten(0, 1), own, reduction="none").view(pairs, batch)
        return (loss_PB.mean(dim=1) * private_PD.any(dim=1)).sum()
    if present_MN is None:
        present_MN = present_MB
    both_PB, both_PN = (there[teacher] & there[student] for there in (present_MB, present_MN))
    # The lowest number instead of -inf, and in rows that count alone: a row without any column would become NaN.
    left_out_PBN = both_PB[:, :, None] & ~both_PN[:, None, :]
    similarity_PBN = similarity_PBN.masked_fill(left_out_PBN, torch.finfo(similarity_PBN.dtype).min)
    loss_PB = cross_entropy(similarity_PBN.flatten(0, 1), own, reduction="none").view(pairs, batch)
    counts_P = both_PN.sum(dim=1)
    # Sum over this process's samples by the mean number of samples of a process.
    means_P = (loss_PB * both_PB).sum(dim=1) * (both_PN.shape[1] / batch) / counts_P.clamp(min=1)
    return (means_P * (private_PD.any(dim=1) & (counts_P >= FEWEST))).sum()
