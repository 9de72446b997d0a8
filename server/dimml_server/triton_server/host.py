"""Check that this machine and this Python can run pip's Triton server, with a one-line error if not."""

from __future__ import annotations

import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dimml.errors import ConfigurationError

#: glibc that the wheel of constraints-triton.txt is built for (its tag says manylinux_2_35_x86_64).
GLIBC: Final = (2, 35)
#: It has stubs for 3.8 to 3.13; numpy 1.26.4 has builds up to 3.12, and dimml wants 3.11.
PYTHONS: Final = ((3, 11), (3, 12))


@dataclass(frozen=True, slots=True)
class HostPython:
    """This Python, whose library Triton's stub loads."""

    #: Such as ``3.11``.
    version: str
    #: Folder of ``libpython3.11.so``.
    library_folder: Path


def check_host() -> HostPython:
    """Check that this Python can run inside Triton, and return it. Raises ConfigurationError naming what is missing."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise ConfigurationError(f"pip has Triton's server for x86-64 Linux alone; this is {system} on {machine}")
    libc, libc_version = platform.libc_ver()
    if libc != "glibc" or _numbers(libc_version) < GLIBC:
        raise ConfigurationError(
            f"Triton's server needs glibc {GLIBC[0]}.{GLIBC[1]} or newer (Debian 12, Ubuntu 22.04); "
            f"this system has {libc or 'another C library'} {libc_version}".rstrip()
        )
    version = sys.version_info[:2]
    if platform.python_implementation() != "CPython" or version not in PYTHONS:
        raise ConfigurationError(
            "Triton's server runs its Python models with CPython 3.11 or 3.12 (numpy 1.26.4 has builds for no newer "
            f"one); this is {platform.python_implementation()} {version[0]}.{version[1]}"
        )
    name = str(sysconfig.get_config_var("INSTSONAME") or "")
    if ".so" not in name:
        # Debian's programs have the library linked in, and the library in a package of its own.
        name = f"libpython{version[0]}.{version[1]}.so.1.0"
    library = Path(str(sysconfig.get_config_var("LIBDIR")))
    folders = [library, library / str(sysconfig.get_config_var("MULTIARCH"))]
    for folder in folders:
        if (folder / name).is_file():
            return HostPython(f"{version[0]}.{version[1]}", folder)
    raise ConfigurationError(
        f"Triton's server needs {name}, which is not in {library}: install this Python's shared library (Debian: "
        f"libpython{version[0]}.{version[1]}; pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared)"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
