"""Whether this processor multiplies 8-bit integers in its own instructions, as int8 encoders need."""

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


def int8_instructions(cpuinfo: Path = _CPUINFO) -> tuple[str, ...] | None:
    """Name the instructions for sums of 8-bit products that the first processor lists; None where it cannot be read.

    x86 without any of them adds such products with saturation to 16 bits: int8 models are slower than FP32 there, and
    large sums are cut off.
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
