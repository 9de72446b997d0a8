"""Section ``certainty``: which fusions to try, and how validation clips choose among them (docs/certainty.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from dimml.fusion import Certainty, Pooling
from dimml_training.config.base import Section
from dimml_training.config.corruption_suite import BLACK, FAMILIES, SILENCE

Temperature = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class FusionForm(Section):
    """What of a fusion is not fitted to clips: the fields of a candidate."""

    certainty: Certainty = Field(description="Certainty measure.")
    pooling: Pooling = Field(description="What is weighted.")
    temperature: Temperature | None = Field(description="Weighting temperature; null for equal weights.")
    fused_head: bool = Field(description="Whether the fused head votes.")


class CertaintyConfig(Section):
    """Choice of the fusion on validation clips, used when ``fusion`` is not given.

    The paper's setting and the plain averages are always candidates, with or without the fused head as ``fused_head``
    allows; with a ``form``, that form and the plain averages alone.
    """

    HISTORIC_DEFAULTS: ClassVar[Mapping[str, Any]] = {"regret_weighted": (False,), "form": None, "kin": False}

    families: tuple[str, ...] | None = Field(
        default=None,
        description="Corruption families (names of the suite) that the choice may see; by default all seen ones.",
    )
    draws: int = Field(default=2, ge=1, le=3, description="Largest number of random draws of each condition.")
    clips: int = Field(
        default=400, ge=1, description="Largest number of validation clips, spread evenly over the split."
    )
    folds: int = Field(
        default=3, ge=2, le=10, description="Cross-validation folds of the clips: fit on the others, score on each."
    )
    certainties: tuple[Certainty, ...] = Field(
        default=("max_prob", "neg_entropy", "margin", "reliability", "cross_reliability"),
        description="Certainty measures to try.",
    )
    poolings: tuple[Pooling, ...] = Field(
        default=("logits", "log_probabilities", "probabilities", "product"), description="Poolings to try."
    )
    temperatures: tuple[Temperature, ...] = Field(
        default=(0.1, 0.2, 0.5, 1.0), description="Weighting temperatures to try, in addition to equal weights."
    )
    fused_head: tuple[bool, ...] = Field(
        default=(True,),
        min_length=1,
        description="Whether to try fusions with the fused head's vote, without it, or both; a run without a fused "
        "head tries those without.",
    )
    regret_weighted: tuple[bool, ...] = Field(
        default=(False, True),
        min_length=1,
        description="Whether 'cross_reliability' is fitted with more weight on clips of which one modality is right "
        "and another wrong, without, or whichever has the better objective.",
    )
    clean_margin: float = Field(
        default=0.005,
        ge=0.0,
        le=1.0,
        description="How far the chosen fusion's accuracy on clean clips may be below the best plain average's.",
    )
    kin: bool = Field(
        default=False,
        description="Whether learned certainties learn from kin of real damage too: rooms, occluders, stutter and "
        "others, on which nothing is scored.",
    )
    form: FusionForm | None = Field(
        default=None,
        description="The only form to try beside the plain averages, such as one fixed by other data sets.",
    )

    @property
    def tried(self) -> tuple[Certainty, ...]:
        """Certainty measures that are tried: the form's alone, where one is fixed."""
        return self.certainties if self.form is None else (self.form.certainty,)

    @field_validator("families")
    @classmethod
    def _seen(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        seen = [family.name for family in FAMILIES if family.seen] + [SILENCE.family, BLACK.family]
        for name in names or ():
            if name in seen:
                continue
            if any(family.name == name for family in FAMILIES):
                raise ValueError(f"{name} is a development family, kept for what no choice has seen")
            raise ValueError(f"there is no family {name!r}; the seen ones are {', '.join(seen)}")
        return names
