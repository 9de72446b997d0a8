"""Choosing a fusion from encoders and clips: list the conditions, encode them, search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import nn

from dimml.fusion import LEARNED
from dimml_training.config import TrainConfig
from dimml_training.config.composed_conditions import composed_conditions
from dimml_training.config.corruption_suite import Condition, Corruption, conditions
from dimml_training.corruptions.encoding import encode_conditions
from dimml_training.corruptions.kin.applying import WithKin
from dimml_training.corruptions.kin.families import kin_conditions
from dimml_training.data.loader import ClipRows
from dimml_training.data.prepare import Progress
from dimml_training.fusion_selection.condition_rows import IntArray
from dimml_training.fusion_selection.family_pairs import damaged_pairs
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
    suite = choice_conditions(config)
    corrupted = encode_conditions(
        encoders,
        config.inputs,
        spread(validation, section.clips),
        suite,
        config.quality,
        seed=config.seed,
        progress=progress,
        damage=WithKin(train),
    )
    clean = encode_conditions(
        encoders, config.inputs, spread(train, MOST_TRAIN_CLIPS), suite[:1], config.quality, seed=config.seed
    )
    return choose_fusion(corrupted, clean, fused_head, suite, section, seed=config.seed)


def choice_conditions(config: TrainConfig) -> list[Condition]:
    """Conditions that the choice of a fusion sees, clean first, each with the draws that the config allows.

    Damage to two modalities at once, by families that are left out together, follows the suite. What the choice learns
    from but is not judged on comes last: kin of real damage, and chains.
    """
    section = config.certainty
    suite = [replace(c, draws=min(c.draws, section.draws)) for c in conditions(config.inputs, "seen")]
    seen = seen_conditions(suite, section)
    return [*seen, *damaged_pairs(seen), *learned_from(config)]


def learned_from(config: TrainConfig) -> list[Condition]:
    """Conditions that a choice learns from and is not judged on.

    Kin, if the config wants it and anything is learned; composed ones if 'cross_reliability' may be learned. With
    ``families`` in the config, kin near to any other family is as unknown as that family.
    """
    section = config.certainty
    kin = section.kin and not set(LEARNED).isdisjoint(section.tried)
    found = kin_conditions(config.inputs, section.draws) if kin else []
    if section.families is not None:
        found = [c for c in found if _near(c) <= set(section.families)]
    if "cross_reliability" in section.tried:
        found += composed_conditions(config.inputs, section.families)
    return found


def _near(condition: Condition) -> frozenset[str]:
    """Seen families that what a condition does resembles."""
    return frozenset(f for c in condition.by_modality.values() if isinstance(c, Corruption) for f in c.near)


def spread(clips: ClipRows, most: int) -> ClipRows:
    """Take at most ``most`` clips, spread evenly over the split."""
    return clips.take(spread_over(len(clips), most))


def spread_over(clips: int, most: int) -> IntArray:
    """Return the indices of at most ``most`` of ``clips`` clips, spread evenly."""
    return np.unique(np.linspace(0, clips - 1, min(most, clips)).round().astype(np.int64))
