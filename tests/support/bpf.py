"""What the kernel does with a system call filter, in a few lines: to judge one for a machine that is not here."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def run(program: Sequence[tuple[int, int, int, int]], number: int, architecture: int, *arguments: int) -> int:
    """The filter's verdict on a call (classic BPF as linux/bpf_common.h has it, over struct seccomp_data)."""
    six = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number if number < 2**31 else number - 2**32, architecture, 0, *six)
    accumulator = position = 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x06:  # BPF_RET | BPF_K
            return operand
        else:
            holds = {
                0x15: accumulator == operand,  # BPF_JMP | BPF_JEQ | BPF_K
                0x35: accumulator >= operand,  # BPF_JGE
                0x45: bool(accumulator & operand),  # BPF_JSET
            }[code]
            position += if_true if holds else if_false
