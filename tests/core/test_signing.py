"""Signatures of bundles, held against openssl, and what a changed or unsigned bundle is told."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dimml.bundle import MANIFEST_NAME
from dimml.cli import main
from dimml.errors import BundleError, ConfigurationError
from dimml.repository import load_bundle
from dimml.signing import SIGNATURE_NAME, read_public_keys
from support.data import unavailable
from support.tiny_bundle import make_tiny_bundle


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A signed bundle, and beside it the keys of its maker and of somebody else."""
    for name in ("maker", "other"):
        assert main(["bundle", "keygen", str(tmp_path / name)]) == 0
    folder = tmp_path / "models"
    make_tiny_bundle(folder)
    assert main(["bundle", "sign", "tiny", "-r", str(folder), "--key", str(tmp_path / "maker.key")]) == 0
    return folder


def load(repository: Path, *names: str, version: int | None = None) -> int:
    keys = read_public_keys([repository.parent / f"{name}.pub" for name in names])
    return load_bundle(repository, "tiny", version, signers=keys).version


def test_a_signed_bundle_loads_with_its_makers_key_and_no_other(repository: Path) -> None:
    assert load(repository, "maker") == load(repository, "other", "maker") == load(repository) == 1
    with pytest.raises(BundleError, match="fits none of the public keys"):
        load(repository, "other")


def test_openssl_accepts_the_signature(repository: Path) -> None:
    if shutil.which("openssl") is None:
        unavailable("openssl is not installed")
    folder = repository / "tiny" / "1"
    (repository.parent / "raw").write_bytes(base64.b64decode((folder / SIGNATURE_NAME).read_text()))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", "-in", str(folder / MANIFEST_NAME)]
    for name, code in (("maker", 0), ("other", 1)):
        keys = ["-inkey", str(repository.parent / f"{name}.pub"), "-sigfile", str(repository.parent / "raw")]
        assert subprocess.run([*command, *keys], capture_output=True, check=False).returncode == code


def test_a_changed_manifest_file_or_signature_is_refused(repository: Path) -> None:
    folder = repository / "tiny" / "1"
    manifest, signature = folder / MANIFEST_NAME, folder / SIGNATURE_NAME
    whole, signed = manifest.read_bytes(), signature.read_bytes()
    manifest.write_bytes(whole.replace(b'"green"', b'"amber"'))
    with pytest.raises(BundleError, match="the manifest was changed"):
        load(repository, "maker")
    manifest.write_bytes(whole)
    for broken, said in (
        (b"", "fits none"),
        (b"~" * 88, "holds no signature"),
        (base64.b64encode(bytes(64)), "fits none"),
        (signed[:40], "fits none|holds no signature"),
    ):
        signature.write_bytes(broken)
        with pytest.raises(BundleError, match=said):
            load(repository, "maker")
    signature.unlink()
    with pytest.raises(BundleError, match="is not signed"):
        load(repository, "maker")
    signature.write_bytes(signed)
    # Whoever changes a model and makes the manifest fit it has no signature for it.
    model = repository / "tiny_audio" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(BundleError, match="SHA-256 differs"):
        load(repository, "maker")
    document = json.loads(whole)
    data = model.read_bytes()
    document["files"]["tiny_audio/1/model.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest.write_text(json.dumps(document))
    assert load(repository) == 1
    with pytest.raises(BundleError, match="the manifest was changed"):
        load(repository, "maker")


def test_one_versions_signature_is_no_other_versions(repository: Path) -> None:
    make_tiny_bundle(repository)
    assert load(repository, "maker", version=1) == 1
    with pytest.raises(BundleError, match="is not signed"):
        load(repository, "maker")
    shutil.copy(repository / "tiny" / "1" / SIGNATURE_NAME, repository / "tiny" / "2" / SIGNATURE_NAME)
    with pytest.raises(BundleError, match="fits none"):
        load(repository, "maker")
    # The old version as the new one, signature and all.
    shutil.copy(repository / "tiny" / "1" / MANIFEST_NAME, repository / "tiny" / "2" / MANIFEST_NAME)
    with pytest.raises(BundleError, match="says it is 'tiny' version 1"):
        load(repository, "maker")


def test_verify_tells_of_every_version_and_fails_where_one_is_wrong(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bundle", "verify", "-r", str(repository), "--public-key", str(repository.parent / "maker.pub")]
    capsys.readouterr()
    assert main(command) == 0
    assert re.fullmatch(r"tiny version 1: \d+ files as exported, signature good\n", capsys.readouterr().out)
    make_tiny_bundle(repository)
    assert main([*command, "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["version"], first["signed"], first["problem"]) == (1, True, None)
    assert (second["version"], second["signed"]) == (2, False)
    assert "is not signed" in second["problem"]
    assert main([*command, "tiny", "--version", "1"]) == 0
    assert main(["bundle", "verify", "-r", str(repository)]) == 0
    assert "signature not checked" in capsys.readouterr().out
    assert main([*command, "huge"]) == 1
    assert "no such version of 'huge'" in capsys.readouterr().err


def test_a_broken_bundle_is_not_signed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "tiny_audio" / "1" / "model.onnx").write_bytes(b"")
    assert main(["bundle", "sign", "tiny", "-r", str(repository), "--key", str(repository.parent / "maker.key")]) == 1
    assert "SHA-256 differs" in capsys.readouterr().err


def test_keys_are_private_not_overwritten_and_named_where_they_are_none(repository: Path, tmp_path: Path) -> None:
    assert (tmp_path / "maker.key").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "maker.key").read_bytes()
    assert main(["bundle", "keygen", str(tmp_path / "maker")]) == 1
    assert (tmp_path / "maker.key").read_bytes() == before
    (tmp_path / "none.pub").write_text("nothing")
    for name, said in (("none", "holds no public key"), ("gone", "cannot read")):
        with pytest.raises(ConfigurationError, match=rf"{said}|{name}"):
            load(repository, name)
    assert main(["bundle", "sign", "tiny", "-r", str(repository), "--key", str(tmp_path / "maker.pub")]) == 1
