"""Section ``compare``: the repeats of ``dimml compare``, and the paper's settings for this kind of data."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from dimml_training.config.base import Section
from dimml_training.config.corruption_suite import FAMILIES
from dimml_training.config.rivals import RivalsConfig

Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class CompareConfig(Section):
    """Settings of comparing and scoring; they do not change a training."""

    repeats: tuple[dict[str, Any], ...] | None = Field(
        default=None,
        description="One mapping of fields (a.b: value) per repeat, for example a seed and a split column per fold; "
        "by default the seeds 0, 1, 2…",
    )
    published: dict[str, Any] = Field(
        default={}, description="Fields (a.b: value) of dimml_published that the paper sets for this kind of data."
    )
    duc_weights: tuple[Weight, ...] = Field(
        default=(),
        description="Values of stage1.lambda_duc that `dimml` tries, each a training on the first repeat; all methods "
        "on our encoders take the one that validation clips choose. Without any, the config's own stays.",
    )
    clw_temperature: float = Field(default=1.0, gt=0.0, description="T of the paper's weighting for this kind of data.")

    contained: tuple[str, ...] = Field(
        default=(),
        description="Families of the corruption suite that the recordings already contain (robustness.md): left out of "
        "the means, because training has seen them. `dimml evaluate` respects it too.",
    )
    rivals: RivalsConfig = Field(default=RivalsConfig(), description="What rivals may try on validation clips.")

    @field_validator("contained")
    @classmethod
    def _known(cls, contained: tuple[str, ...]) -> tuple[str, ...]:
        known = [family.name for family in FAMILIES]
        for name in contained:
            if name not in known:
                raise ValueError(f"{name} is no family of the corruption suite; choose from {', '.join(known)}")
        return contained

    @field_validator("repeats")
    @classmethod
    def _some(cls, repeats: tuple[dict[str, Any], ...] | None) -> tuple[dict[str, Any], ...] | None:
        if repeats is not None and not repeats:
            raise ValueError("give at least one repeat, or leave it out")
        return repeats
