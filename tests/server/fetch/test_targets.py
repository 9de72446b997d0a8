"""What ``media_url`` may name, as the settings allow it, and where a redirect may lead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dimml.errors import ConfigurationError, InvalidParameterError
from dimml_server.fetch.targets import Targets
from dimml_server.settings.settings import load_settings
from dimml_server.settings.sources import as_toml

HOSTS = ("media.example", "media.example:8443", "1.1.1.1", "[2606:4700::1111]:444", "bücher.example")
BUCKET = {"endpoint": "https://s3.example:9000/", "access_key": "id", "secret_key": "hush-hush"}


@pytest.fixture(scope="module")
def targets() -> Targets:
    settings = load_settings(media_url_hosts=",".join(HOSTS), media_url_buckets=json.dumps({"clips": BUCKET}))
    return Targets(settings.media_url_hosts, settings.media_url_buckets)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://media.example/a.mp4", "https://media.example/a.mp4"),
        ("HTTPS://MEDIA.example./A.mp4", "https://media.example/A.mp4"),
        ("https://media.example", "https://media.example/"),
        ("https://media.example?a=b", "https://media.example/?a=b"),
        ("https://media.example:443/a", "https://media.example/a"),
        ("https://media.example:/a", "https://media.example/a"),
        ("https://media.example:8443/a", "https://media.example:8443/a"),
        # A signature is of the very spelling: nothing is unquoted, quoted or sorted.
        (
            "https://media.example/a%7Eb%2f%2F/../c?z=%2b+&a=;&X-Amz-Signature=0f",
            "https://media.example/a%7Eb%2f%2F/../c?z=%2b+&a=;&X-Amz-Signature=0f",
        ),
        ("https://media.example/a?b#fragment?c", "https://media.example/a?b"),
        ("https://1.1.1.1/a", "https://1.1.1.1/a"),
        ("https://[2606:4700:0::1111]:444/a", "https://[2606:4700::1111]:444/a"),
        ("https://BÜCHER.example/a", "https://xn--bcher-kva.example/a"),
        ("https://xn--bcher-kva.example/a", "https://xn--bcher-kva.example/a"),
        # A key of S3 is literal, and encoded as S3 signs it: all but RFC 3986's unreserved characters and slashes.
        ("s3://clips/a/b.mp4", "https://s3.example:9000/clips/a/b.mp4"),
        ("S3://clips//a b?c#d%20é~", "https://s3.example:9000/clips//a%20b%3Fc%23d%2520%C3%A9~"),
    ],
)
def test_what_is_allowed_is_asked_as_it_was_written(targets: Targets, text: str, url: str) -> None:
    assert targets.parse(text).url == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://media.example/a", "must begin with https:// or s3://"),
        ("ftp://media.example/a", "must begin with https"),
        ("file:///etc/hostname", "must begin with https"),
        ("https:media.example", "must begin with https"),
        ("//media.example/a", "must begin with https"),
        ("media.example/a", "must begin with https"),
        (" https://media.example/a", "must begin with https"),
        ("data:,x", "must begin with https"),
        ("https://user@media.example/a", "no user or password"),
        ("https://user:password@media.example/a", "no user or password"),
        ("https://media.example@other.example/a", "no user or password"),
        ("https://@media.example/a", "no user or password"),
        ("https://media.example\\@other.example/a", "backslash"),
        ("https://media.example/a b", "a space"),
        ("https://media.example/a\r\nHost: other.example", "control character"),
        ("https://media.example/\x00", "control character"),
        ("https://media.example/é", "not ASCII"),
        ("https:///a", "no host name"),
        ("https://media.example:port/a", "no port"),
        ("https://media.example:0/a", "no port"),
        ("https://media.example:65536/a", "no port"),
        ("https://media.example:8_443/a", "no port"),
        ("https://media.example:٤٤٣/a", "no port"),
        ("https://[::1/a", "no IPv6 address"),
        ("https://[fe80::1%25eth0]/a", "no IPv6 address"),
        ("https://[::1]x/a", "no IPv6 address"),
        ("https://media.exam%70le/a", "no host name"),
        ("https://media_.example..x/a", "no host name"),
        # Old forms of 127.0.0.1, which getaddrinfo would read.
        ("https://2130706433/a", "no IPv4 address"),
        ("https://127.1/a", "no IPv4 address"),
        ("https://0x7f.0.0.1/a", "no IPv4 address"),
        ("https://0177.0.0.1/a", "no IPv4 address"),
        ("https://other.example/a", "fetches nothing from 'other.example'"),
        ("https://sub.media.example/a", "fetches nothing from"),
        ("https://media.example.other.example/a", "fetches nothing from"),
        ("https://media.example:444/a", "fetches nothing from 'media.example:444'"),
        ("https://[2606:4700::1111]/a", "fetches nothing from"),
        ("https://[::ffff:1.1.1.1]/a", "fetches nothing from"),
        ("s3://others/a", "reads no bucket 'others'"),
        ("s3://clips", "must be s3://BUCKET/KEY"),
        ("s3://clips/", "must be s3://BUCKET/KEY"),
        ("s3://clips/../others/a", "must be s3://BUCKET/KEY"),
        ("s3://clips/a/./b", "must be s3://BUCKET/KEY"),
        ("s3://clips/a\nb", "must be s3://BUCKET/KEY"),
        ("s3://user@clips/a", "reads no bucket"),
    ],
)
def test_anything_else_is_refused_by_what_is_wrong_with_it(targets: Targets, text: str, said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said) as raised:
        targets.parse(text)
    assert raised.value.field == "media_url"
    assert raised.value.message.startswith("media_url: ")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b?c", "https://media.example:8443/b?c"),
        ("b", "https://media.example:8443/x/b"),
        ("//media.example/b", "https://media.example/b"),
        ("https://1.1.1.1/b#c", "https://1.1.1.1/b"),
        ("http://media.example:8443/b", None),
        ("https://other.example/b", None),
        ("https://media.example:444/b", None),
        ("https://user@media.example/b", None),
        ("s3://clips/b", None),
        ("file:///b", None),
        ("//other.example/b", None),
        ("\\\\other.example/b", None),
        ("/b c", None),
        ("https://me\ndia.example/", None),
    ],
)
def test_a_redirect_leads_where_a_caller_might_have_asked(targets: Targets, location: str, url: str | None) -> None:
    first = targets.parse("https://media.example:8443/x/a")
    if url is None:
        with pytest.raises(InvalidParameterError):
            targets.redirected(first, location)
    else:
        assert targets.redirected(first, location).url == url


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"media_url_hosts": "https://media.example"}, "media_url_hosts"),
        ({"media_url_hosts": "media.example/a"}, "no host name"),
        ({"media_url_hosts": "*.example"}, "no host name"),
        ({"media_url_hosts": "::1"}, "no host name"),
        ({"media_url_hosts": "127.1"}, "no IPv4 address"),
        ({"media_url_buckets": "clips"}, "is not JSON"),
        ({"media_url_buckets": json.dumps({"UP": BUCKET})}, "match pattern"),
        ({"media_url_buckets": json.dumps({"clips": BUCKET | {"endpoint": "http://s3.example"}})}, "begin with https"),
        ({"media_url_buckets": json.dumps({"clips": BUCKET | {"endpoint": "https://s3.example/x"}})}, "no host name"),
        ({"media_url_buckets": json.dumps({"clips": BUCKET | {"key": "x"}})}, "clips.key"),
        ({"media_url_buckets": json.dumps({"clips": BUCKET | {"secret_key_file": "x"}})}, "one of them"),
        ({"media_url_fetches": 0}, "media_url_fetches"),
    ],
)
def test_a_wrong_setting_is_named_and_its_secret_is_not(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_settings(**settings)
    assert "hush-hush" not in raised.value.message


def test_buckets_come_from_a_file_or_a_variable_and_are_printed_without_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush-hush\n")
    (tmp_path / "dimml.toml").write_text(
        f'media_url_hosts = ["Media.Example:443"]\n[media_url_buckets.clips]\nendpoint = "https://s3.example"\n'
        f'access_key = "id"\nsecret_key_file = "{secret}"\n'
    )
    of_file = load_settings(tmp_path / "dimml.toml")
    assert of_file.media_url_hosts == ("media.example",)
    assert of_file.media_url_buckets["clips"].secret() == "hush-hush"
    (tmp_path / "again.toml").write_text(as_toml(of_file, ()))
    assert load_settings(tmp_path / "again.toml") == of_file
    monkeypatch.setenv("DIMML_MEDIA_URL_BUCKETS", json.dumps({"clips": BUCKET}))
    of_variable = load_settings()
    assert of_variable.media_url_buckets["clips"].secret() == "hush-hush"
    assert "hush-hush" not in as_toml(of_variable, ())
    assert "hush-hush" not in repr(of_variable)
    for text, said in (("", "holds no key"), ("\xe9", "it is no key"), (None, "No such file")):
        secret.unlink(missing_ok=True)
        if text is not None:
            secret.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match=said):
            of_file.media_url_buckets["clips"].secret()
