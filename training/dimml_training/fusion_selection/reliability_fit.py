"""Fit the learned reliability (``dimml.fusion.reliability``) on frozen encoders.

The statistics are standardised; a hidden layer of 16 units gives a number per head and row. It is fitted in two steps:
first to predict whether the head is right (cross-entropy), then to the likelihood of the pooled answer,
``p(y) ~ prod_h (r_h p_h(y) + (1 - r_h) / C)``, so that heads are distrusted where that improves the answer. Many fits,
each leaving rows out, run side by side as one batch of matrices.

Shape suffixes: F fits, R rows, H heads, C classes, D features, K statistics, U hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dimml.fusion import (
    ALONE,
    FIRST_OF_OTHERS,
    LEAST_DOUBT,
    LEAST_NORM,
    FloatArray,
    HeadReliability,
    cross_statistics,
    reliability_statistics,
    standardised,
)
from dimml_training.fusion_selection.condition_rows import ConditionRows, IntArray

UNITS: Final = 16
#: Rows of one optimisation step, drawn at random for each.
STEP_ROWS: Final = 1024
OWN_STEPS, POOLED_STEPS = 120, 80
LEARNING_RATE, WEIGHT_DECAY = 0.03, 1e-3
#: Training features of a head that a bundle stores. At 128 features, 128 KiB.
MOST_NEIGHBOURS: Final = 256


@dataclass(frozen=True)
class Geometry:
    """Class means and whitening of a head's training features; see ``HeadReliability``."""

    whitening_DD: FloatArray
    whitened_means_CD: FloatArray
    #: Unit vectors of some of them; None where no reliability is learned from these.
    neighbours_ND: FloatArray | None = None


def stored_neighbours(features_ND: FloatArray, labels_N: IntArray) -> FloatArray:
    """Take at most ``MOST_NEIGHBOURS`` features, spread evenly over the classes in order, each scaled to length 1."""
    order = np.argsort(labels_N, kind="stable")
    kept = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_NEIGHBOURS, len(order))).round().astype(np.int64))]
    norms_N1 = np.linalg.norm(features_ND[kept].astype(np.float64), axis=1, keepdims=True)
    return np.asarray(features_ND[kept] / np.maximum(norms_N1, LEAST_NORM), np.float32)


def feature_geometry(features_ND: FloatArray, labels_N: IntArray, classes: int) -> Geometry:
    """Estimate class means, and one whitening for all classes, from training features.

    The covariance within classes is shrunk towards a multiple of the identity by the oracle approximating shrinkage
    (Chen et al. 2010, IEEE TSP 58, eq. 23). A class without a clip gets the mean of all.
    """
    features = features_ND.astype(np.float64)
    means_CD = np.tile(features.mean(axis=0), (classes, 1))
    for label in np.unique(labels_N):
        means_CD[label] = features[labels_N == label].mean(axis=0)
    within_ND = features - means_CD[labels_N]
    clips, width = within_ND.shape
    covariance_DD = within_ND.T @ within_ND / clips
    trace, squares = float(np.trace(covariance_DD)), float(np.square(covariance_DD).sum())
    spread = (clips + 1 - 2 / width) * (squares - trace**2 / width)
    shrink = 1.0 if spread <= 0 else min(1.0, ((1 - 2 / width) * squares + trace**2) / spread)
    shrunk_DD = (1 - shrink) * covariance_DD + max(shrink * trace / width, 1e-12) * np.eye(width)
    values_D, vectors_DD = np.linalg.eigh(shrunk_DD)
    floor = max(float(values_D[-1]) * 1e-6, 1e-12)
    whitening_DD = vectors_DD / np.sqrt(np.maximum(values_D, floor)) @ vectors_DD.T
    return Geometry(whitening_DD.astype(np.float32), (means_CD @ whitening_DD).astype(np.float32))


class ReliabilityFits:
    """F fits side by side, each with its own weights of the rows.

    ``weights_FR`` is 0 for rows that a fit must not see; ``head_temperatures`` scale the logits whose probabilities are
    pooled. With ``cross`` the statistics are those with the other heads in view, for which the geometry must have
    neighbours. ``prices_R``, if given, multiply the weights in the second step. Deterministic given ``seed``.
    """

    def __init__(
        self,
        rows: ConditionRows,
        geometry: Sequence[Geometry],
        weights_FR: npt.NDArray[np.float64],
        head_temperatures: Sequence[float],
        *,
        seed: int,
        cross: bool = False,
        prices_R: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self._geometry, self._cross = tuple(geometry), cross
        standard_HRK, self._offset_HK, self._scale_HK = _standard_statistics(rows, self._geometry, cross)
        self._standard_HRK = torch.from_numpy(standard_HRK)
        self._present_RH = torch.from_numpy(rows.present_RH)
        self._right_RH = torch.from_numpy(rows.heads_right().astype(np.float32))
        scaled = torch.from_numpy(rows.logits_RHC) / torch.tensor(head_temperatures, dtype=torch.float32)[:, None]
        self._labels_R = torch.from_numpy(rows.labels_R)
        self._p_RHC = torch.softmax(scaled, dim=2)
        self._weights_FR = torch.from_numpy(weights_FR.astype(np.float32))
        self._generator = torch.Generator().manual_seed(seed)
        self._prices_R = torch.ones(len(rows.labels_R)) if prices_R is None else torch.from_numpy(prices_R).float()
        heads, _, statistics = standard_HRK.shape
        shape = (len(weights_FR), heads, statistics, UNITS)
        first = torch.randn(shape[1:], generator=self._generator) / statistics**0.5
        self._hidden_FHKU = first.expand(shape).clone().requires_grad_()
        self._hidden_bias_FHU = torch.zeros(*shape[:2], 1, UNITS, requires_grad=True)
        self._out_FHU = torch.zeros(*shape[:2], UNITS, 1, requires_grad=True)
        self._out_bias_FH = torch.zeros(*shape[:2], 1, 1, requires_grad=True)

    def fit_own(self, steps: int = OWN_STEPS) -> None:
        """Fit to predict whether each head is right."""
        self._fit(self._own_loss, steps, LEARNING_RATE)

    def fit_pooled(self, steps: int = POOLED_STEPS) -> None:
        """Fit to the likelihood of the pooled answer."""
        self._fit(self._pooled_loss, steps, LEARNING_RATE / 3)

    @torch.no_grad()
    def reliability(self) -> FloatArray:
        """Reliability by every fit, of every row and head, ``[F, R, H]``."""
        return torch.sigmoid(self._scores(slice(None))).numpy()

    def parameters(self, fit: int = 0) -> tuple[HeadReliability, ...]:
        """Parameters of one fit, in the form that the fusion takes."""

        def array(values: Tensor, head: int) -> FloatArray:
            return np.ascontiguousarray(values[fit, head].detach().numpy())

        return tuple(
            HeadReliability(
                whitening_DD=at.whitening_DD,
                whitened_means_CD=at.whitened_means_CD,
                offset_K=self._offset_HK[head],
                scale_K=self._scale_HK[head],
                hidden_weight_KU=array(self._hidden_FHKU, head),
                hidden_bias_U=array(self._hidden_bias_FHU, head)[0],
                out_weight_U=array(self._out_FHU, head)[:, 0],
                out_bias=array(self._out_bias_FH, head)[0],
                neighbours_ND=at.neighbours_ND if self._cross else None,
            )
            for head, at in enumerate(self._geometry)
        )

    def _scores(self, which: Tensor | slice) -> Tensor:
        """Logits of reliability, ``[F, R, H]``."""
        hidden_FHRU = torch.tanh(self._standard_HRK[:, which] @ self._hidden_FHKU + self._hidden_bias_FHU)
        return (hidden_FHRU @ self._out_FHU + self._out_bias_FH)[..., 0].transpose(1, 2)

    def _own_loss(self, which: Tensor) -> Tensor:
        scores_FRH = self._scores(which)
        right_FRH = self._right_RH[which].expand_as(scores_FRH)
        losses_FRH = binary_cross_entropy_with_logits(scores_FRH, right_FRH, reduction="none")
        weights_FRH = self._weights_FR[:, which, None] * self._present_RH[which]
        return (losses_FRH * weights_FRH).sum() / self._weights_FR[:, which].sum(dim=1).mean()

    def _pooled_loss(self, which: Tensor) -> Tensor:
        scores_FRH = self._scores(which)[..., None]
        doubt_FRH1 = torch.sigmoid(-scores_FRH).clamp(min=LEAST_DOUBT)
        mixed_FRHC = torch.log((1 - doubt_FRH1) * self._p_RHC[which] + doubt_FRH1 / self._p_RHC.shape[2])
        mixed_FRHC = mixed_FRHC * self._present_RH[which][..., None]
        log_p_FRC = torch.log_softmax(mixed_FRHC.sum(dim=2), dim=2)
        places = self._labels_R[which][None, :, None].expand(len(scores_FRH), -1, 1)
        losses_FR = -log_p_FRC.gather(2, places)[..., 0]
        weights_FR = self._weights_FR[:, which] * self._prices_R[which]
        return (losses_FR * weights_FR).sum() / weights_FR.sum(dim=1).mean()

    def _fit(self, loss_of: Callable[[Tensor], Tensor], steps: int, learning_rate: float) -> None:
        weights = [self._hidden_FHKU, self._hidden_bias_FHU, self._out_FHU, self._out_bias_FH]
        optimiser = torch.optim.Adam(weights, lr=learning_rate)
        rows = self._weights_FR.shape[1]
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * 0.5 * (1 + np.cos(np.pi * step / steps))
            which = torch.randperm(rows, generator=self._generator)[:STEP_ROWS]
            decay = torch.stack([self._hidden_FHKU.square().sum(), self._out_FHU.square().sum()]).sum()
            loss = loss_of(which) + WEIGHT_DECAY * decay
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's is not typed
            optimiser.step()


def _standard_statistics(
    rows: ConditionRows, geometry: Sequence[Geometry], cross: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Statistics of all heads, standardised, ``[H, R, K]``; with their offset and scale, ``[H, K]`` each."""
    if not cross:
        statistics = [
            reliability_statistics(own, rows.logits_RHC[:, h], at.whitening_DD, at.whitened_means_CD)
            for h, (own, at) in enumerate(zip(rows.features, geometry, strict=True))
        ]
        offset_HK, scale_HK = _standards(statistics, rows.present_RH)
        standard = (np.stack(statistics) - offset_HK[:, None]) / scale_HK[:, None]
        return standard.astype(np.float32), offset_HK, scale_HK
    heads = [_untrained(at) for at in geometry]
    there_RH1 = rows.present_RH[..., None]
    # As where they are served: a head that is not there has zeros in its slots.
    features = [np.where(there_RH1[:, h], own, np.float32(0)) for h, own in enumerate(rows.features)]
    logits_RHC = np.where(there_RH1, rows.logits_RHC, np.float32(0))
    found_RHK = cross_statistics(features, logits_RHC, rows.present_RH, heads, rows.modalities)
    by_head = [found_RHK[:, h] for h in range(len(heads))]
    offset_HK, scale_HK = _standards(by_head, rows.present_RH)
    accompanied_RH = rows.present_RH & (found_RHK[..., ALONE] == 0)
    of_others = slice(FIRST_OF_OTHERS, ALONE)
    beside_offset_HK, beside_scale_HK = _standards([own[:, of_others] for own in by_head], accompanied_RH)
    offset_HK[:, of_others], scale_HK[:, of_others] = beside_offset_HK, beside_scale_HK
    # A flag is its own standard: where it is rare, its deviation would blow it up.
    offset_HK[:, ALONE], scale_HK[:, ALONE] = 0, 1
    each = [standardised(own, offset_HK[h], scale_HK[h]) for h, own in enumerate(by_head)]
    return np.stack(each), offset_HK, scale_HK


def _untrained(at: Geometry) -> HeadReliability:
    """A reliability with a head's geometry and no network, of which only statistics can be computed."""
    nothing = np.zeros(0, np.float32)
    return HeadReliability(
        whitening_DD=at.whitening_DD,
        whitened_means_CD=at.whitened_means_CD,
        offset_K=nothing,
        scale_K=nothing,
        hidden_weight_KU=nothing,
        hidden_bias_U=nothing,
        out_weight_U=nothing,
        out_bias=nothing,
        neighbours_ND=at.neighbours_ND,
    )


def _standards(statistics: Sequence[FloatArray], present_RH: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of every head's statistics over the rows where it is present, ``[H, K]`` each."""
    means, spreads = [], []
    for head, own_RK in enumerate(statistics):
        there_RK = own_RK[present_RH[:, head]] if present_RH[:, head].any() else own_RK
        means.append(there_RK.mean(axis=0))
        spreads.append(np.maximum(there_RK.std(axis=0), 1e-3))
    return np.stack(means).astype(np.float32), np.stack(spreads).astype(np.float32)
