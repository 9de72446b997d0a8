"""Section ``modalities``: input, encoder and augmentation of each modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Discriminator, Field, Tag, model_validator

from dimml.modality import KINDS, Flow, Frames, Kind, Series, Waveform
from dimml_training.config.augment import PictureAugmentConfig, SeriesAugmentConfig, SoundAugmentConfig
from dimml_training.config.base import Section
from dimml_training.models.config import PictureEncoderConfig, SeriesEncoderConfig, SoundEncoderConfig


class SoundModalityConfig(Section):
    """A ``waveform`` modality."""

    input: Waveform
    encoder: SoundEncoderConfig = SoundEncoderConfig()
    augment: SoundAugmentConfig = SoundAugmentConfig()


class PictureModalityConfig(Section):
    """A ``frames`` or ``flow`` modality."""

    input: Annotated[Frames | Flow, Field(discriminator="kind")]
    encoder: PictureEncoderConfig = PictureEncoderConfig()
    augment: PictureAugmentConfig = PictureAugmentConfig()

    @model_validator(mode="after")
    def _flow_stays_flow(self) -> PictureModalityConfig:
        if not self.input.rgb:
            touched = [n for n in ("flip", "brightness", "contrast") if getattr(self.augment, n)]
            if touched:
                raise ValueError(f"augment.{touched[0]} applies to frames only: it would falsify the vectors of a flow")
            if self.encoder.grey:
                raise ValueError("encoder.grey applies to frames, not to flow")
        return self


class SeriesModalityConfig(Section):
    """A ``series`` modality."""

    input: Series
    encoder: SeriesEncoderConfig = SeriesEncoderConfig()
    augment: SeriesAugmentConfig = SeriesAugmentConfig()


#: The tag of each kind's section in ``ModalityConfig``.
SECTIONS: Final[Mapping[Kind, str]] = {"waveform": "sound", "frames": "picture", "flow": "picture", "series": "series"}


def _section(value: Any) -> str | None:
    given = value.get("input") if isinstance(value, Mapping) else getattr(value, "input", None)
    kind = given.get("kind") if isinstance(given, Mapping) else getattr(given, "kind", None)
    return next((tag for known, tag in SECTIONS.items() if known == kind), None)


ModalityConfig = Annotated[
    Annotated[SoundModalityConfig, Tag("sound")]
    | Annotated[PictureModalityConfig, Tag("picture")]
    | Annotated[SeriesModalityConfig, Tag("series")],
    Discriminator(
        _section,
        custom_error_type="modality_kind",
        custom_error_message=f"input.kind must be {', '.join(map(repr, KINDS[:-1]))} or {KINDS[-1]!r}",
    ),
]
