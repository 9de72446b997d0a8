"""TLS and mutual TLS over both protocols: who is let in, and what a client says of a certificate it refuses."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from dimml.cli import main
from dimml.errors import ConfigurationError, UnavailableError
from dimml_client import Client
from dimml_client.models.repository_client import model_server
from dimml_client.transport.credentials import checked_credentials
from dimml_server.security.tls import server_tls
from dimml_server.settings.settings import load_settings
from support.certificates import Authority, Pair
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip

TRANSPORTS = ("https", "grpcs")


@dataclass
class House:
    """An authority, another that nobody trusts, a repository and a clip."""

    authority: Authority
    stranger: Authority
    folder: Path
    clip: bytes

    def serve(self, own: Pair, **settings: object) -> Any:
        tls = {"tls_certificate": str(own.certificate), "tls_key": str(own.key), "decode_workers": 1}
        return running_server(self.folder / "models", **tls, **settings)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    folder = tmp_path_factory.mktemp("tls")
    make_tiny_bundle(folder / "models")
    return House(Authority(folder), Authority(folder, "stranger"), folder, tiny_clip(folder, 1))


@pytest.fixture(scope="module")
def plain(house: House) -> Iterator[ServerProcess]:
    with house.serve(house.authority.sign("server")) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(house: House) -> Iterator[ServerProcess]:
    with house.serve(house.authority.sign("mutual"), tls_client_ca=str(house.authority.ca)) as server:
        yield server


def url_of(server: ServerProcess, scheme: str) -> str:
    return f"{scheme}://{server.http if scheme.startswith('http') else server.grpc}"


def refusal(house: House, url: str, **shown: Any) -> str:
    """What a client says that gets no connection; short, and without the library's own words."""
    with Client(url, retries=0, **shown) as client:
        with pytest.raises(UnavailableError) as raised:
            client.predict(house.clip)
        assert not client.ready()
    said = raised.value.message
    assert len(said) < 300
    for word in ("ssl.c", "SSL_ERROR", "OPENSSL", "ipv4:", "Traceback"):
        assert word not in said
    return said


@pytest.mark.parametrize("scheme", TRANSPORTS)
def test_a_client_that_trusts_the_authority_is_answered(house: House, plain: ServerProcess, scheme: str) -> None:
    with Client(url_of(plain, scheme), ca=house.authority.ca) as client:
        assert client.ready()
        assert client.predict(house.clip).label == "green"
    server = model_server(url_of(plain, scheme), checked_credentials(ca=house.authority.ca), timeout_s=30.0)
    assert server.server_name() == "dimml"
    server.close()


@pytest.mark.parametrize("scheme", TRANSPORTS)
def test_ssl_cert_file_is_trusted_where_no_authority_is_given(
    house: House, plain: ServerProcess, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(house.authority.ca))
    with Client(url_of(plain, scheme)) as client:
        assert client.predict(house.clip).label == "green"


@pytest.mark.parametrize("scheme", TRANSPORTS)
def test_a_client_refuses_a_server_it_has_no_reason_to_trust(house: House, plain: ServerProcess, scheme: str) -> None:
    for shown in ({}, {"ca": house.stranger.ca}):
        assert "not from a trusted authority" in refusal(house, url_of(plain, scheme), **shown)
    without_tls = url_of(plain, scheme.removesuffix("s"))
    assert "it may want TLS" in refusal(house, without_tls)


@pytest.mark.parametrize("scheme", TRANSPORTS)
def test_an_expired_or_foreign_server_certificate_is_refused(house: House, scheme: str) -> None:
    with house.serve(house.authority.sign("old", valid=-timedelta(days=1))) as server:
        assert "has expired" in refusal(house, url_of(server, scheme), ca=house.authority.ca)
    with house.serve(house.authority.sign("elsewhere", address="127.0.0.9")) as server:
        assert "is for another" in refusal(house, url_of(server, scheme), ca=house.authority.ca)


@pytest.mark.parametrize("scheme", TRANSPORTS)
def test_with_mutual_tls_only_clients_of_the_authority_come_in(
    house: House, mutual: ServerProcess, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = url_of(mutual, scheme)
    good = house.authority.sign("client")
    with Client(url, ca=house.authority.ca, certificate=good.certificate, certificate_key=good.key) as client:
        assert client.predict(house.clip).label == "green"
    (house.folder / "clip.mp4").write_bytes(house.clip)
    command = ["predict", str(house.folder / "clip.mp4"), "--url", url, "--ca", str(house.authority.ca)]
    assert main([*command, "--certificate", str(good.certificate), "--certificate-key", str(good.key)]) == 0
    assert main(command) == 1
    capsys.readouterr()
    refused = [
        {},
        *(
            {"certificate": pair.certificate, "certificate_key": pair.key}
            for pair in (
                house.stranger.sign("foreign"),
                house.authority.sign("expired", valid=-timedelta(days=1)),
            )
        ),
    ]
    for shown in refused:
        assert "client certificate" in refusal(house, url, ca=house.authority.ca, **shown)


def test_no_version_of_tls_before_1_2_is_spoken(house: House, plain: ServerProcess) -> None:
    def answered(version: ssl.TLSVersion) -> bool:
        context = ssl.create_default_context(cafile=house.authority.ca)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        try:
            return httpx.get(f"https://{plain.http}/health/live", verify=context).status_code == 200
        except httpx.TransportError:
            return False

    assert answered(ssl.TLSVersion.TLSv1_2)
    assert answered(ssl.TLSVersion.TLSv1_3)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        assert not answered(ssl.TLSVersion.TLSv1_1)
    tls = server_tls(load_settings(tls_certificate=house.folder / "server.crt", tls_key=house.folder / "server.key"))
    assert tls is not None
    assert tls.context().minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"tls_certificate": "server.crt"}, "tls_key is not set"),
        ({"tls_key": "server.key"}, "tls_certificate is not set"),
        ({"tls_client_ca": "authority.pem"}, "tls_client_ca needs a tls_certificate"),
        ({"tls_certificate": "none.crt", "tls_key": "server.key"}, "tls_certificate: .*none.crt: No such file"),
        ({"tls_certificate": "server.crt", "tls_key": "other.key"}, "the key is another certificate's"),
        ({"tls_certificate": "server.key", "tls_key": "server.crt"}, "not a certificate and its private key"),
        (
            {"tls_certificate": "server.crt", "tls_key": "server.key", "tls_client_ca": "server.key"},
            "tls_client_ca: .* holds no certificates",
        ),
    ],
)
def test_files_that_do_not_do_stop_the_start(house: House, files: dict[str, str], said: str) -> None:
    house.authority.sign("server")
    house.authority.sign("other")
    settings = load_settings(**{name: house.folder / file for name, file in files.items()})
    with pytest.raises(ConfigurationError, match=said):
        server_tls(settings).context()  # type: ignore[union-attr]  # None is no ConfigurationError either


def test_a_clients_own_files_are_named_where_they_do_not_do(house: House, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    pair = house.authority.sign("own")
    for scheme in TRANSPORTS:
        for shown, said in (
            ({"ca": tmp_path / "no.pem"}, "no certificates in PEM"),
            ({"ca": tmp_path / "none.pem"}, "no certificates in PEM"),
            ({"certificate": pair.certificate}, "go together"),
            ({"certificate": pair.certificate, "certificate_key": tmp_path / "no.pem"}, "no certificate and key"),
        ):
            with pytest.raises(ConfigurationError, match=said):
                Client(f"{scheme}://127.0.0.1:1", **shown)
