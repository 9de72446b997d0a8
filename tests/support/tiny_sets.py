"""Thresholds of prediction sets for bundles of sound and picture, and a bundle to hold them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.bundle import Bundle, Encoder
from dimml.fusion import FusionSpec
from dimml.modality import patterns_of
from dimml.prediction import Prediction
from dimml.prediction_sets.thresholds import PatternThreshold, PredictionSets
from dimml.prediction_sets.unknown import KnownFeatures, Matrix, UnknownClass, UnknownThreshold
from support.tiny_bundle import AUDIO, FEATURES_WIDTH, VISUAL, colour, tiny_row

#: Thresholds between the scores of the tiny encoders' labels: sets of one label, from the picture alone of three.
SETS = {"whole": 0.5, "audio": 0.9, "visual": 0.9999}


def tiny_sets(whole: float, audio: float, visual: float, **limits: Any) -> PredictionSets:
    """Thresholds for answers from both, from the sound alone and from the picture alone."""
    patterns = tuple(
        PatternThreshold(modalities=pattern, clips=19, rank=18, threshold=threshold)
        for pattern, threshold in zip(patterns_of(("audio", "visual")), (whole, audio, visual), strict=True)
    )
    return PredictionSets(coverage=Decimal("0.9"), patterns=patterns, folds=0, **limits)


def tiny_unknown() -> UnknownClass:
    """Features of the three tones and colours as the tiny encoders give them; what is within 0.3 of one is known."""
    shares, colours = np.eye(3, FEATURES_WIDTH), np.zeros((3, FEATURES_WIDTH))
    colours[:, :3] = [colour(label) / 255 for label in range(3)]
    known = {
        name: KnownFeatures(whitening=Matrix.of(np.eye(FEATURES_WIDTH)), means=Matrix.of(means), centre=0.0, spread=1.0)
        for name, means in (("audio", shares), ("visual", colours))
    }
    patterns = tuple(
        UnknownThreshold(modalities=pattern, clips=19, threshold=0.3) for pattern in patterns_of(("audio", "visual"))
    )
    return UnknownClass(false_alarms=Decimal("0.05"), modalities=known, patterns=patterns)


def grey_row() -> npt.NDArray[np.uint8]:
    """Pictures of no class's colour, with a mark that moves."""
    row = tiny_row(VISUAL, 0)
    row[:] = 128
    for index, frame in enumerate(row):
        frame[0, index % VISUAL.width] = 255
    return np.asarray(row)


def set_by_hand(answer: Prediction) -> list[str]:
    """The set of an answer that lists all classes, by the definition and ``SETS``."""
    present = [name for name, own in answer.modalities.items() if own.status == "ok"]
    threshold = SETS["whole" if len(present) == 2 else present[0]]
    ranked = sorted(answer.predictions, key=lambda one: -one.probability)
    return [one.label for place, one in enumerate(ranked) if place == 0 or 1 - one.probability <= threshold + 1e-6]


def bundle_of_sets(**changes: Any) -> Bundle:
    """A manifest of sound and picture with these fields."""
    return Bundle(
        **{
            "name": "tiny",
            "version": 1,
            "labels": ("red", "green", "blue"),
            "clip_s": 0.5,
            "encoders": (Encoder(modality=AUDIO, features=8), Encoder(modality=VISUAL, features=8)),
            "fusion": FusionSpec(fused_head=True),
            "created": "2026-01-01T00:00:00+00:00",
            "dimml_version": "0",
            "decoder_version": 2,
            **changes,
        }
    )
