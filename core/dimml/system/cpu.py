"""Sums of 8-bit products: whether this processor has instructions for them, and how they are right without."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
#: Linux's names of the flags (arch/x86/include/asm/cpufeatures.h; hwcap of arm64), by what they are known as.
_INT8_FLAGS: Final = {
    "AVX512-VNNI": {"avx512_vnni"},
    "AVX-VNNI": {"avx_vnni"},
    "AMX": {"amx_int8"},
    "dot product": {"asimddp"},
    "I8MM": {"i8mm"},
}

#: Entry of a session's configuration (``onnxruntime_session_options_config_keys.h``). x86 without VNNI adds
#: 8-bit products with saturation to 16 bits, so that an int8 model silently answers otherwise there; with this, ONNX
#: Runtime takes slower instructions there, which lose nothing. It has no effect on other processors.
EXACT_INT8_SUMS: Final = ("session.x64quantprecision", "1")


def int8_instructions(cpuinfo: Path = _CPUINFO) -> tuple[str, ...] | None:
    """Name the instructions for sums of 8-bit products that the first processor lists; None where it cannot be read.

    On x86 without any of them int8 models are slower than FP32, and right only with ``EXACT_INT8_SUMS``.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            there = set(value.split())
            return tuple(known for known, flags in _INT8_FLAGS.items() if flags & there)
    return None
