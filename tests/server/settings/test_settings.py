"""Settings: where they come from, what is refused, and that the docs have them all."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dimml.cli import main
from dimml.errors import ConfigurationError
from dimml.recording import DECODE_SHARE
from dimml_server.security.keys import new_key
from dimml_server.settings.settings import ENV_PREFIX, ServerSettings, load_settings
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


def test_a_device_may_have_the_number_of_a_gpu() -> None:
    for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:12", "tensorrt", "tensorrt:1"):
        assert load_settings(device=device).device == device
    for device in ("cuda:", "cuda:-1", "cuda:1,2", "cpu:0", "auto:0", "gpu", "cuda:1\n", "cuda:1234"):
        with pytest.raises(ConfigurationError, match="must be auto, cpu, cuda, cuda:N, tensorrt or tensorrt:N"):
            load_settings(device=device)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no setting 'http_prot'; did you mean 'http_port'"):
        load_settings(http_prot=1)
    with pytest.raises(ConfigurationError, match="no setting 'zebra'; see docs/settings"):
        load_settings(zebra=1)


def test_an_unknown_variable_is_refused_and_others_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (
        ("DIMML_API_KEY", "dimml_x"),
        ("DIMML_SERVICE_HOST", "10.0.0.1"),
        ("DIMML_SERVICE_PORT_HTTP", "8000"),
        ("DIMML_PORT", "tcp://10.0.0.1:8000"),
        ("DIMML_GATEWAY_PORT_8001_TCP_ADDR", "10.0.0.1"),
        ("DIMMLER", "1"),
    ):
        monkeypatch.setenv(variable, value)
    load_settings()
    monkeypatch.setenv("DIMML_QUEUE_LENGHT", "3")
    with pytest.raises(ConfigurationError, match=r"DIMML_QUEUE_LENGHT.*did you mean 'queue_length'"):
        load_settings()


def test_flags_go_before_the_environment_and_that_before_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIMML_HTTP_PORT", "9000")
    monkeypatch.setenv("DIMML_GRPC_PORT", "9001")
    monkeypatch.setenv("DIMML_QUEUE_LENGTH", "3")
    file = tmp_path / "dimml.toml"
    file.write_text(
        'http_port = 9100\ngrpc_port = 9101\ndecode_workers = 3\nmodels = ["grid"]\ndeadlines_ms = { audio = 500 }\n'
    )
    settings = load_settings(file, http_port=9200)
    assert (settings.http_port, settings.grpc_port, settings.queue_length) == (9200, 9001, 3)
    assert settings.decode_workers == 3
    assert (settings.models, settings.deadlines_ms) == (("grid",), {"audio": 500.0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http_prot = 1", "dimml.toml: there is no setting 'http_prot'; did you mean 'http_port'"),
        ("[server]\nhttp_port = 1", "there is no setting 'server'"),
        ("http_port = 70000", r"setting http_port \(in .*dimml.toml\)"),
        ("http_port =", "is not TOML"),
        ("\udcff", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "dimml.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=said):
        load_settings(file)
    with pytest.raises(ConfigurationError, match="cannot read settings file"):
        load_settings(tmp_path / "none.toml")


def test_print_config_is_a_settings_file_with_secrets_masked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, key = new_key("reader")
    labels = 'quote " and \\ and \x7f and é'
    given = [f"api_keys={key.line}", "deadlines_ms=audio=500", f"triton_url={'a' * 9}:80", f"models={labels}"]
    given += ["splits=grid=1:90/2:10,ave=3:100", "shadows=grid=3"]
    command = ["serve", "--print-config", *(f"--set={pair}" for pair in given)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert secret not in printed
    assert key.digest.hex() not in printed
    parsed = tomllib.loads(printed)
    assert parsed["api_keys"] == ["***"]
    assert parsed["models"] == [labels]
    (tmp_path / "printed.toml").write_text(printed)
    again = load_settings(tmp_path / "printed.toml", api_keys=key.line)
    assert again == load_settings(**dict(pair.split("=", 1) for pair in given))
    for name in ServerSettings.model_fields:
        assert f"\n{name} = " in printed or f"\n# {name} =\n" in printed


def test_by_default_decoding_ends_before_its_share_of_a_requests_time() -> None:
    settings = load_settings()
    assert settings.decode_timeout_s < 0.9 * DECODE_SHARE * settings.timeout_s


def test_limits_of_media_follow_the_settings() -> None:
    limits = load_settings(
        max_body_bytes=4096, max_media_s=7.0, max_pixels=100, max_image_pixels=400, max_frames=9
    ).media_limits
    assert (limits.max_bytes, limits.max_seconds, limits.max_pixels, limits.max_frames_decoded) == (4096, 7.0, 100, 9)
    assert limits.max_image_pixels == 400


def test_every_setting_stands_in_the_docs_with_its_variable_and_description() -> None:
    page = (REPOSITORY_ROOT / "docs" / "settings.md").read_text()
    for name, field in ServerSettings.model_fields.items():
        line = next((line for line in page.splitlines() if line.startswith(f"| `{name}` ")), None)
        assert line is not None, f"docs/settings.md lacks {name}"
        assert f"`{ENV_PREFIX}{name.upper()}`" in line
        assert str(field.description) in line.replace("\\|", "|"), f"docs/settings.md describes {name} otherwise"
    documented = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert documented == set(ServerSettings.model_fields), "docs/settings.md names settings that are not there"
