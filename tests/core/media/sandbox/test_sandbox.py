"""A decode worker reaches no network, no other file and no other process, whatever runs in it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dimml.errors import DimmlError, InvalidParameterError
from dimml.media import decode
from dimml.media.sandbox import landlock, seccomp
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import DecodeRequest
from dimml.media.workers.pool import DecodePool
from support import bpf, trespassing
from support.data import shared_data, unavailable
from support.decoding import AUDIO, VISUAL, request_for
from support.media_maker import write_clip

#: Of ``trespassing.attempts``, those that are open where recordings may lie anywhere.
READING = {"reads another file", "lists another folder", "reads its parent's environment"}
SAMPLES = Path(__file__).resolve().parents[4] / "samples"


@pytest.fixture(scope="module")
def kernel() -> None:
    try:
        landlock.version()
    except OSError as error:
        unavailable(f"Landlock: {error.strerror}")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as it:
        it.settimeout(0)
        yield it


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """A folder that workers may read, and a file that is none of their business."""
    folder, secret = tmp_path / "uploads", tmp_path / "secret" / "key"
    for path in (folder / "kept", secret):
        path.parent.mkdir()
        path.write_text("content")
    return folder, secret


def refused_inside(pool: DecodePool, port: int, folder: Path, secret: Path) -> dict[str, str]:
    order = json.dumps([port, str(folder), str(secret)]).encode()
    with pytest.raises(InvalidParameterError) as answer:
        pool.decode_blocking(DecodeRequest((AUDIO,), {"audio": order}, 1.0), timeout_s=60)
    found: dict[str, str] = json.loads(str(answer.value))
    assert found.pop("a thread") == "ran", "codecs need threads"
    return found


@pytest.mark.usefixtures("kernel")
def test_a_worker_is_shut_in(scene: tuple[Path, Path], listener: socket.socket) -> None:
    folder, secret = scene
    port = listener.getsockname()[1]
    everything = set(trespassing.attempts(port, folder, secret))
    with DecodePool(1, readable=[folder], decode_function=trespassing.trespasses) as pool:
        found = refused_inside(pool, port, folder, secret)
        assert set(found) == everything, f"it could: {everything - set(found)}"
        # Not for want of a program of this name.
        assert found["becomes a program"] == "PermissionError"
        assert pool.workers_lost == 0
    with DecodePool(1, decode_function=trespassing.trespasses) as pool:
        # Recordings may lie anywhere: reading is free, and nothing else.
        found = refused_inside(pool, port, folder, secret)
        assert everything - set(found) == READING
    assert sorted(path.name for path in folder.iterdir()) == ["kept"]
    assert (folder / "kept").read_text() == "content"
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_every_attempt_is_one_that_a_plain_process_may_make(scene: tuple[Path, Path], listener: socket.socket) -> None:
    """So that what a worker is refused, it is refused by the sandbox and not by a slip in ``trespassing``."""
    folder, secret = scene
    code = "import json, sys; from pathlib import Path; from support.trespassing import refused\n"
    code += "print(json.dumps(refused(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(listener.getsockname()[1]), str(folder), str(secret)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    found = json.loads(done.stdout)
    found.pop("reads its parent's memory", None)  # Yama may forbid it to everybody.
    assert found == {"becomes a program": "FileNotFoundError"}
    listener.accept()[0].close()


@pytest.mark.slow(reason="decodes every sample and every container twice")
def test_recordings_decode_alike_inside_and_outside(tmp_path: Path) -> None:
    files = [*SAMPLES.glob("*.[mwp]*"), *shared_data("media").glob("*.*")]
    assert len(files) > 30
    with DecodePool(2, readable=[SAMPLES, shared_data("media")]) as pool:
        requests = [request_for(path, end_s=0.5) for path in files]
        for path, request, there in zip(files, requests, pool.map(requests, timeout_s=60), strict=True):
            try:
                here = decode(request)
            except DimmlError:
                assert isinstance(there, DimmlError), path.name
                continue
            assert not isinstance(there, DimmlError), path.name
            for name, track in here.tracks.items():
                assert there.tracks[name].status == track.status, path.name
                np.testing.assert_array_equal(there.tracks[name].row, track.row, path.name)
        assert pool.workers_lost == 0


@pytest.mark.usefixtures("kernel")
def test_a_recording_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "uploads").mkdir()
    inside, outside = (write_clip(tmp_path / name, 0.3) for name in ("uploads/clip.mp4", "clip.mp4"))
    with DecodePool(1, readable=[tmp_path / "uploads"]) as pool:
        assert pool.decode_blocking(request_for(inside, VISUAL), timeout_s=60).tracks["visual"].status.ok
        with pytest.raises(DimmlError, match="Permission denied"):
            pool.decode_blocking(request_for(outside, VISUAL), timeout_s=60)


def test_what_the_kernel_refuses_is_said_once_and_decoding_goes_on(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 0.3)
    code = (
        "import logging, sys\n"
        "from pathlib import Path\n"
        "from dimml.media.workers.pool import DecodePool\n"
        "from support.decoding import request_for, statuses\n"
        "from support.trespassing import shuts_out_landlock_and_seccomp\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "shuts_out_landlock_and_seccomp()\n"
        "with DecodePool(2) as pool:\n"
        "    pool.warm_up()\n"
        "    print(statuses(pool.decode_blocking(request_for(Path(sys.argv[1])), timeout_s=60)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(clip)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "{'audio': 'ok', 'visual': 'ok'}"
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "WARNING:dimml.media.workers.pool:decode workers: enforced: files cannot grow (RLIMIT_FSIZE); NOT"
    )
    assert "(Landlock): Operation not permitted" in line
    assert "(seccomp): Operation not permitted" in line


def test_what_stands_is_told(tmp_path: Path) -> None:
    with DecodePool(1) as pool:
        pool.warm_up()
        assert isinstance(pool.isolation, Isolation)
        assert "files cannot grow (RLIMIT_FSIZE)" in pool.isolation.enforced


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_numbers_are_libseccomps(machine: str) -> None:
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        unavailable("libseccomp is not installed")
    resolve.argtypes, resolve.restype = [ctypes.c_uint32, ctypes.c_char_p], ctypes.c_int
    column, architecture = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}[machine]
    for name, numbers in (seccomp.REFUSED | seccomp.CHECKED).items():
        # Below zero: libseccomp's own numbers for calls that an architecture lacks.
        found = resolve(architecture, name.encode())
        assert (found if found >= 0 else None) == numbers[column], name


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_decides_alike_on_both_machines(machine: str, column: int) -> None:
    architecture = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    program = seccomp.filter_program(machine, process=4321)
    eperm, enosys = (seccomp.ERRNO | number for number in (errno.EPERM, errno.ENOSYS))

    def verdict(name: str, *arguments: int) -> int:
        number = (seccomp.REFUSED | seccomp.CHECKED)[name][column]
        return seccomp.ALLOW if number is None else bpf.run(program, number, architecture, *arguments)

    for name, numbers in seccomp.REFUSED.items():
        if numbers[column] is not None:
            assert verdict(name) == eperm, name
    assert verdict("clone", 0x3D0F00) == seccomp.ALLOW, "a thread of glibc"
    assert verdict("clone", 0x1200011) == verdict("clone", 0x4111) == eperm, "fork and vfork of glibc"
    assert verdict("clone3") == verdict("openat2") == enosys
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC, os.O_RDONLY | os.O_NONBLOCK):
        assert verdict("openat", 0, 0, flags) == verdict("open", 0, flags) == seccomp.ALLOW
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, 0o20000000):
        assert verdict("openat", 0, 0, flags) == eperm, oct(flags)
    assert verdict("kill", 4321, 9) == verdict("tgkill", 4321, 4321, 6) == seccomp.ALLOW
    assert verdict("kill", 1, 9) == verdict("kill", 2**64 - 1, 9) == verdict("tgkill", 1, 1, 9) == eperm
    assert verdict("prlimit64", 0, 9, 0, 8) == seccomp.ALLOW
    assert verdict("prlimit64", 0, 9, 8) == verdict("prlimit64", 0, 9, 1 << 32) == eperm
    assert verdict("prctl", 15) == seccomp.ALLOW
    assert verdict("prctl", 1) == eperm
    for number in (0, 1, 9, 10, 60, 231):  # read, write, mmap, mprotect, exit, exit_group of x86-64
        if column == 0:
            assert bpf.run(program, number, architecture) == seccomp.ALLOW
            assert bpf.run(program, number | 0x40000000, architecture) == enosys
    assert bpf.run(program, 1, 0x40000003) == seccomp.KILL, "the calls of another architecture"


def test_another_machine_has_no_filter_and_says_so() -> None:
    assert seccomp.filter_program(platform.machine(), 1)
    with pytest.raises(OSError, match="riscv64"):
        seccomp.filter_program("riscv64", 1)
