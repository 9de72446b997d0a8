"""Section ``certainty``: among what, and by what, validation clips choose the fusion (docs/certainty.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from dimml.fusion import Certainty, Pooling
from dimml_training.config.base import Section
from dimml_training.config.corruption_suite import BLACK, FAMILIES, SILENCE

Temperature = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class CertaintyConfig(Section):
    """Read where ``fusion`` is not given. The paper's setting and the plain averages are always candidates, with
    the fused head or without as ``fused_head`` allows."""

    families: tuple[str, ...] | None = Field(
        default=None,
        description="Corruption families the choice may see, by the names of the suite; by default all seen ones.",
    )
    draws: int = Field(default=2, ge=1, le=3, description="At most so many draws of every condition.")
    clips: int = Field(default=400, ge=1, description="At most so many validation clips, spread evenly.")
    folds: int = Field(
        default=3, ge=2, le=10, description="Parts of the clips: what is learned on the others is judged on each."
    )
    certainties: tuple[Certainty, ...] = Field(
        default=("max_prob", "neg_entropy", "margin", "reliability"), description="Certainty measures to try."
    )
    poolings: tuple[Pooling, ...] = Field(
        default=("logits", "log_probabilities", "probabilities", "product"), description="Poolings to try."
    )
    temperatures: tuple[Temperature, ...] = Field(
        default=(0.1, 0.2, 0.5, 1.0), description="Weighting temperatures to try, beside equal weights."
    )
    fused_head: tuple[bool, ...] = Field(
        default=(False, True), min_length=1, description="With the fused head's vote, without, or both to try."
    )
    clean_margin: float = Field(
        default=0.005,
        ge=0.0,
        le=1.0,
        description="On clean clips, what is chosen may be so much below the best plain average, in accuracy.",
    )

    @field_validator("families")
    @classmethod
    def _seen(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        seen = [family.name for family in FAMILIES if family.seen] + [SILENCE.family, BLACK.family]
        for name in names or ():
            if name in seen:
                continue
            if any(family.name == name for family in FAMILIES):
                raise ValueError(f"{name} is an unseen family, kept for the final table; no choice may see it")
            raise ValueError(f"there is no family {name!r}; the seen ones are {', '.join(seen)}")
        return names
