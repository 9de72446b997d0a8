"""From encoders and clips to a chosen fusion: the conditions, their encoding, the choice."""

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

#: Training clips that tell where features belong; more change little.
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
    """Encode validation clips under the seen conditions and clean training clips, and choose.

    The encoders must be in evaluation mode. ``progress`` is told how many encodings of how many are there. Raises
    DataError where a corruption needs another clip and there is none.
    """
    section = config.certainty
    suite = [replace(c, draws=min(c.draws, section.draws)) for c in conditions(config.inputs, "seen")]
    suite = seen_conditions(suite, section)
    judged = encode_conditions(
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
    return choose_fusion(judged, clean, fused_head, suite, section, seed=config.seed)


def spread(clips: ClipRows, most: int) -> ClipRows:
    """At most so many clips, spread evenly over the split."""
    chosen = np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(np.int64))
    return ClipRows(clips.arrays, clips.slots[chosen], clips.labels[chosen])
