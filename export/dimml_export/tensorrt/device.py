"""The GPU a plan is built for, queried from the NVIDIA driver: TensorRT's Python API does not report it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

from dimml.errors import SetupError

#: ``CUdevice_attribute`` of cuda.h.
_CAPABILITY_MAJOR: Final = 75
_CAPABILITY_MINOR: Final = 76
_NAME_BYTES: Final = 256
_DRIVER: Final = "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU; a plan built on one runs on others of the same model."""

    name: str
    compute_capability: str


def first_device(library: str = _DRIVER) -> Device:
    """Return CUDA's first GPU, which ``CUDA_VISIBLE_DEVICES`` can choose.

    ``library`` is the driver's. Raises SetupError without a driver or a GPU.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise SetupError(
            f"there is no NVIDIA driver here ({error}): plans are built on the host, and GPU, that will serve them"
        ) from error
    device, count, number = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(driver.cuInit(0), "cuInit")
    _check(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value < 1:
        raise SetupError("the NVIDIA driver sees no GPU: plans are built on the host, and GPU, that will serve them")
    _check(driver.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    _check(driver.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    capability = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        _check(driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device), "cuDeviceGetAttribute")
        capability.append(str(number.value))
    return Device(name.value.decode(errors="replace"), ".".join(capability))


def _check(result: int, call: str) -> None:
    if result != 0:
        raise SetupError(f"the NVIDIA driver cannot be used: {call} gives error {result}; see what nvidia-smi says")
