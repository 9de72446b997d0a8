"""Made-up cells of a comparison, and the bits that they were made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dimml_training.compare import cells
from dimml_training.compare.cells import Cell, ConditionRecord

CLIPS = 40
#: Name, group, seen, in the means, draws.
CONDITIONS = (
    ("clean", "clean", True, False, 1),
    ("audio:white", "sound", True, True, 3),
    ("audio:voices", "sound", False, True, 3),
    ("visual:patch", "picture", False, True, 2),
    ("audio:absent", "absent", True, False, 1),
)


def cell(
    method: str, repeat: int, share: float, *, validation: dict[str, float] | None = None, **changed: Any
) -> tuple[Cell, dict[str, npt.NDArray[np.bool_]]]:
    """A made-up cell, right on about ``share`` of its clips, and the bits that it was made from."""
    rng = np.random.default_rng([repeat, *method.encode()])
    right = {name: rng.random((draws, CLIPS)) < share for name, *_, draws in CONDITIONS}
    records = {
        name: ConditionRecord(
            group=group,
            seen=seen,
            in_means=in_means,
            draws=draws,
            accuracy=float(right[name].mean()),
            macro_f1=0.5,
            nll=0.25,
            ece=0.1,
            confidence=0.8,
            auroc=None,
            right=cells.pack_bits(right[name]),
        )
        for name, group, seen, in_means, draws in CONDITIONS
    }
    fields: dict[str, Any] = {
        **{"data": "made_up", "method": method, "description": method, "repeat": repeat, "fields": {"seed": repeat}},
        **{"seed": repeat, "training": "t", "answer": "a", "suite": "s", "config_hash": "c", "data_digest": "d"},
        **{"commit": None, "dirty": None, "trained_commit": None, "date": f"2026-01-01T00:00:0{repeat}Z"},
        **{"seconds_training": 1.0, "seconds_scoring": 1.0, "modalities": ("audio", "visual"), "classes": 3},
        **{"clips_train": 9, "clips_validation": 9, "clips": CLIPS, "versions": {}, "validation": validation},
        "clip_lines": cells.pack_lines(np.arange(CLIPS) + 100 * repeat),
        "conditions": records,
        "clean_confidence": cells.pack_confidences(rng.random(CLIPS)),
        "replicates": {},
    }
    return Cell(**{**fields, **changed}), right
