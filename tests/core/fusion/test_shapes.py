"""Shapes are checked where they enter the fusion: what numpy would broadcast is an error that names the array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dimml.errors import InvalidTensorError
from dimml.fusion import (
    STATISTICS,
    FusionParameters,
    FusionSpec,
    HeadReliability,
    certainty_of,
    fuse,
    fuse_weighted,
    heads_present,
    reliability_of,
    reliability_statistics,
)

RNG = np.random.default_rng(0)
LOGITS_BHC = RNG.normal(size=(5, 3, 4)).astype(np.float32)
PRESENT_BH = np.ones((5, 3), np.bool_)
FEATURES_BD = RNG.normal(size=(5, 6)).astype(np.float32)


def head(**other: Any) -> HeadReliability:
    kinds = len(STATISTICS)
    arrays = {
        "whitening_DD": np.eye(6),
        "whitened_means_CD": RNG.normal(size=(4, 6)),
        "offset_K": np.zeros(kinds),
        "scale_K": np.ones(kinds),
        "hidden_weight_KU": RNG.normal(size=(kinds, 2)),
        "hidden_bias_U": np.zeros(2),
        "out_weight_U": np.ones(2),
        "out_bias": np.zeros(1),
        **other,
    }
    return HeadReliability(**{name: np.asarray(array, np.float32) for name, array in arrays.items()})


def fuse_learned(features: list[Any]) -> Any:
    spec = FusionSpec(certainty="reliability", fused_head=False)
    return fuse(LOGITS_BHC, PRESENT_BH, spec, FusionParameters((head(),) * 3), features)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    # One row of logits without its batch axis: every row got the first one's answer.
    "two axes": (lambda: fuse(LOGITS_BHC[0], PRESENT_BH[:1]), "logits_BHC"),
    "two axes, as many heads as classes": (lambda: fuse(LOGITS_BHC[:, 0], PRESENT_BH), "logits_BHC"),
    "present of one row": (lambda: fuse(LOGITS_BHC, PRESENT_BH[:1]), "present_BH"),
    "present without a batch": (lambda: fuse(LOGITS_BHC, PRESENT_BH[0]), "present_BH"),
    "present of fewer heads": (lambda: fuse(LOGITS_BHC, PRESENT_BH[:, :1]), "present_BH"),
    "certainty of one row": (lambda: fuse_weighted(LOGITS_BHC, PRESENT_BH, np.ones((1, 3))), "certainty_BH"),
    "certainty of one head": (lambda: fuse_weighted(LOGITS_BHC, PRESENT_BH, np.ones((5, 1))), "certainty_BH"),
    "weighted, two axes": (lambda: fuse_weighted(LOGITS_BHC[0], PRESENT_BH[:1], np.ones((1, 3))), "logits_BHC"),
    "features of one row": (
        lambda: fuse_learned([FEATURES_BD, FEATURES_BD[:1], FEATURES_BD]),
        "features[1]_BD",
    ),
    "modalities of one row": (lambda: heads_present(np.ones(2, np.bool_), fused_head=True), "present_BM"),
    "the same without a fused head": (lambda: heads_present(np.ones(2, np.bool_), fused_head=False), "present_BM"),
    "a number": (lambda: certainty_of(np.float32(1), "max_prob"), "logits"),
    "no class": (lambda: certainty_of(np.zeros((2, 0), np.float32), "max_prob"), "logits"),
    "one class has no second": (lambda: certainty_of(np.zeros((2, 1), np.float32), "margin"), "logits"),
    "one class has no entropy": (lambda: certainty_of(np.zeros((2, 1), np.float32), "neg_entropy"), "logits"),
    "features of other rows": (lambda: reliability_of(FEATURES_BD[:1], LOGITS_BHC[:, 0], head()), "logits_BC"),
    "features of another width": (lambda: reliability_of(FEATURES_BD[:, :1], LOGITS_BHC[:, 0], head()), "whitening_DD"),
    "means of other classes": (
        lambda: reliability_of(FEATURES_BD, LOGITS_BHC[:, 0], head(whitened_means_CD=np.zeros((3, 6)))),
        "whitened_means_CD",
    ),
    "one scale for all statistics": (
        lambda: reliability_of(FEATURES_BD, LOGITS_BHC[:, 0], head(scale_K=np.ones(1))),
        "scale_K",
    ),
    "logits of heads": (
        lambda: reliability_statistics(FEATURES_BD, LOGITS_BHC, np.eye(6), np.zeros((4, 6))),
        "logits_BC",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_broadcast_is_named(case: str) -> None:
    call, named = WRONG[case]
    with pytest.raises(InvalidTensorError) as caught:
        call()
    assert caught.value.field == named
    assert named in caught.value.message
    assert "shape" in caught.value.message


def test_what_fits_is_taken() -> None:
    assert fuse(LOGITS_BHC, PRESENT_BH).weights_BH.shape == (5, 3)
    assert fuse(LOGITS_BHC[:0], PRESENT_BH[:0]).weights_BH.shape == (0, 3)
    assert fuse_learned([FEATURES_BD] * 3).certainty_BH.shape == (5, 3)
    assert certainty_of(LOGITS_BHC, "margin").shape == (5, 3)
    assert certainty_of(LOGITS_BHC[0, 0], "max_prob").shape == ()


def test_both_shapes_are_in_the_message() -> None:
    with pytest.raises(InvalidTensorError) as caught:
        fuse(LOGITS_BHC, PRESENT_BH[:1])
    assert caught.value.message == "present_BH has shape [1, 3], in which B is 1; it is 5 in logits_BHC"
    with pytest.raises(InvalidTensorError) as caught:
        fuse(LOGITS_BHC[0], PRESENT_BH)
    assert caught.value.message == "logits_BHC must have 3 axes [B, H, C], got shape [3, 4]"
