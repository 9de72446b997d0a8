"""Section ``modalities``: input, encoder and augmentation of each modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from dimml.modality import Flow, Frames, Waveform
from dimml_training.config.augment import PictureAugmentConfig, SoundAugmentConfig
from dimml_training.config.base import Section
from dimml_training.models.config import PictureEncoderConfig, SoundEncoderConfig


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
        if isinstance(self.input, Flow):
            touched = [n for n in ("flip", "brightness", "contrast") if getattr(self.augment, n)]
            if touched:
                raise ValueError(f"augment.{touched[0]} applies to frames only: it would falsify the vectors of a flow")
            if self.encoder.grey:
                raise ValueError("encoder.grey applies to frames, not to flow")
        return self


def _sound_or_picture(value: Any) -> str | None:
    given = value.get("input") if isinstance(value, Mapping) else getattr(value, "input", None)
    kind = given.get("kind") if isinstance(given, Mapping) else getattr(given, "kind", None)
    return {"waveform": "sound", "frames": "picture", "flow": "picture"}.get(str(kind))


ModalityConfig = Annotated[
    Annotated[SoundModalityConfig, Tag("sound")] | Annotated[PictureModalityConfig, Tag("picture")],
    Discriminator(
        _sound_or_picture,
        custom_error_type="modality_kind",
        custom_error_message="input.kind must be 'waveform', 'frames' or 'flow'",
    ),
]
