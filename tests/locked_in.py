"""Run a program as the system unit would: its system calls, its view of the disk, no network.

``locked_in.py WRITABLE SYSCALLS PROGRAM…``: SYSCALLS is a file with a name on each line.
Everything but WRITABLE is read-only. Made with the kernel's own means, for machines on
which systemd does not run: unshare(2), mount(2), libseccomp. Exit code 77 where that is
not permitted.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_NEWNS, _NEWNET = 0x00020000, 0x40000000
_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 32, 4096, 16384, 1 << 18
_EPERM_ACTION, _ALLOW_ACTION = 0x00050000 | 1, 0x7FFF0000
_NO_NEW_PRIVS = 38
_REFUSED = 77
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, flags: int) -> bool:
    return libc.mount(source.encode(), target.encode(), None, flags, None) == 0


def see_read_only(writable: str) -> None:
    if libc.unshare(_NEWNS | _NEWNET) or not mount("", "/", _REC | _PRIVATE):
        sys.exit(_REFUSED)
    if not mount(writable, writable, _BIND):
        sys.exit(_REFUSED)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point != writable and not point.startswith(("/proc", "/dev", "/sys")):
            mount("", point, _REMOUNT | _BIND | _RDONLY)
    try:
        Path(sys.prefix, "written").touch()
    except OSError:
        return
    sys.exit("the disk can still be written")


def filter_calls(names: list[str]) -> None:
    try:
        seccomp = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        sys.exit(_REFUSED)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_EPERM_ACTION))
    for name in names:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(context, _ALLOW_ACTION, number, 0)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    if seccomp.seccomp_load(context):
        sys.exit(_REFUSED)


if __name__ == "__main__":
    see_read_only(sys.argv[1])
    filter_calls(Path(sys.argv[2]).read_text().split())
    os.execv(sys.argv[3], sys.argv[3:])
