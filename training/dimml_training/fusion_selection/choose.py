"""Choosing a fusion from encoders and clips: list the conditions, encode them, search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import nn

from dimml_training.config import TrainConfig
from dimml_training.config.corruption_suite import conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import Progress
from dimml_training.fusion_selection.search import ChosenFusion, choose_fusion, seen_conditions

#: Most training clips used for the class means and covariance of features; more change little.
MOST_TRAIN_CLIPS = 2000


def choose_on(
    config: TrainConfig,
    encoders: Mapping[str, nn.Module],
    fused_head: nn.Linear | None,
    *,
    train: ClipRows,
    validation: ClipRows,
    progress: Progress | None = None,
) -> ChosenFusion:
    """Encode validation clips under the seen conditions, and clean training clips, and choose a fusion.

    The encoders must be in evaluation mode. ``progress`` is called with the number of encodings done and the total.
    Raises DataError if a corruption needs another clip and there is none.
    """
    section = config.certainty
    suite = [replace(c, draws=min(c.draws, section.draws)) for c in conditions(config.inputs, "seen")]
    suite = seen_conditions(suite, section)
    corrupted = encode_conditions(
        encoders,
        config.inputs,
        spread(validation, section.clips),
        suite,
        config.quality,
        seed=config.seed,
        progress=progress,
    )
    clean = encode_conditions(
        encoders, config.inputs, spread(train, MOST_TRAIN_CLIPS), suite[:1], config.quality, seed=config.seed
    )
    return choose_fusion(corrupted, clean, fused_head, suite, section, seed=config.seed)


def spread(clips: ClipRows, most: int) -> ClipRows:
    """Take at most ``most`` clips, spread evenly over the split."""
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(np.int64))
    return clips.take(chosen)
