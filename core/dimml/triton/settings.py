"""Settings of an entry model, given as ``parameters`` in its ``config.pbtxt``.

Names, units and defaults are those of the embedded server's settings (``docs/settings.md``).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dimml.errors import ConfigurationError
from dimml.media.types import MediaLimits
from dimml.media.workers.pool import DECODE_MEMORY_BYTES
from dimml.validation import first_fault

Positive = Annotated[float, Field(gt=0.0)]


class EntrySettings(BaseModel):
    """Settings of ``<bundle>`` and, below ``deadlines_ms``, of ``<bundle>_media``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_s: Positive = Field(default=10.0, description="Time limit of a request that names none.")
    max_timeout_s: Positive = Field(default=60.0, description="Longest time limit that a request may ask for.")
    deadlines_ms: dict[str, Positive] = Field(
        default_factory=dict, description="Time limits of encoders, as `audio=500,visual=800`; else the bundle's own."
    )
    max_stray_runs: int = Field(
        default=4,
        ge=1,
        description="Calls of one encoder whose callers have given up; beyond it, the encoder fails at once.",
    )
    decode_workers: int = Field(default=2, ge=1, description="Decoding processes of one instance: one, and a spare.")
    decode_timeout_s: Positive = Field(default=5.0, description="Time limit of decoding one request's media.")
    decode_memory: int = Field(default=DECODE_MEMORY_BYTES, ge=256 * 2**20, description="Memory of one decoding.")
    max_body_bytes: int = Field(default=256 * 2**20, ge=1024, description="Largest recording.")
    max_media_s: Positive = Field(default=120.0, description="Longest range of media that may be requested.")
    max_pixels: int = Field(default=4096 * 2304, ge=64, description="Largest picture of a video that is decoded.")
    max_image_pixels: int = Field(default=64_000_000, ge=64, description="Largest image file that is decoded.")
    max_frames: int = Field(default=7500, ge=1, description="Pictures decoded on the way to the wanted ones.")

    @field_validator("deadlines_ms", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        return {name.strip(): limit for name, _, limit in pairs}

    @property
    def media_limits(self) -> MediaLimits:
        """Limits of one decode."""
        return MediaLimits(
            max_bytes=self.max_body_bytes,
            max_seconds=self.max_media_s,
            max_pixels=self.max_pixels,
            max_image_pixels=self.max_image_pixels,
            max_frames_decoded=self.max_frames,
        )


def entry_settings(model_config: dict[str, Any]) -> EntrySettings:
    """Read settings from a model configuration in Triton's JSON form. Raises ConfigurationError."""
    parameters = model_config.get("parameters") or {}
    # Other parameters are Triton's own, such as FORCE_CPU_ONLY_INPUT_TENSORS.
    given = {name: value["string_value"] for name, value in parameters.items() if name in EntrySettings.model_fields}
    try:
        return EntrySettings.model_validate(given)
    except ValidationError as error:
        field, fault = first_fault(error, "parameters")
        name = field.partition(".")[0]  # deadlines_ms is one parameter, whatever its key.
        raise ConfigurationError(f"parameter {name} of config.pbtxt: {fault}", field=name) from error
