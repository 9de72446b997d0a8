"""API keys: how they are made, stored, read and compared."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path

import pytest

from dimml.cli import main
from dimml.errors import ConfigurationError, PermissionDeniedError, QueueFullError, UnauthenticatedError
from dimml_server.security.guard import Guard, presented_key
from dimml_server.security.keys import KeyRing, new_key, read_keys
from dimml_server.settings.settings import load_settings


def test_a_new_key_has_256_random_bits_and_only_its_sha256_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "reader", "--admin", "--concurrent", "3", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert len(base64.urlsafe_b64decode(made["key"].removeprefix("dimml_") + "=")) == 32
    digest = hashlib.sha256(made["key"].encode()).hexdigest()
    assert made["line"] == f"reader {digest} admin concurrent=3"
    assert main(["keys", "new", "reader"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  dimml_[\w-]{43}$", shown, re.MULTILINE)
    assert made["key"] not in shown, "two keys are the same"


@pytest.mark.parametrize("name", ["", "two words", "-x", "a" * 65, "a;b", "a#b"])
def test_a_name_that_would_not_survive_its_line_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="key name"):
        new_key(name)


def test_every_stored_digest_is_compared_wherever_the_key_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [new_key(f"key{number}") for number in range(5)]
    ring = KeyRing(key for _, key in made)
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def counting(shown: bytes, stored: bytes) -> bool:
        compared.append((shown, stored))
        return real(shown, stored)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for secret in (made[0][0], made[2][0], made[4][0], "dimml_wrong", ""):
        compared.clear()
        found = ring.find(secret)
        assert (found.name if found else None) == next((key.name for own, key in made if own == secret), None)
        assert compared == [(hashlib.sha256(secret.encode()).digest(), key.digest) for _, key in made]


def test_a_key_that_is_not_text_is_only_wrong() -> None:
    assert KeyRing([new_key("reader")[1]]).find("\udcff\N{SNOWMAN}") is None


def test_keys_of_a_file_and_of_the_environment_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reader, stored), (ops, admin), (third, more) = (
        new_key("reader"),
        new_key("ops", admin=True, concurrent=2),
        new_key("third"),
    )
    file = tmp_path / "keys"
    file.write_text(f"# who may come in\n\n{stored.line}  # the nightly job\n{admin.line}\n")
    monkeypatch.setenv("DIMML_API_KEYS", f"{more.line};")
    settings = load_settings(api_keys_file=file)
    ring = read_keys(settings.api_keys_file, settings.api_keys)
    assert [ring.find(secret) for secret in (reader, ops, third)] == [stored, admin, more]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("reader\n", "line 1: write it as NAME SHA256"),
        ("\nreader abc\n", "line 2: the SHA-256 must be 64"),
        ("reader {digest} root\n", "neither admin nor concurrent"),
        ("reader {digest} concurrent=0\n", "neither admin nor concurrent"),
        ("reader {digest}\nreader {other}\n", "line 2: key 'reader' stands there twice"),
        ("reader {digest}\nwriter {digest}\n", "'writer' is the same key as 'reader'"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_not_quoted(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys"
    digest, other = "a1" * 32, "b2" * 32
    file.write_text(text.format(digest=digest, other=other))
    with pytest.raises(ConfigurationError, match=re.escape(said)) as raised:
        read_keys(file, ())
    assert digest not in raised.value.message
    assert str(file) in raised.value.message


def test_a_key_stored_as_itself_is_refused_without_showing_it(tmp_path: Path) -> None:
    secret, _ = new_key("reader")
    (tmp_path / "keys").write_text(f"reader {secret}\n")
    with pytest.raises(ConfigurationError, match="this is the key itself") as raised:
        read_keys(tmp_path / "keys", ())
    assert secret not in raised.value.message


def test_a_keys_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        Guard(load_settings(api_keys_file=tmp_path / "keys"))


def test_a_reload_that_fails_keeps_the_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (reader, stored), (later, added) = new_key("reader"), new_key("later")
    file = tmp_path / "keys"
    file.write_text(stored.line)
    guard = Guard(load_settings(api_keys_file=file))
    for broken in ("", "nonsense"):
        file.write_text(broken)
        guard.reload()
        assert guard.identify(reader) == stored
    file.unlink()
    guard.reload()
    assert guard.closed
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 3
    file.write_text(added.line)
    guard.reload()
    assert guard.identify(later) == added
    with pytest.raises(UnauthenticatedError):
        guard.identify(reader)


def test_an_admin_call_needs_an_admin_key() -> None:
    (reader, stored), (ops, admin) = new_key("reader"), new_key("ops", admin=True)
    guard = Guard(load_settings(api_keys=[stored.line, admin.line]))
    assert guard.identify(ops, admin=True) == admin
    with pytest.raises(PermissionDeniedError):
        guard.identify(reader, admin=True)
    with pytest.raises(UnauthenticatedError):
        guard.identify(None, admin=True)


def test_places_are_counted_by_key_and_given_back() -> None:
    (_, narrow), (_, wide) = new_key("narrow", concurrent=1), new_key("wide")
    guard = Guard(load_settings(api_keys=[narrow.line, wide.line], key_concurrency=2))
    with guard.place(narrow), guard.place(wide), guard.place(wide):
        for key in (narrow, wide):
            with pytest.raises(QueueFullError), guard.place(key):
                pass
    with pytest.raises(RuntimeError, match="of the request"), guard.place(narrow):
        raise RuntimeError("of the request")
    with guard.place(narrow):
        pass


def test_where_a_key_is_looked_for() -> None:
    assert presented_key(None, "Bearer abc ") == presented_key(None, "bearer abc") == "abc"
    assert presented_key("abc", "Bearer other") == presented_key("abc", "Basic dXNlcg==") == "abc"
    assert presented_key(None, "Basic dXNlcg==") is None
    assert presented_key(None, None) is None
