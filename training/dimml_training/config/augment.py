"""Section ``modalities[].augment``: corruption of training clips, each modality on its own."""

from __future__ import annotations

from pydantic import Field, model_validator

from dimml_training.config.base import Range, Section, Share


class SoundAugmentConfig(Section):
    """What is done to a training clip's sound. Everything is off by default."""

    gain_db: float = Field(default=0.0, ge=0.0, description="Loudness is changed by up to ± this.")
    shift_ms: float = Field(default=0.0, ge=0.0, description="Moved in time by up to ± this, zeros move in.")
    noise_probability: Share = Field(default=0.0, description="Share of clips that get white noise.")
    noise_snr_db: Range = Field(default=(0.0, 20.0), description="Of that noise, lowest and highest.")
    babble_probability: Share = Field(default=0.0, description="Share of clips that get another clip of the batch.")
    babble_snr_db: Range = Field(default=(0.0, 20.0), description="Of that other clip, lowest and highest.")
    gap_probability: Share = Field(default=0.0, description="Share of clips with a silent gap.")
    gap_share: float = Field(default=0.5, gt=0.0, le=1.0, description="Longest length of it, of the clip's.")
    band_probability: Share = Field(default=0.0, description="Share of clips that lose their high or their low tones.")
    band_cut_hz: Range = Field(default=(500.0, 2000.0), description="Where they are cut, lowest and highest.")

    @model_validator(mode="after")
    def _ranges_rise(self) -> SoundAugmentConfig:
        for name in ("noise_snr_db", "babble_snr_db", "band_cut_hz"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must go from the lowest to the highest value, got {low:g} to {high:g}")
        if self.band_cut_hz[0] <= 0.0:
            raise ValueError(f"band_cut_hz must be above 0, got {self.band_cut_hz[0]:g}")
        return self


class PictureAugmentConfig(Section):
    """What is done to a training clip's pictures, the same in all of its frames. Everything is off by default."""

    shift: float = Field(default=0.0, ge=0.0, le=0.5, description="Moved by up to ± this share of height and width.")
    shift_frames: int = Field(default=0, ge=0, description="Moved in time by up to ± this many frames.")
    flip: bool = Field(default=False, description="Half of the clips are mirrored left to right.")
    brightness: float = Field(default=0.0, ge=0.0, le=255.0, description="Changed by up to ± this, in units of 0..255.")
    contrast: float = Field(default=0.0, ge=0.0, lt=1.0, description="Scaled by up to 1 ± this about the mean.")
    noise_std: float = Field(default=0.0, ge=0.0, description="Highest deviation of pixel noise, in units of 0..255.")
    erase_probability: Share = Field(default=0.0, description="Share of clips with a grey rectangle over them.")
    erase_share: float = Field(default=0.5, gt=0.0, le=1.0, description="Longest side of it, of the picture's.")
    blur_probability: Share = Field(default=0.0, description="Share of clips that are blurred.")
    blur_share: float = Field(default=0.05, gt=0.0, le=0.5, description="Highest deviation of it, of the height.")
    down_sampling_probability: Share = Field(default=0.0, description="Share of clips that become coarse blocks.")
    down_sampling_factor: float = Field(default=4.0, gt=1.0, description="Highest side of a block, in pixels.")
    drop_probability: Share = Field(default=0.0, description="Share of clips that lose frames: black, flow at rest.")
    drop_share: Share = Field(default=0.5, description="Highest share of frames lost; the first one stays.")
