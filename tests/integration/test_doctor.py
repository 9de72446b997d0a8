"""``dimml doctor``: a sound house is told so, and each thing that is wrong is found, with exit code 1."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dimml.signing import generate_keys
from dimml_server.security.keys import new_key
from support.certificates import Authority
from support.forked import run_forked
from support.tiny_bundle import make_tiny_bundle

READER, _LINE = new_key("reader")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    make_tiny_bundle(folder / "models")
    generate_keys(folder / "maker.key", folder / "maker.pub")
    (folder / "keys").write_text(_LINE.line)
    authority = Authority(folder)
    authority.sign("server")
    authority.sign("old", valid=-timedelta(days=1))
    authority.sign("soon", valid=timedelta(days=2))
    return folder


def command(folder: Path, settings: dict[str, object]) -> list[str]:
    given = {"http_port": 0, "grpc_port": 0, "decode_workers": 1, **settings}
    options = [f"--set={name}={value}" for name, value in given.items()]
    return [sys.executable, "-m", "dimml", "doctor", "--repository", str(folder / "models"), *options]


def findings(
    folder: Path,
    before: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: object,
) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit code, and findings by check; in a process from nothing where it has another environment, or limits."""
    words = [*command(folder, settings), "--json"]
    if before is None and environment is None:
        done = run_forked(words)
    else:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
            preexec_fn=before,
        )
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["healthy"] == (done.returncode == 0)
    by_check: dict[str, list[dict[str, Any]]] = {}
    for finding in document["findings"]:
        by_check.setdefault(finding["check"], []).append(finding)
    return done.returncode, by_check


def tls(folder: Path, name: str) -> dict[str, object]:
    return {"tls_certificate": folder / f"{name}.crt", "tls_key": folder / f"{name}.key"}


def test_a_sound_house_is_told_so(folder: Path) -> None:
    code, found = findings(folder, api_keys_file=folder / "keys", **tls(folder, "server"))
    assert code == 0, found
    checks = {"host", "libraries", "device", "memory", "cores", "open files", "shared memory", "repository", "keys"}
    assert checks | {"TLS", "http_port", "grpc_port", "outbound", "environment"} == set(found)
    assert "tiny version 1" in found["repository"][0]["found"]
    assert found["keys"][0]["found"] == "calls need an API key"
    assert any(one["found"].endswith("sends nothing: ORT_DISABLE_TELEMETRY=1") for one in found["outbound"])
    text = subprocess.run(command(folder, {}), capture_output=True, text=True, timeout=60, check=True)
    assert "repository: tiny version 1" in text.stdout


def test_a_server_is_sized_by_the_cores_it_may_use_and_doctor_says_so(folder: Path) -> None:
    """By affinity here; by CPU quota in tests/core/system/test_cores.py."""

    def on_one_core() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    shared = ["--repository", str(folder / "models"), "--http-port", "0", "--grpc-port", "0", "--device", "cpu"]
    printed = subprocess.run(
        [sys.executable, "-m", "dimml", "serve", *shared, "--print-config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=on_one_core,
    )
    sizes = tomllib.loads(printed.stdout)
    assert (sizes["decode_workers"], sizes["concurrency"]) == (1, 6)
    found = subprocess.run(
        [sys.executable, "-m", "dimml", "doctor", *shared, "--model", "tiny", "--host", "127.0.0.1", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=on_one_core,
    )
    cores = next(one for one in json.loads(found.stdout)["findings"] if one["check"] == "cores")
    assert (cores["level"], cores["found"]) == (
        "ok",
        f"1 of the machine's {os.cpu_count()} may be used, by affinity and CPU quota; decode_workers is 1, "
        "concurrency 6, threads of an encoder 1 divided by encoders",
    )


def test_a_bundle_of_another_decoder_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "models", tmp_path / "models")
    manifest = tmp_path / "models" / "tiny" / "1" / "bundle.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "decoder_version": 7}))
    code, found = findings(tmp_path)
    assert code == 0, found
    assert [finding["level"] for finding in found["decoder"]] == ["note"]
    assert "tiny version 1 was trained on clips of decoder version 7" in found["decoder"][0]["found"]


def test_each_thing_that_is_wrong_must_be_mended(folder: Path, tmp_path: Path) -> None:
    loose = tmp_path / "keys"
    loose.write_text(_LINE.line)
    loose.chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, found = findings(
            folder,
            api_keys_file=loose,
            bundle_public_keys=folder / "maker.pub",
            device="tensorrt",
            http_port=taken.getsockname()[1],
            models="huge",
            **tls(folder, "old"),
        )
    assert code == 1
    for check, said in {
        "device": "TensorrtExecutionProvider",
        "repository": "is not signed",
        "keys": "others may write",
        "http_port": "is taken",
        "TLS": "ended on",
    }.items():
        wrong = [finding for finding in found[check] if finding["level"] == "mend"]
        assert any(said in finding["found"] for finding in wrong), (check, found[check])
    assert any("no bundle 'huge'" in finding["found"] for finding in found["repository"])


def test_limits_of_the_process_are_held_against_the_settings(folder: Path) -> None:
    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))

    code, found = findings(folder, few_files, queue_length=200)
    assert code == 1
    (files,) = found["open files"]
    assert files["level"] == "mend"
    assert "ulimit -n" in files["fix"]
    _, found = findings(folder, decode_memory=2**50)
    assert found["memory"][0]["level"] == "note"


def test_notes_keep_the_exit_code(folder: Path) -> None:
    settings = {"host": "0.0.0.0", "engine": "triton", "triton_url": "127.0.0.1:1"}  # noqa: S104 - what is tested
    code, found = findings(folder, **settings, **tls(folder, "soon"))
    assert code == 0, found
    assert [found[check][0]["level"] for check in ("keys", "TLS", "Triton")] == ["note", "note", "note"]
    assert "renew it soon" in [finding["fix"] for finding in found["TLS"]]
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o644)
    bucket = {"endpoint": "https://s3.example", "access_key": "reader", "secret_key_file": str(folder / "secret")}
    _, found = findings(
        folder,
        traces_endpoint="http://127.0.0.1:1",
        media_url_hosts="media.example:8443",
        media_url_buckets=json.dumps({"clips": bucket}),
        media_url_allow_private=True,
    )
    assert "dimml[serve,otel,fetch,fetch-s3]" in found["libraries"][0]["found"]
    said = [(one["level"], one["found"]) for one in found["media_url"]]
    assert said[0] == ("ok", "recordings may be fetched from media.example:8443, s3://clips")
    assert said[1] == ("note", f"others may read {folder / 'secret'}")
    assert said[2][0] == "note"
    assert "media_url_allow_private" in said[2][1]
    code, found = findings(folder / "nowhere")
    assert code == 1
    assert "is not a folder" in found["repository"][0]["found"]


def test_of_the_gpu_build_of_onnxruntime_the_gpu_extra_is_wanted(folder: Path, tmp_path: Path) -> None:
    """It is a package of another name: an image that has it alone lacks nothing, whatever `device` says."""
    metadata = tmp_path / "onnxruntime_gpu-1.31.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    _, found = findings(folder, environment={"PYTHONPATH": str(tmp_path)})
    assert "dimml[serve-gpu]" in found["libraries"][0]["found"]


def test_variables_of_libraries_that_hurt_are_named(folder: Path, tmp_path: Path) -> None:
    code, found = findings(folder, environment={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "gone")})
    assert code == 1
    assert "not a folder that can be written to" in found["environment"][0]["found"]
    variables = {
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "FORWARDED_ALLOW_IPS": "10.0.0.1,*",
        "http_proxy": "http://127.0.0.1:1",
        "no_proxy": "",
    }
    code, found = findings(folder, environment=variables, engine="triton", triton_url="triton:8001")
    assert code == 0, found
    said = [(one["level"], one["found"].split("=")[0].split(" ")[0]) for one in found["environment"]]
    assert said == [("note", name) for name in ("PROMETHEUS_MULTIPROC_DIR", "http_proxy", "FORWARDED_ALLOW_IPS")]
    exempt = {**variables, "no_proxy": "triton", "FORWARDED_ALLOW_IPS": "10.0.0.1"}
    del exempt["PROMETHEUS_MULTIPROC_DIR"]
    _, found = findings(folder, environment=exempt, engine="triton", triton_url="triton:8001")
    assert [one["level"] for one in found["environment"]] == ["ok"]
