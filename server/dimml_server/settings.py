"""Everything that can be set on the server: one frozen, typed place. ``docs/settings.md`` lists each field."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dimml.errors import ConfigurationError
from dimml.media.types import MediaLimits
from dimml.monitoring.drift import DriftWindow

ENV_PREFIX = "DIMML_"

Positive = Annotated[float, Field(gt=0.0)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class ServerSettings(BaseSettings):
    """Settings of ``dimml serve``: defaults, then ``DIMML_…`` of the environment, then flags.

    Sizes are bytes, times are seconds unless the name says otherwise. Built by ``load_settings``, which turns
    what does not validate into an error that names the setting.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    repository: Path = Field(default=Path("model_repository"), description="Model repository to serve.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Bundles to load; all of the repository where empty."
    )
    model_control: Literal["none", "explicit"] = Field(
        default="none",
        description="Whether callers may load and unload bundles (`explicit`), or what was loaded at start stays.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on, HTTP and gRPC alike.")
    http_port: Port = Field(default=8000, description="HTTP port; 0 takes a free one.")
    grpc_port: Port = Field(default=8001, description="gRPC port; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")

    engine: Literal["local", "triton"] = Field(
        default="local", description="Where encoders and fusion run: in this process, or on a Triton server."
    )
    triton_url: str = Field(
        default="127.0.0.1:8001",
        pattern=r"^[^\s/]+:\d{1,5}$",
        description="Triton's gRPC address, as `host:port`, for the triton engine.",
    )
    triton_wait_s: float = Field(
        default=30.0,
        ge=0.0,
        description="At start, longest wait for Triton and its models; then serving begins anyway.",
    )
    triton_max_message_bytes: int = Field(
        default=512 * 2**20, ge=2**20, le=2**31 - 1, description="Largest message to Triton and from it."
    )
    triton_keepalive_s: Positive = Field(
        default=10.0, description="Silence during a call to Triton after which the connection is tested."
    )
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        default="auto",
        description="Where encoders run: `auto` takes CUDA where the installed ONNX Runtime and the machine have it.",
    )
    intra_op_threads: int | None = Field(
        default=None, ge=1, description="Threads of one encoder run; by default cores divided by encoders, at least 1."
    )
    max_stray_runs: int = Field(
        default=4,
        ge=1,
        description="Runs of one model that were told to stop and still go on; past it, its modality fails at once.",
    )

    concurrency: int = Field(
        default_factory=lambda: 2 * (os.cpu_count() or 1),
        ge=1,
        description="Requests worked on at once; by default twice the cores.",
    )
    queue_length: int = Field(default=64, ge=0, description="Requests that may wait; the next one gets 429.")
    queue_wait_s: Positive = Field(default=5.0, description="Longest wait for a turn; past it, 429.")
    timeout_s: Positive = Field(default=10.0, description="Time limit of a request that names none.")
    max_timeout_s: Positive = Field(default=60.0, description="Longest time limit that a request may ask for.")
    deadlines_ms: Annotated[dict[str, Positive], NoDecode] = Field(
        default_factory=dict,
        description="Time limits of encoders, as `audio=500,visual=800`; the bundle's own where not named.",
    )

    decode_workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="Decoding processes; by default one per core."
    )
    decode_timeout_s: Positive = Field(
        default=5.0, description="Time limit of decoding one request's media; keep it below 0.6 × `timeout_s`."
    )
    decode_memory: int = Field(
        default=1536 * 2**20, ge=256 * 2**20, description="Memory that one decoding may take on top of its worker's."
    )
    max_body_bytes: int = Field(default=256 * 2**20, ge=1024, description="Largest request body; past it, 413.")
    upload_timeout_s: Positive = Field(default=30.0, description="Time for a request's body to arrive; past it, 408.")
    spool_bytes: int = Field(
        default=2**20, ge=0, description="An uploaded part past this size goes to a temporary file, not memory."
    )
    max_media_s: Positive = Field(default=120.0, description="Longest stretch of media that may be asked for.")
    max_pixels: int = Field(default=4096 * 2304, ge=64, description="Largest picture that is decoded.")
    max_frames: int = Field(default=7500, ge=1, description="Pictures decoded on the way to the wanted ones.")

    drift_window: int = Field(default=500, ge=1, description="Last rows of a bundle version over which drift is told.")
    drift_minimum: int = Field(
        default=100, ge=1, description="Rows from which on drift is told; at most `drift_window`."
    )

    grace_s: Positive = Field(default=20.0, description="After SIGTERM, time for requests in flight to be answered.")

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("deadlines_ms", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        return {name.strip(): limit for name, _, limit in pairs}

    @field_validator("drift_minimum")
    @classmethod
    def _reachable(cls, value: int, info: ValidationInfo) -> int:
        window = info.data.get("drift_window")
        if window is not None and value > window:
            raise ValueError(f"must be at most drift_window, which is {window}")
        return value

    @property
    def drift(self) -> DriftWindow:
        """Over which rows drift is told."""
        return DriftWindow(rows=self.drift_window, minimum=self.drift_minimum)

    @property
    def media_limits(self) -> MediaLimits:
        """The limits of one decode."""
        return MediaLimits(
            max_bytes=self.max_body_bytes,
            max_seconds=self.max_media_s,
            max_pixels=self.max_pixels,
            max_frames_decoded=self.max_frames,
        )


def load_settings(**overrides: object) -> ServerSettings:
    """Settings from the environment, with ``overrides`` (flags; None means not given) on top.

    Raises ConfigurationError that names the setting and its variable.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return ServerSettings(**given)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            raise ConfigurationError(f"there is no setting {name!r}; see docs/settings.md", field=name) from error
        variable = ENV_PREFIX + name.split(".")[0].upper()
        raise ConfigurationError(f"setting {name} ({variable}): {first['msg']}", field=name) from error
