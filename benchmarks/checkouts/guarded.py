"""A server with API keys, load and unload by callers, CORS and small limits: what is refused, and what changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from checkouts.checkout import SAMPLES
from checkouts.http_calls import CLIP, HttpCall, form

CALLER, ADMIN = "dimml_" + "c" * 43, "dimml_" + "a" * 43
ORIGIN = "https://example.org"
_JSON = {"Content-Type": "application/json"}
_ROUTING = "/v1/models/avdigits/routing"


def settings() -> dict[str, object]:
    """Settings of the server."""
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in (("caller", CALLER), ("ops", ADMIN))}
    return {
        "api_keys": f"caller {digests['caller']};ops {digests['ops']} admin",
        "model_control": "explicit",
        "cors_origins": ORIGIN,
        "max_body_bytes": 100_000,
        "max_parts": 4,
        "docs_page": False,
    }


def _with(key: str) -> dict[str, str]:
    return {"X-API-Key": key}


def calls(folder: Path) -> Iterator[HttpCall]:
    """In this order: some change what is served, and change it back."""
    whole = {"media": (folder / SAMPLES / CLIP).read_bytes()}
    control = "/v2/repository/models/avdigits"
    for who, headers in (
        ("nobody", {}),
        ("a stranger", _with("dimml_" + "x" * 43)),
        ("a caller", _with(CALLER)),
        ("an admin", {"Authorization": f"Bearer {ADMIN}"}),
    ):
        yield form(f"by {who}", whole, headers=headers)
        for path in ("/v1/models", "/v2", "/health/live", "/v2/health/ready", "/docs", "/openapi.json", "/nowhere"):
            yield HttpCall(f"GET {path} by {who}", path, headers=headers)
        for number, body in enumerate((b'{"split": {"1": 100}}', b'{"split": {"2": 100}}', b'{"split": {"1": 40}}',
                                       b'{"shadow": 1}', b'{"colour": "red"}', b"{", b'{"split": {}}')):  # fmt: skip
            yield HttpCall(f"PATCH routing {number} by {who}", _ROUTING, "PATCH", {**_JSON, **headers}, body)
        yield HttpCall(f"unload by {who}", f"{control}/unload", "POST", {**_JSON, **headers}, b"{}")
        yield form(f"after the unload by {who}", whole, headers=_with(CALLER))
        yield HttpCall(
            f"index after the unload by {who}", "/v2/repository/index", "POST", {**_JSON, **_with(CALLER)}, b"{}"
        )
        yield HttpCall(f"load by {who}", f"{control}/load", "POST", {**_JSON, **headers}, b"{}")
        yield form(f"after the load by {who}", whole, headers=_with(CALLER))
    for model in ("nothing", "avdigits_audio"):
        for what in ("load", "unload"):
            yield HttpCall(
                f"{what} {model}", f"/v2/repository/models/{model}/{what}", "POST", {**_JSON, **_with(ADMIN)}, b"{}"
            )
    yield form("a large body", {"media": bytes(200_000)}, headers=_with(CALLER))
    yield form("five parts", {f"part{number}": b"x" for number in range(5)}, headers=_with(CALLER))
    yield form("from a page", whole, headers={"Origin": ORIGIN, **_with(CALLER)})
    for origin in (ORIGIN, "https://elsewhere.example"):
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key",
        }
        yield HttpCall(f"preflight of {origin}", "/v1/predict", "OPTIONS", asked)
