"""All settings of the server, frozen and typed. ``docs/settings.md`` lists each field."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dimml.errors import ConfigurationError
from dimml.media.types import MediaLimits
from dimml.monitoring.drift import DriftWindow
from dimml.system.cores import usable_cores
from dimml.system.files import StrPath
from dimml.validation import first_fault
from dimml_server.settings.media_url import Bucket, BucketName, buckets_of, parse_origin
from dimml_server.settings.sources import check_variables, pairs_of, read_settings_file, unknown_setting

ENV_PREFIX = "DIMML_"
#: Settings whose values are never printed: digests of keys determine who has access.
SECRETS = frozenset({"api_keys"})

#: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``, the last two with the number of a GPU or without.
DEVICE_PATTERN: Final = r"^(auto|cpu|(cuda|tensorrt)(:[0-9]{1,3})?)$"

Positive = Annotated[float, Field(gt=0.0)]
Port = Annotated[int, Field(ge=0, le=65_535)]


class ServerSettings(BaseSettings):
    """Settings of ``dimml serve``: defaults, ``DIMML_…`` of the environment, a file, flags.

    Sizes are bytes, times are seconds unless the name says otherwise. Built by ``load_settings``, which turns a
    validation error into one that names the setting.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    repository: Path = Field(default=Path("model_repository"), description="Model repository to serve.")
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Bundles to load; empty means the whole repository."
    )
    model_control: Literal["none", "explicit"] = Field(
        default="none",
        description="Whether callers may load and unload bundles and change traffic splits: `explicit` or `none`.",
    )
    watch: bool = Field(
        default=False, description="Whether versions added to the repository are loaded, and removed ones unloaded."
    )
    watch_interval_s: Positive = Field(default=2.0, description="Time between two checks of the repository.")
    splits: Annotated[dict[str, dict[int, Positive]], NoDecode] = Field(
        default_factory=dict,
        description="Percent of the requests that name no version, as `grid=1:90/2:10`; default: all to the newest.",
    )
    shadows: Annotated[dict[str, int], NoDecode] = Field(
        default_factory=dict,
        description="Shadow versions, which get a copy of requests that others answered, as `grid=3`.",
    )
    shadow_queue: int = Field(
        default=8, ge=1, description="Answered requests that may wait for a shadow; further ones are not copied."
    )
    routing_file: Path | None = Field(
        default=None, description="File that keeps splits and shadows set by calls over a restart."
    )
    host: str = Field(
        default="127.0.0.1", description="Address to listen on, HTTP and gRPC alike; `::` is every address, IPv4 too."
    )
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path below which a proxy shows this server, as `/dimml`; taken off requests that still have it.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Serving processes behind the same ports, among which the limits below are divided.",
    )
    http_port: Port = Field(default=8000, description="HTTP port; 0 takes a free one.")
    grpc_port: Port = Field(default=8001, description="gRPC port; 0 takes a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="Form of log lines: `text` for people, `json` for machines."
    )
    traces_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+(/\S*)?$",
        description="OTLP/HTTP collector, as `http://host:4318`; without it nothing is traced. Needs `dimml[otel]`.",
    )
    traces_ratio: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="Share of requests traced, among those without a `traceparent` that decides it.",
    )

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
        description="Longest wait for Triton and its models at the start; serving then begins anyway.",
    )
    triton_max_message_bytes: int = Field(
        default=512 * 2**20, ge=2**20, le=2**31 - 1, description="Largest message to or from Triton."
    )
    triton_keepalive_s: Positive = Field(
        default=10.0, description="Idle time during a call to Triton after which the connection is tested."
    )
    device: str = Field(
        default="auto",
        description="Where encoders run: `auto`, `cpu`, `cuda[:N]` or `tensorrt[:N]`; `auto` takes CUDA where the "
        "installed ONNX Runtime has it, and N is a GPU's number.",
    )
    intra_op_threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of one encoder run; by default usable cores divided by encoders, at least 1.",
    )
    max_stray_runs: int = Field(
        default=4,
        ge=1,
        description="Cancelled runs of one model that have not ended; beyond it, its modality fails at once.",
    )
    batch_rows: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Rows of concurrent requests that one encoder run may take together, at most the bundle's own "
        "limit; 1 runs each request by itself.",
    )
    batch_wait_ms: float = Field(
        default=0.0,
        ge=0.0,
        le=1000.0,
        description="Longest wait of a request for others to share its run while an encoder is idle; at most a quarter "
        "of the encoder's deadline.",
    )
    graph_cache: Path | None = Field(
        default=None,
        description="Folder of this user's own that keeps encoders' graphs as optimised for this processor; without "
        "it, they are optimised at every start.",
    )
    graph_cache_bytes: int = Field(
        default=2**31, ge=0, description="Size of that folder, past which the least recently used graphs are removed."
    )

    concurrency: int = Field(
        # Requests that await a stalled encoder hold their places until its deadline: the others need some.
        default_factory=lambda: 2 * usable_cores() + 4,
        ge=1,
        description="Requests processed concurrently; by default twice the usable cores, and four.",
    )
    queue_length: int = Field(default=64, ge=0, description="Requests that may wait; the next one gets 429.")
    queue_wait_s: Positive = Field(default=5.0, description="Longest wait in the queue; past it, 429.")
    timeout_s: Positive = Field(default=10.0, description="Default time limit of a request.")
    max_timeout_s: Positive = Field(default=60.0, description="Longest time limit that a request may ask for.")
    deadlines_ms: Annotated[dict[str, Positive], NoDecode] = Field(
        default_factory=dict,
        description="Time limits of encoders, as `audio=500,visual=800`; by default the bundle's own.",
    )

    decode_workers: int = Field(
        default_factory=usable_cores, ge=1, description="Decoding processes; by default one per usable core."
    )
    decode_timeout_s: Positive = Field(
        default=5.0, description="Time limit of decoding one request's media; keep it below 0.6 × `timeout_s`."
    )
    decode_memory: int = Field(
        default=1536 * 2**20, ge=256 * 2**20, description="Memory that one decoding may take on top of its worker's."
    )
    max_body_bytes: int = Field(default=256 * 2**20, ge=1024, description="Largest request body; past it, 413.")
    max_grpc_bytes: int = Field(
        default=64 * 2**20, ge=1024, description="Largest gRPC message, which gRPC holds in memory whole."
    )
    max_parts: int = Field(default=32, ge=1, description="Parts of a multipart body; past it, 413.")
    max_header_bytes: int = Field(default=32 * 2**10, ge=1024, description="An HTTP request's head; past it, 431.")
    header_timeout_s: Positive = Field(default=10.0, description="Time for an HTTP request's head; past it, 408.")
    max_connections: int = Field(default=1000, ge=1, description="Open HTTP connections; the next one gets 503.")
    http_keepalive_s: Positive = Field(
        default=65.0, description="Idle time after which an HTTP connection is closed; longer than a proxy's in front."
    )
    grpc_keepalive_s: Positive = Field(
        default=60.0,
        description="Time without traffic during a call after which a gRPC connection is tested, and closed if nothing "
        "comes back.",
    )
    grpc_connection_age_s: Positive = Field(
        default=600.0,
        description="Age at which a gRPC connection is asked to close; it is closed after the longest call.",
    )
    upload_timeout_s: Positive = Field(default=30.0, description="Time for a request's body to arrive; past it, 408.")
    spool_bytes: int = Field(
        default=2**20, ge=0, description="An uploaded part past this size goes to a temporary file, not memory."
    )
    media_url_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts from which `media_url` may fetch, as `host` or `host:port`, https alone; empty means none.",
    )
    media_url_buckets: Annotated[dict[BucketName, Bucket], NoDecode] = Field(
        default_factory=dict,
        description="S3 buckets from which `media_url` may fetch, by name, with endpoint and key; empty means none.",
    )
    media_url_fetches: int = Field(
        default=16, ge=1, description="Recordings fetched concurrently; the next one gets 429."
    )
    media_url_allow_private: bool = Field(
        default=False,
        description="Whether those hosts may have addresses that are not on the Internet; for tests alone.",
    )
    max_media_s: Positive = Field(default=120.0, description="Longest time range of media that may be requested.")
    max_pixels: int = Field(default=4096 * 2304, ge=64, description="Largest picture of a video that is decoded.")
    max_image_pixels: int = Field(default=64_000_000, ge=64, description="Largest image file that is decoded.")
    max_frames: int = Field(default=7500, ge=1, description="Frames decoded on the way to the requested ones.")

    explain: Literal["off", "shapley", "occlusion"] = Field(
        default="shapley",
        description="The most that `explain` of a request may ask for: `off`, `shapley`, or `occlusion` as well, which "
        "runs encoders again.",
    )
    what_if: bool = Field(default=True, description="Whether a request may ask for `damage` to what it sent.")

    drift_window: int = Field(
        default=500,
        ge=1,
        description="Last rows of a bundle version over which drift and estimated accuracy are computed.",
    )
    drift_minimum: int = Field(
        default=100,
        ge=1,
        description="Rows needed before drift or estimated accuracy is reported; at most `drift_window`.",
    )

    grace_s: Positive = Field(default=20.0, description="Time after SIGTERM for requests in flight to be answered.")

    api_keys_file: Path | None = Field(
        default=None,
        description="File of API keys, a line each (`dimml keys new`); where there are keys, calls need one.",
    )
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="The same lines, separated by `;`; in addition to the file or instead of it."
    )
    key_concurrency: int = Field(
        default=32,
        ge=1,
        description="Concurrent requests of one API key, unless its line says otherwise; past it, 429.",
    )
    health_open: bool = Field(default=True, description="Whether live and ready answer without a key.")
    metrics_open: bool = Field(default=False, description="Whether `/metrics` and `/v1/now` answer without a key.")
    tls_certificate: Path | None = Field(
        default=None, description="Certificate chain (PEM) of this server, for HTTP and gRPC; without it, no TLS."
    )
    tls_key: Path | None = Field(default=None, description="Private key (PEM, not encrypted) of `tls_certificate`.")
    tls_client_ca: Path | None = Field(
        default=None, description="Authorities (PEM) of client certificates; if set, callers must present one."
    )
    bundle_public_keys: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Ed25519 public keys (PEM files); if set, only bundles signed by one of them load."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Web origins whose pages may call, as `https://example.org`; empty means none."
    )
    docs_page: bool = Field(
        default=True, description="Whether `/docs` and `/openapi.json` are available, and `/`, without a key."
    )

    console: bool = Field(
        default=True, description="Whether the page `/console` is available; its files need no key, its calls do."
    )
    timeline_windows: int = Field(
        default=2000, ge=0, description="Windows of one recording that `/v1/timeline` judges, at most; 0 turns it off."
    )
    show_inputs: bool = Field(
        default=True, description="Whether `/v1/inputs` shows callers what the encoders would see of their recording."
    )

    @field_validator("models", "bundle_public_keys", "cors_origins", "media_url_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _lines(cls, value: object) -> object:
        return [line.strip() for line in value.split(";") if line.strip()] if isinstance(value, str) else value

    @field_validator("media_url_hosts")
    @classmethod
    def _normal_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(parse_origin(text)) for text in value)

    @field_validator("media_url_buckets", mode="before")
    @classmethod
    def _buckets(cls, value: object) -> object:
        return buckets_of(value)

    @field_validator("deadlines_ms", "shadows", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return pairs_of(value, ",", "=")

    @field_validator("splits", mode="before")
    @classmethod
    def _pairs_of_pairs(cls, value: object) -> object:
        named = pairs_of(value, ",", "=")
        return (
            {name: pairs_of(shares, "/", ":") for name, shares in named.items()} if isinstance(named, dict) else value
        )

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, value: str) -> str:
        if not re.fullmatch(DEVICE_PATTERN, value):
            raise ValueError(
                f"must be auto, cpu, cuda, cuda:N, tensorrt or tensorrt:N, N a GPU's number; got {value!r}"
            )
        return value

    @field_validator("engine")
    @classmethod
    def _not_watching(cls, value: str, info: ValidationInfo) -> str:
        if value == "triton" and info.data.get("watch"):
            raise ValueError("watch works with engine=local alone: before Triton load a version there first, then here")
        return value

    @field_validator("drift_minimum")
    @classmethod
    def _reachable(cls, value: int, info: ValidationInfo) -> int:
        window = info.data.get("drift_window")
        if window is not None and value > window:
            raise ValueError(f"must be at most drift_window, which is {window}")
        return value

    @property
    def drift(self) -> DriftWindow:
        """The window of rows over which drift is computed."""
        return DriftWindow(rows=self.drift_window, minimum=self.drift_minimum)

    @property
    def media_limits(self) -> MediaLimits:
        """The limits of one decode."""
        return MediaLimits(
            max_bytes=self.max_body_bytes,
            max_seconds=self.max_media_s,
            max_pixels=self.max_pixels,
            max_image_pixels=self.max_image_pixels,
            max_frames_decoded=self.max_frames,
        )


def load_settings(config: StrPath | None = None, /, **overrides: object) -> ServerSettings:
    """Load settings from the TOML file ``config``, then the environment, then ``overrides`` (flags; None: not given).

    Later sources take precedence. Raises ConfigurationError naming the setting and where it was set.
    """
    check_variables(os.environ, ENV_PREFIX, ServerSettings.model_fields)
    of_file = {} if config is None else read_settings_file(Path(config))
    for name in of_file:
        if name not in ServerSettings.model_fields:
            raise unknown_setting(name, ServerSettings.model_fields, f"{config}: ")
    variables = {name.upper() for name in os.environ}
    of_file = {name: value for name, value in of_file.items() if ENV_PREFIX + name.upper() not in variables}
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name not in ServerSettings.model_fields:
            raise unknown_setting(name, ServerSettings.model_fields)
    try:
        return ServerSettings(**{**of_file, **given})
    except ValidationError as error:
        name, fault = first_fault(error, "settings")
        setting = name.split(".")[0]
        where = f"in {config}" if setting in of_file and setting not in given else ENV_PREFIX + setting.upper()
        raise ConfigurationError(f"setting {name} ({where}): {fault}", field=name) from error
