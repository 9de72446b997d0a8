"""Dimension separation: finding the dimensions of a modality's features that separate the classes (docs/adr/0001)."""

from __future__ import annotations

import torch
from torch import Tensor

#: Bounds the memory of the distance tensor [chunk, C, D] in elements.
CHUNK_ELEMENTS = 2**24


@torch.no_grad()
def dimension_accuracy(features_ND: Tensor, labels_N: Tensor, classes: int) -> Tensor:
    """Accuracy ``[D]`` of the nearest class mean in each dimension alone. Ties go to the lower class."""
    counts_C = torch.bincount(labels_N, minlength=classes).to(features_ND.dtype)
    sums_CD = features_ND.new_zeros(classes, features_ND.shape[1]).index_add_(0, labels_N, features_ND)
    # A class without samples has no mean: at infinity it is never the nearest one.
    means_CD = torch.where(counts_C[:, None] > 0, sums_CD / counts_C.clamp(min=1)[:, None], torch.inf)
    right_D = features_ND.new_zeros(features_ND.shape[1])
    chunk = max(1, CHUNK_ELEMENTS // means_CD.numel())
    for part_ND, part_N in zip(torch.split(features_ND, chunk), torch.split(labels_N, chunk), strict=True):
        nearest_ND = (part_ND[:, None] - means_CD).abs().argmin(dim=1)
        right_D += (nearest_ND == part_N[:, None]).sum(dim=0)
    return right_D / len(labels_N)


def effective_dimensions(features_ND: Tensor, labels_N: Tensor, classes: int) -> Tensor:
    """Booleans ``[D]``: the dimensions whose accuracy exceeds the mean over all dimensions."""
    accuracy_D = dimension_accuracy(features_ND, labels_N, classes)
    # In double precision: if all are equal, rounding of the mean must not make any of them effective.
    return accuracy_D.double() > accuracy_D.double().mean() + 1e-9
