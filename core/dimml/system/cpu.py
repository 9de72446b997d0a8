"""Which processor this is, and how it sums 8-bit products, as int8 encoders need."""

from __future__ import annotations

import platform
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

#: Entry of a session's configuration (``onnxruntime_session_options_config_keys.h``).
_EXACT_SUMS: Final = {"session.x64quantprecision": "1"}

#: What /proc/cpuinfo says of a processor that stays the same from one start to the next, on x86 and on arm64.
_IDENTITY: Final = frozenset(
    {"vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features"}
    | {"CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"}
)


def int8_instructions(cpuinfo: Path = _CPUINFO) -> tuple[str, ...] | None:
    """Name the instructions for sums of 8-bit products that the first processor lists; None where it cannot be read.

    On x86 without any of them int8 models gain less, if anything, and are right only with ``exact_int8_sums``.
    """
    for name, value in _first_processor(cpuinfo):
        if name in ("flags", "Features"):
            there = set(value.split())
            return tuple(known for known, flags in _INT8_FLAGS.items() if flags & there)
    return None


def exact_int8_sums(cpuinfo: Path = _CPUINFO) -> dict[str, str]:
    """Entries that a session of ONNX Runtime's configuration needs for an int8 model to be right on this processor.

    x86 without VNNI adds 8-bit products with saturation to 16 bits, so that an int8 model silently answers otherwise;
    with the entry ONNX Runtime takes slower instructions, which lose nothing. It takes them wherever it is set, though:
    with ONNX Runtime 1.32 on AVX512-VNNI, whose sums are exact anyway, ResNet-18 took 76 ms with it and 23 without. So
    it is empty where the processor lists instructions that are exact, and set where what it lists cannot be read.
    """
    return {} if int8_instructions(cpuinfo) else dict(_EXACT_SUMS)


def processor_identity(cpuinfo: Path = _CPUINFO) -> str | None:
    """Text that differs where programs may choose other instructions; None where it cannot be read.

    Machine, maker, model and sorted flags of the first processor.
    """
    found = {name: value for name, value in _first_processor(cpuinfo) if name in _IDENTITY}
    flags = " ".join(sorted(f"{found.pop('flags', '')} {found.pop('Features', '')}".split()))
    if not flags:
        return None
    return "; ".join([platform.machine(), *(f"{name}: {found[name]}" for name in sorted(found)), flags])


def _first_processor(cpuinfo: Path) -> list[tuple[str, str]]:
    """Names and values that the kernel lists of its first processor; empty where it cannot be read."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = text.strip().split("\n\n", 1)[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return [(name.strip(), value.strip()) for name, _, value in pairs]
