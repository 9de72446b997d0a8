"""Checks of the machine: Python, libraries, memory, cores, open files, shared memory, devices."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from dimml import __version__
from dimml.errors import ConfigurationError
from dimml.system.cores import usable_cores
from dimml.system.outbound import import_quietly
from dimml_server.doctor.finding import Finding
from dimml_server.settings.settings import ServerSettings

MIB: Final = 2**20
_OLDEST_PYTHON: Final = (3, 11)
_CGROUP: Final = Path("/sys/fs/cgroup")
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - looked at, never written to
#: Memory of the server with a small bundle, and of one decoding process; measured: 159 and 85 MB resident.
_SERVER_BYTES: Final = 200 * MIB
_PARENT_BYTES: Final = 60 * MIB
_WORKER_BYTES: Final = 100 * MIB
#: Open files of the server beside one per connection.
_SPARE_FILES: Final = 256


def host_findings(settings: ServerSettings) -> Iterator[Finding]:
    """Run all checks of the machine, in order."""
    yield _python()
    yield _libraries(settings)
    yield _device(settings)
    yield _memory(settings)
    yield _cores(settings)
    yield _open_files(settings)
    yield _shared_memory(settings)


def _python() -> Finding:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, dimml {__version__}"
    if sys.platform != "linux":
        return Finding("host", "mend", found, "serve on Linux: the limits of decoding need it")
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("host", "mend", found, "install Python 3.11 or newer")
    return Finding("host", "ok", found)


def _libraries(settings: ServerSettings) -> Finding:
    from packaging.requirements import Requirement

    wrong, seen = [], []
    try:
        listed = [Requirement(text) for text in requires("dimml") or ()]
    except PackageNotFoundError:
        return Finding("libraries", "note", "dimml is not installed as a package; versions are not checked")
    extras = [
        "serve-gpu" if settings.device.startswith(("cuda", "tensorrt")) or _is_there("onnxruntime-gpu") else "serve"
    ]
    if settings.traces_endpoint is not None:
        extras.append("otel")
    if settings.media_url_hosts or settings.media_url_buckets:
        extras.append("fetch")
    if settings.media_url_buckets:
        extras.append("fetch-s3")
    for requirement in listed:
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if requirement.specifier.contains(there, prereleases=True):
            seen.append(requirement.name)
        else:
            wrong.append(f"{requirement.name} {there} is not {requirement.specifier}")
    wanted = f"dimml[{','.join(extras)}]"
    if wrong:
        return Finding("libraries", "mend", "; ".join(wrong), f"pip install '{wanted}'")
    return Finding("libraries", "ok", f"{len(seen)} packages of {wanted} at versions it takes")


def _is_there(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _device(settings: ServerSettings) -> Finding:
    if settings.engine == "triton":
        return Finding("device", "ok", "encoders run on Triton")
    from dimml_server.engines.ort_session import provider_name, providers

    try:
        chosen = providers(settings.device)[0]
    except ConfigurationError as error:
        return Finding("device", "mend", error.message)
    found = f"ONNX Runtime {import_quietly('onnxruntime').__version__} runs encoders with {provider_name(chosen)}"
    _, _, number = settings.device.partition(":")
    if number:
        found += f" on GPU {number} of those that CUDA_VISIBLE_DEVICES leaves visible"
    return Finding("device", "ok", found)


def _memory(settings: ServerSettings) -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _number(_CGROUP / "memory.max")
    have = total if limit is None else min(total, limit)
    workers = max(settings.decode_workers, settings.processes)
    least = settings.processes * _SERVER_BYTES + workers * _WORKER_BYTES
    if settings.processes > 1:
        least += _PARENT_BYTES
    most = least + workers * settings.decode_memory
    found = (
        f"{have // MIB} MiB{'' if limit is None else ' (limit of the cgroup)'}; with a small bundle the server takes "
        f"about {least // MIB} MiB, {most // MIB} MiB while every decoding takes all that it may"
    )
    if have < least:
        return Finding("memory", "mend", found, "give it more memory, or lower decode_workers or processes")
    if have < most:
        return Finding("memory", "note", found, "lower decode_memory or decode_workers to be safe from the OOM killer")
    return Finding("memory", "ok", found)


def _cores(settings: ServerSettings) -> Finding:
    cores = usable_cores()
    threads = settings.intra_op_threads or f"{cores} divided by encoders"
    found = (
        f"{cores} of the machine's {os.cpu_count()} may be used, by affinity and CPU quota; decode_workers is "
        f"{settings.decode_workers}, concurrency {settings.concurrency}, threads of an encoder {threads}"
    )
    if settings.processes > 1:
        found += f", all divided among {settings.processes} processes"
    if settings.processes > cores:
        return Finding("cores", "note", found, "lower processes: one feeds several cores")
    if settings.decode_workers > 2 * cores:
        return Finding("cores", "note", found, "lower decode_workers")
    return Finding("cores", "ok", found)


def _open_files(settings: ServerSettings) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # One for a connection, one for a spooled part.
    fetches = 2 * settings.media_url_fetches if settings.media_url_hosts or settings.media_url_buckets else 0
    wanted = fetches + 4 * (settings.concurrency + settings.queue_length) + 8 * settings.decode_workers + _SPARE_FILES
    found = f"{soft} files may be open at once, {hard} where the limit is raised; a full queue may take {wanted}"
    if soft < wanted:
        return Finding("open files", "mend", found, f"ulimit -n {wanted}, or LimitNOFILE= of the unit")
    return Finding("open files", "ok", found)


def _shared_memory(settings: ServerSettings) -> Finding:
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
        writable = os.access(_SHARED_MEMORY, os.W_OK)
    except OSError as error:
        free, writable = 0, False
        found = f"{_SHARED_MEMORY}: {error.strerror}"
    else:
        found = f"{free // MIB} MiB free in {_SHARED_MEMORY}{'' if writable else ', not writable'}"
    # It holds semaphores of the decoding processes; Triton's Python models also pass their tensors through it.
    if not writable or free < MIB:
        return Finding("shared memory", "mend", found, "docker run --shm-size=256m, or mount a tmpfs there")
    if settings.engine == "triton" and free < 64 * MIB:
        return Finding("shared memory", "note", found, "a Triton on this machine wants 64 MiB or more")
    return Finding("shared memory", "ok", found)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # The file does not exist, or holds "max".
        return None
