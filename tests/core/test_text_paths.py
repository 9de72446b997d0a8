"""Functions that take a path take it as text too, with the same result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimml.bundle import file_sha256, read_bundle
from dimml.media import DecodeRequest, decode
from dimml.media.decoders.windows import WindowPlan, decode_windows
from dimml.media.workers.pool import DecodePool
from dimml.repository import bundle_names, bundle_versions, load_bundle, only_bundle, versions
from dimml.signing import generate_keys, read_private_key, read_public_keys, sign
from dimml_server.settings.settings import load_settings
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


READERS: dict[str, Callable[[Any], Any]] = {
    "versions": lambda path: versions(path, "tiny"),
    "bundle_versions": lambda path: bundle_versions(path, "tiny"),
    "bundle_names": bundle_names,
    "only_bundle": only_bundle,
    "load_bundle": lambda path: load_bundle(path, "tiny"),
    "model_file": lambda path: load_bundle(path, "tiny").model_file(path, "tiny_fusion"),
    "verify": lambda path: load_bundle(path, "tiny").verify(path),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_repository(repository: Path, reader: str) -> None:
    assert READERS[reader](str(repository)) == READERS[reader](repository)


def test_a_manifest_its_hash_keys_and_signature(repository: Path, tmp_path: Path) -> None:
    manifest = repository / "tiny" / "1" / "bundle.json"
    private, public = str(tmp_path / "maker.key"), str(tmp_path / "maker.pub")
    generate_keys(private, public)
    assert Path(private).stat().st_mode & 0o777 == 0o600
    signature = sign(str(manifest), read_private_key(private))
    try:
        signers = read_public_keys([public])
        assert signers is not None
        signers.check(manifest.read_bytes(), str(manifest))
        assert read_bundle(str(manifest), signers=signers) == read_bundle(manifest)
    finally:
        signature.unlink()
    assert file_sha256(str(manifest)) == file_sha256(manifest)


def test_a_settings_file(tmp_path: Path) -> None:
    (tmp_path / "dimml.toml").write_text("http_port = 1234\n")
    assert load_settings(str(tmp_path / "dimml.toml")).http_port == 1234


def test_a_recording_here_in_windows_and_in_a_worker(repository: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(tiny_clip(tmp_path, 1))
    bundle = load_bundle(repository, "tiny")

    def request(source: Any) -> DecodeRequest:
        return DecodeRequest(bundle.modalities, {one.name: source for one in bundle.modalities}, bundle.clip_s)

    expected = decode(request(clip))
    found = [decode(request(str(clip))), next(decode_windows(request(str(clip)), WindowPlan(9.0, 9.0))).decoded]
    with DecodePool(1, readable=[str(tmp_path)]) as pool:
        found.append(asyncio.run(pool.decode(request(str(clip)), timeout_s=20.0)))
    for one in found:
        assert one.tracks.keys() == expected.tracks.keys()
        for name, track in one.tracks.items():
            assert track.status.ok
            np.testing.assert_array_equal(track.row, expected.tracks[name].row)
