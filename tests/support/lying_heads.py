"""Two heads made up so that the truth is known: damage makes a head vote confidently for the next class, and shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dimml_training.config.corruption_suite import ABSENT, Condition, Corruption
from dimml_training.corruptions.encoding import EncodedModality

CLASSES, WIDTH = 4, 6


@dataclass(frozen=True)
class LyingHeads:
    """Encodings of clips with these classes; a damaged modality's features lie far off in the last two dimensions.

    ``noise`` is the features' standard deviation by modality on clean clips, ``damaged_noise`` that on damaged ones.
    """

    labels_N: npt.NDArray[np.int64]
    seed: int = 0
    noise: tuple[float, float] = (0.8, 0.8)
    damaged_noise: float = 1.0

    def get(self, condition: Condition, draw: int) -> dict[str, EncodedModality]:
        found = {}
        for place, name in enumerate(("audio", "visual")):
            change = condition.by_modality.get(name)
            family = change.name if isinstance(change, Corruption) else "clean"
            rng = np.random.default_rng([self.seed, place, draw, *family.encode()])
            clips, axes = len(self.labels_N), np.eye(CLASSES, WIDTH)
            features = 3 * axes[self.labels_N] + self.noise[place] * rng.standard_normal((clips, WIDTH))
            if isinstance(change, Corruption):
                features = 6 * axes[(self.labels_N + 1) % CLASSES] + self.damaged_noise * rng.standard_normal(
                    (clips, WIDTH)
                )
                features[:, CLASSES:] += 8
            present = np.full(clips, change is not ABSENT)
            found[name] = EncodedModality(
                features.astype(np.float32), (2 * features[:, :CLASSES]).astype(np.float32), present
            )
        return found


def lying_suite() -> list[Condition]:
    """Clean, and each head damaged by three families, or absent."""
    found = [Condition("clean", "clean", True, {}, False, 1)]
    kinds: tuple[tuple[str, Literal["sound", "picture"]], ...] = (("audio", "sound"), ("visual", "picture"))
    for name, kind in kinds:
        for family in "abc":
            corruption = Corruption(f"{name}_{family}", "", 1.0, kind, True, 1)
            found.append(Condition(f"{name}:{corruption.name}", kind, True, {name: corruption}, True, 1))
        found.append(Condition(f"{name}:absent", "absent", True, {name: ABSENT}, False, 1))
    return found
