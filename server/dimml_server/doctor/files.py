"""Checks of what the settings name: repository and signatures, keys, certificates, ports, Triton."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dimml.errors import DimmlError
from dimml.media.decoders.version import DECODER_VERSION
from dimml.signing import read_public_keys
from dimml_server.doctor.finding import Finding, Level
from dimml_server.process.listeners import bind, is_loopback
from dimml_server.security.bundle_verdicts import verdicts_of
from dimml_server.security.guard import Guard
from dimml_server.security.tls import server_tls
from dimml_server.settings.settings import ServerSettings

#: A certificate that expires within this time is reported.
_SOON: Final = timedelta(days=14)
_CONNECT_S: Final = 3.0


def settings_findings(settings: ServerSettings) -> Iterator[Finding]:
    """Run all checks of what the settings name, in order."""
    yield from _repository(settings)
    yield _keys(settings)
    yield from _tls(settings)
    yield from _media_urls(settings)
    yield _port(settings, "http_port", settings.http_port)
    yield _port(settings, "grpc_port", settings.grpc_port)
    if settings.http_port == settings.grpc_port != 0:
        yield Finding("ports", "mend", f"http_port and grpc_port are both {settings.http_port}", "set one of them")
    if settings.engine == "triton":
        yield _triton(settings)


def _repository(settings: ServerSettings) -> Iterator[Finding]:
    try:
        signers = read_public_keys(settings.bundle_public_keys)
        verdicts = verdicts_of(settings.repository, signers)
        for name in settings.models:
            if name not in {verdict.bundle for verdict in verdicts}:
                yield Finding("repository", "mend", f"no bundle {name!r} in {settings.repository}", "see `models`")
    except DimmlError as error:
        empty_will_do = settings.model_control == "explicit" and settings.repository.is_dir()
        level: Level = "note" if empty_will_do and "holds no bundle" in error.message else "mend"
        yield Finding("repository", level, error.message, "see the settings repository and bundle_public_keys")
        return
    for verdict in verdicts:
        what = f"{verdict.bundle} version {verdict.version}"
        if verdict.problem:
            yield Finding("repository", "mend", f"{what}: {verdict.problem}", "export it again, restore or sign it")
        else:
            signed = "signature good" if verdict.signed else "signatures are not asked for"
            yield Finding("repository", "ok", f"{what}: {verdict.files} files as exported, {signed}")
        if verdict.decoder_version not in (None, DECODER_VERSION):
            yield Finding(
                "decoder",
                "note",
                f"{what} was trained on clips of decoder version {verdict.decoder_version}, and this server has "
                f"version {DECODER_VERSION}: its rows differ a little",
                "train it again and export it, or serve it with the dimml that trained it",
            )


def _keys(settings: ServerSettings) -> Finding:
    try:
        guard = Guard(settings)
    except DimmlError as error:
        return Finding("keys", "mend", error.message)
    if guard.closed:
        path = settings.api_keys_file
        if path is not None and path.stat().st_mode & 0o022:
            return Finding("keys", "mend", f"others may write to {path}, and so come in", f"chmod go-w {path}")
        return Finding("keys", "ok", "calls need an API key")
    if is_loopback(settings.host) or settings.tls_client_ca:
        return Finding("keys", "ok", f"no API keys; {settings.host} is reached by this machine or by certificate alone")
    found = f"everybody who reaches {settings.host} may send requests"
    return Finding("keys", "note", found, "`dimml keys new NAME`, and api_keys_file")


def _tls(settings: ServerSettings) -> Iterator[Finding]:
    try:
        tls = server_tls(settings)
        if tls is None:
            if not is_loopback(settings.host):
                yield Finding("TLS", "note", "no TLS: keys and recordings travel in clear", "tls_certificate, tls_key")
            return
        tls.context()
    except DimmlError as error:
        yield Finding("TLS", "mend", error.message)
        return
    if tls.key.stat().st_mode & 0o077:
        yield Finding("TLS", "note", f"others may read {tls.key}", f"chmod go= {tls.key}")
    for path in filter(None, (tls.certificate, tls.client_ca)):
        yield _dates(path)


def _media_urls(settings: ServerSettings) -> Iterator[Finding]:
    check, buckets = "media_url", settings.media_url_buckets
    if not settings.media_url_hosts and not buckets:
        return
    places = [*settings.media_url_hosts, *(f"s3://{name}" for name in buckets)]
    yield Finding(check, "ok", f"recordings may be fetched from {', '.join(places)}")
    for name, bucket in buckets.items():
        try:
            bucket.secret()
        except DimmlError as error:
            yield Finding(check, "mend", f"bucket {name}: {error.message}")
            continue
        file = bucket.secret_key_file
        if file is not None and file.stat().st_mode & 0o077:
            yield Finding(check, "note", f"others may read {file}", f"chmod go= {file}")
    if settings.media_url_allow_private:
        found = "those hosts may lead to this machine and its own network (media_url_allow_private), which is for tests"
        yield Finding(
            check,
            "note",
            found,
            "unset media_url_allow_private; a bucket of a private network has `private` of its own",
        )


def _dates(path: Path) -> Finding:
    from cryptography import x509

    now = datetime.now(UTC)
    certificates = x509.load_pem_x509_certificates(path.read_bytes())
    begin = max(certificate.not_valid_before_utc for certificate in certificates)
    end = min(certificate.not_valid_after_utc for certificate in certificates)
    if begin > now:
        return Finding("TLS", "mend", f"{path} is not valid before {begin:%Y-%m-%d %H:%M} UTC", "mend the clock or it")
    if end <= now:
        return Finding("TLS", "mend", f"{path} ended on {end:%Y-%m-%d %H:%M} UTC", "renew it")
    level: Level = "note" if end - now < _SOON else "ok"
    return Finding("TLS", level, f"{path} is valid until {end:%Y-%m-%d}", "renew it soon" if level == "note" else "")


def _port(settings: ServerSettings, setting: str, port: int) -> Finding:
    try:
        bind(settings.host, port, setting).close()
    except DimmlError as error:
        return Finding(setting, "mend", error.message)
    return Finding(setting, "ok", f"port {port or '(any free one)'} on {settings.host} can be had")


def _triton(settings: ServerSettings) -> Finding:
    host, _, port = settings.triton_url.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        found = f"nobody answers at {settings.triton_url}: {error.strerror or error}"
        return Finding("Triton", "note", found, "start it; the gateway serves 503 until it is there")
    return Finding("Triton", "ok", f"{settings.triton_url} takes connections")
