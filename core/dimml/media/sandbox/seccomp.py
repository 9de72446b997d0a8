"""System call filter for the calling process: no network, no new or changed files, no new processes.

Written by hand, since libseccomp is not installed everywhere and its Python wrappers are not maintained. The filter
lists refused calls rather than allowed ones: codecs differ too much in the calls they need. See seccomp(2), and the
kernel's ``Documentation/userspace-api/seccomp_filter.rst``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from typing import Final

#: Numbers of refused calls on x86-64 and aarch64; None if the architecture has no such call.
REFUSED: Final[dict[str, tuple[int | None, int | None]]] = {
    # Network, and other ways to reach another process.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "process_madvise": (440, 440), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    # Input and output that bypasses the calls this filter checks; no codec needs it.
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # Programs and processes; threads are cloned, see below.
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    # Files made, changed or removed; opening for writing, see below.
    "creat": (85, None), "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47),
    "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33),
    "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "open_by_handle_at": (304, 265),
    # Namespaces, mounts, limits, and the rest that no codec needs.
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "fsmount": (432, 432), "fsconfig": (431, 431), "fspick": (433, 433), "mount_setattr": (442, 442),
    "setrlimit": (160, 164), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "fanotify_init": (300, 262),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "acct": (163, 89), "syslog": (103, 116),
}  # fmt: skip
#: Numbers of calls that are allowed or refused by their arguments.
CHECKED: Final[dict[str, tuple[int | None, int | None]]] = {
    "clone": (56, 220), "clone3": (435, 435), "open": (2, None), "openat": (257, 56), "openat2": (437, 437),
    "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261), "prctl": (157, 167), "seccomp": (317, 277),
}  # fmt: skip

#: Index into the pairs above, and AUDIT_ARCH_…, by machine.
_MACHINES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
#: From here on x86-64's numbers belong to the x32 interface (seccomp(2)), which is refused as a whole.
_X32_FIRST: Final = 0x4000_0000

# linux/bpf_common.h; operands of struct seccomp_data: number at 0, architecture at 4, six arguments from 16 on.
_LOAD, _EQUAL, _NOT_BELOW, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
ALLOW, ERRNO, KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000

_CLONE_THREAD: Final = 0x0001_0000
# Of open(2): anything but O_RDONLY, O_CREAT, O_TRUNC, O_APPEND, and the bit of O_TMPFILE that is its own.
_WRITING: Final = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1

Instruction = tuple[int, int, int, int]


def filter_program(machine: str, process: int) -> list[Instruction]:
    """Assemble the filter for ``process`` as BPF instructions: code, jump if true, jump if false, operand.

    ``machine`` is named as in ``platform.machine()``. Raises OSError (ENOSYS) for one that is not in the tables.
    """
    if machine not in _MACHINES or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, f"no system call filter for {machine}")
    column, architecture = _MACHINES[machine]
    program = [*_load(_ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, KILL), *_load(_NUMBER)]
    if machine == "x86_64":
        program += [(_NOT_BELOW, 0, 1, _X32_FIRST), _refuse(errno.ENOSYS)]
    for numbers in REFUSED.values():
        number = numbers[column]
        if number is not None:
            program += [(_EQUAL, 0, 1, number), _refuse(errno.EPERM)]
    for name, rule in _argument_rules(process).items():
        number = CHECKED[name][column]
        if number is not None:
            program += [(_EQUAL, 0, len(rule), number), *rule]
    return [*program, (_RETURN, 0, 0, ALLOW)]


def install(process: int) -> None:
    """Install the filter in this process, its threads and its children, for the rest of their lives.

    ``process`` is the id of this process. Raises OSError if the kernel or the container does not allow it.
    """
    program = filter_program(platform.machine(), process)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a count, padding, a pointer.
    description = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges(libc)
    call = CHECKED["seccomp"][_MACHINES[platform.machine()][0]]
    if libc.syscall(call, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, description) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def no_new_privileges(libc: ctypes.CDLL) -> None:
    """Renounce new privileges, as the kernel requires of a process that restricts itself. Raises OSError."""
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _argument_rules(process: int) -> dict[str, list[Instruction]]:
    """Rules by call, each ending in a return on every path. The lower 32 bits of an argument come first."""
    allow, refuse = (_RETURN, 0, 0, ALLOW), _refuse(errno.EPERM)
    # ENOSYS makes the C library fall back to the call whose arguments a filter can read.
    unknown = [_refuse(errno.ENOSYS)]

    def argument(index: int, *, upper: bool = False) -> Iterable[Instruction]:
        return _load(_ARGUMENTS + 8 * index + (4 if upper else 0))

    def no_bits(index: int, bits: int) -> list[Instruction]:
        return [*argument(index), (_ANY_BIT, 0, 1, bits), refuse, allow]

    ourselves = [*argument(0), (_EQUAL, 1, 0, process), refuse, allow]
    nothing_set = [*argument(2), (_EQUAL, 0, 2, 0), *argument(2, upper=True), (_EQUAL, 1, 0, 0), refuse, allow]
    return {
        "clone": [*argument(0), (_ANY_BIT, 1, 0, _CLONE_THREAD), refuse, allow],
        "clone3": unknown,
        "open": no_bits(1, _WRITING),
        "openat": no_bits(2, _WRITING),
        "openat2": unknown,
        "kill": ourselves,
        "tgkill": ourselves,
        "prlimit64": nothing_set,
        # It dies with its parent, and stays so.
        "prctl": [*argument(0), (_EQUAL, 0, 1, _PR_SET_PDEATHSIG), refuse, allow],
    }


def _load(offset: int) -> list[Instruction]:
    return [(_LOAD, 0, 0, offset)]


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, ERRNO | number)
