"""Settings: where they come from, what is refused, and that the docs have them all."""

from __future__ import annotations

import pytest

from dimml.errors import ConfigurationError
from dimml.recording import DECODE_SHARE
from dimml_server.settings import ENV_PREFIX, ServerSettings, load_settings
from support.data import REPOSITORY_ROOT


def test_flags_go_before_the_environment_and_that_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMML_HTTP_PORT", "9000")
    monkeypatch.setenv("DIMML_QUEUE_LENGTH", "3")
    monkeypatch.setenv("DIMML_MODELS", "grid, avdigits")
    monkeypatch.setenv("DIMML_DEADLINES_MS", "audio=500,visual=800.5")
    settings = load_settings(http_port=9100, grpc_port=None)
    assert (settings.http_port, settings.grpc_port, settings.queue_length) == (9100, 8001, 3)
    assert settings.models == ("grid", "avdigits")
    assert settings.deadlines_ms == {"audio": 500.0, "visual": 800.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [("http_port", 70_000), ("concurrency", 0), ("deadlines_ms", "audio=-1"), ("device", "abacus"), ("grace_s", "nan")],
)
def test_a_bad_value_is_named_with_its_variable(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}.*{ENV_PREFIX}{name.upper()}"):
        load_settings(**{name: value})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no setting 'http_prot'"):
        load_settings(http_prot=1)


def test_by_default_decoding_ends_before_its_share_of_a_requests_time() -> None:
    settings = load_settings()
    assert settings.decode_timeout_s < 0.9 * DECODE_SHARE * settings.timeout_s


def test_limits_of_media_follow_the_settings() -> None:
    limits = load_settings(max_body_bytes=4096, max_media_s=7.0, max_pixels=100, max_frames=9).media_limits
    assert (limits.max_bytes, limits.max_seconds, limits.max_pixels, limits.max_frames_decoded) == (4096, 7.0, 100, 9)


def test_every_setting_stands_in_the_docs_with_its_variable_and_description() -> None:
    page = (REPOSITORY_ROOT / "docs" / "settings.md").read_text()
    for name, field in ServerSettings.model_fields.items():
        line = next((line for line in page.splitlines() if line.startswith(f"| `{name}` ")), None)
        assert line is not None, f"docs/settings.md lacks {name}"
        assert f"`{ENV_PREFIX}{name.upper()}`" in line
        assert str(field.description) in line.replace("\\|", "|"), f"docs/settings.md describes {name} otherwise"
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert documented == set(ServerSettings.model_fields), "docs/settings.md names settings that are not there"
