"""Weights of the classes in the cross entropies (section ``loss`` of the config)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dimml.errors import ConfigurationError
from dimml_training.config import LossConfig
from dimml_training.data.loader import ClipRows


def class_weights(config: LossConfig, labels: Sequence[str], train: ClipRows, modality: str | None) -> Tensor | None:
    """Weights ``[C]`` for a head of one modality, or of all together (None); None without any in the config.

    Balanced: the clips that have the modality over the number of classes and the clips of the class among them, as
    scikit-learn has it; a class without clips weighs nothing. Raises ConfigurationError for an unknown label.
    """
    given = config.class_weights
    if given is None:
        return None
    if given == "balanced":
        own = train.labels if modality is None else train.labels[train.has(modality)]
        counts = np.bincount(own, minlength=len(labels))
        balanced = len(own) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return torch.from_numpy(np.where(counts > 0, balanced, 0.0).astype(np.float32))
    unknown = sorted(set(given) - set(labels))
    if unknown:
        raise ConfigurationError(
            f"loss.class_weights: there is no class {unknown[0]!r}; there are {', '.join(labels)}",
            field="loss.class_weights",
        )
    return torch.tensor([float(given.get(label, 1.0)) for label in labels])
