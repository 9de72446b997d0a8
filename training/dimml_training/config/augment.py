"""Section ``modalities[].augment``: corruption of training clips, each modality independently of the others."""

from __future__ import annotations

from pydantic import Field, model_validator

from dimml_training.config.base import Range, Section, Share


class SoundAugmentConfig(Section):
    """Random corruption of a training clip's sound. Everything is off by default."""

    gain_db: float = Field(default=0.0, ge=0.0, description="Loudness is changed by up to ± this.")
    shift_ms: float = Field(default=0.0, ge=0.0, description="Shifted in time by up to ± this; zeros fill the gap.")
    noise_probability: Share = Field(default=0.0, description="Share of clips with white noise added.")
    noise_snr_db: Range = Field(default=(0.0, 20.0), description="Range of that noise's SNR, lowest and highest.")
    babble_probability: Share = Field(
        default=0.0, description="Share of clips with another clip of the batch mixed in."
    )
    babble_snr_db: Range = Field(default=(0.0, 20.0), description="Range of that mix's SNR, lowest and highest.")
    gap_probability: Share = Field(default=0.0, description="Share of clips with a silent gap.")
    gap_share: float = Field(default=0.5, gt=0.0, le=1.0, description="Longest gap, as a share of the clip.")
    band_probability: Share = Field(default=0.0, description="Share of clips that lose their high or low frequencies.")
    band_cut_hz: Range = Field(
        default=(500.0, 2000.0), description="Range of the cut-off frequency, lowest and highest."
    )

    @model_validator(mode="after")
    def _ranges_rise(self) -> SoundAugmentConfig:
        for name in ("noise_snr_db", "babble_snr_db", "band_cut_hz"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must go from the lowest to the highest value, got {low:g} to {high:g}")
        if self.band_cut_hz[0] <= 0.0:
            raise ValueError(f"band_cut_hz must be above 0, got {self.band_cut_hz[0]:g}")
        return self


class SeriesAugmentConfig(Section):
    """Random corruption of a training clip's series. Everything is off by default.

    A deviation is a channel's own over the clip.
    """

    stretch: float = Field(default=0.0, ge=0.0, lt=1.0, description="Faster or slower by up to 1 ± this.")
    shift_ms: float = Field(default=0.0, ge=0.0, description="Shifted in time by up to ± this; the rest is missing.")
    scale: float = Field(default=0.0, ge=0.0, lt=1.0, description="Each channel is scaled by up to 1 ± this.")
    drift_probability: Share = Field(default=0.0, description="Share of clips whose channels drift away evenly.")
    drift: float = Field(default=1.0, ge=0.0, description="Farthest drift at the row's end, in deviations.")
    noise_probability: Share = Field(default=0.0, description="Share of clips with white noise added.")
    noise_snr_db: Range = Field(default=(0.0, 20.0), description="Range of that noise's SNR, lowest and highest.")
    dead_probability: Share = Field(default=0.0, description="Share of clips with channels that give 0; one stays.")
    dead_share: Share = Field(default=0.5, description="Highest share of channels that are.")
    gap_probability: Share = Field(default=0.0, description="Share of clips with a stretch that is missing.")
    gap_share: float = Field(default=0.5, gt=0.0, le=1.0, description="Longest such stretch, as a share of the row.")

    @model_validator(mode="after")
    def _range_rises(self) -> SeriesAugmentConfig:
        low, high = self.noise_snr_db
        if low > high:
            raise ValueError(f"noise_snr_db must go from the lowest to the highest value, got {low:g} to {high:g}")
        return self


class PictureAugmentConfig(Section):
    """Random corruption of a training clip's pictures, the same in all of its frames. Everything is off by default."""

    shift: float = Field(default=0.0, ge=0.0, le=0.5, description="Shifted by up to ± this share of height and width.")
    shift_frames: int = Field(default=0, ge=0, description="Shifted in time by up to ± this many frames.")
    flip: bool = Field(default=False, description="Half of the clips are mirrored left to right.")
    brightness: float = Field(default=0.0, ge=0.0, le=255.0, description="Changed by up to ± this, in units of 0..255.")
    contrast: float = Field(default=0.0, ge=0.0, lt=1.0, description="Scaled by up to 1 ± this about the mean.")
    noise_std: float = Field(default=0.0, ge=0.0, description="Highest standard deviation of pixel noise, of 255.")
    erase_probability: Share = Field(default=0.0, description="Share of clips with a grey rectangle over them.")
    erase_share: float = Field(
        default=0.5, gt=0.0, le=1.0, description="Longest side of it, as a share of the picture's."
    )
    blur_probability: Share = Field(default=0.0, description="Share of clips that are blurred.")
    blur_share: float = Field(
        default=0.05, gt=0.0, le=0.5, description="Highest sigma of the blur, as a share of the height."
    )
    down_sampling_probability: Share = Field(default=0.0, description="Share of clips reduced to coarse blocks.")
    down_sampling_factor: float = Field(default=4.0, gt=1.0, description="Highest side of a block, in pixels.")
    drop_probability: Share = Field(default=0.0, description="Share of clips that lose frames: black, flow at rest.")
    drop_share: Share = Field(default=0.5, description="Highest share of frames lost; the first one stays.")
    gap_probability: Share = Field(default=0.0, description="Share of clips with a run of grey frames, flow at rest.")
    gap_share: float = Field(default=0.5, gt=0.0, le=1.0, description="Longest such run, as a share of the clip.")
