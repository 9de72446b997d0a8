"""Joint heads: from the features of all modalities to one answer.

Each maps a list of features ``[B, D_m]``, in the order of the modalities, to logits ``[B, C]``; an absent modality is
zeros, and a flag of its own may say which ones are there. With two modalities each is the head of the same
name in the code of OGM-GE (github GeWu-Lab/OGM-GE_CVPR2022, ``models/fusion_modules.py``, arXiv 2203.15332), which
rivals are compared on there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class JointHead(nn.Module):
    """A head on the features of all modalities.

    With ``flags``, each modality's features have one more at their end, 1 where the modality is present and 0 where it
    is not, with weights of its own.
    """

    flags = False

    def inputs(self, features: Sequence[Tensor], present: Sequence[Tensor | None]) -> list[Tensor]:
        """The head's inputs: zeros for an absent modality, and the flags; ``present`` has booleans ``[B]`` or None."""
        found = []
        for f, there_B in zip(features, present, strict=True):
            # Selected, not multiplied: 0 times NaN is NaN.
            kept = f if there_B is None else torch.where(there_B[:, None], f, f.new_zeros(()))
            flag_B1 = f.new_ones(len(f), 1) if there_B is None else there_B[:, None].to(f.dtype)
            found.append(torch.cat([kept, flag_B1], dim=1) if self.flags else kept)
        return found

    def answer(self, features: Sequence[Tensor], present: Sequence[Tensor | None]) -> Tensor:
        """Logits ``[B, C]`` from what is present."""
        logits_BC: Tensor = self(self.inputs(features, present))
        return logits_BC


class SplitHead(JointHead):
    """A head whose logits are a sum of one part per modality."""

    @abstractmethod
    def parts(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits ``[B, C]`` that each modality adds; the bias is shared out evenly."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits ``[B, C]``."""
        return torch.stack(self.parts(features)).sum(dim=0)


class ConcatHead(SplitHead):
    """One linear map of the features side by side."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.widths = list(widths)
        self.linear = nn.Linear(sum(widths), classes)

    def parts(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Apply each modality's columns of the weight to its features."""
        weights = torch.split(self.linear.weight, self.widths, dim=1)
        bias_C = self.linear.bias / len(weights)
        return [nn.functional.linear(f, weight, bias_C) for f, weight in zip(features, weights, strict=True)]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits ``[B, C]``."""
        logits_BC: Tensor = self.linear(torch.cat(list(features), dim=1))
        return logits_BC


class SumHead(SplitHead):
    """A linear map of each modality's features, summed."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, classes) for width in widths)

    def parts(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Apply each modality's own map to its features."""
        return [linear(f) for linear, f in zip(self.linears, features, strict=True)]


class FilmHead(JointHead):
    """FiLM (Perez et al. 2018, arXiv 1709.07871): ``W(γ(f_1)·f_2 + β(f_1))``.

    With more than two modalities, each but the last modulates the last one's features in turn.
    """

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * widths[-1]) for width in widths[:-1])
        self.out = nn.Linear(widths[-1], classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits ``[B, C]``."""
        *given, modulated_BD = features
        for modulation, f in zip(self.modulations, given, strict=True):
            gamma_BD, beta_BD = modulation(f).chunk(2, dim=1)
            modulated_BD = gamma_BD * modulated_BD + beta_BD
        logits_BC: Tensor = self.out(modulated_BD)
        return logits_BC


class GatedHead(JointHead):
    """Gated fusion (Kiela et al. 2018, arXiv 1802.02892): ``W(sigmoid(U_1 f_1)·U_2 f_2)``.

    With more than two modalities, each but the last gates the last one's projection: their gates are multiplied.
    """

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        inner = widths[-1]
        self.projections = nn.ModuleList(nn.Linear(width, inner) for width in widths)
        self.out = nn.Linear(inner, classes)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits ``[B, C]``."""
        *gates, gated_BD = [projection(f) for projection, f in zip(self.projections, features, strict=True)]
        for gate_BD in gates:
            gated_BD = gate_BD.sigmoid() * gated_BD
        logits_BC: Tensor = self.out(gated_BD)
        return logits_BC


HEADS: dict[Literal["concat", "sum", "film", "gated"], type[ConcatHead | SumHead | FilmHead | GatedHead]] = {
    "concat": ConcatHead,
    "sum": SumHead,
    "film": FilmHead,
    "gated": GatedHead,
}


def build_joint_head(
    fusion: Literal["concat", "sum", "film", "gated"], widths: Sequence[int], classes: int, *, flags: bool = False
) -> JointHead:
    """A fresh head for features of these widths, in the order of the modalities."""
    head = HEADS[fusion]([width + flags for width in widths], classes)
    head.flags = flags
    return head
