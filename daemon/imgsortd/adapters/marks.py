"""Marks on folders: whose inbox this is, and below which folders an inbox stands.

A mark is a read lock of one byte, far behind the end of any file, on the folder's own open
descriptor: it needs no right to write, ends with the process, and bothers nobody who locks
the folder for another reason. Which byte tells the pid, so that it can be named where
/proc/locks is not to be seen (the unit hides it) and across bind mounts.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
from enum import IntEnum

_PID_BITS, _TOKEN_BITS = 22, 24  # pids end at 2**22
_SPAN = 1 << (_PID_BITS + _TOKEN_BITS)
_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, pid


class Mark(IntEnum):
    """What a mark says of the folder it is on; its value is the first byte of its range."""

    INBOX = 1 << 58
    ABOVE_AN_INBOX = 1 << 59


def new_slot() -> int:
    """Return this process's place in each range: its pid, and a token where pids are not unique."""
    return secrets.randbits(_TOKEN_BITS) << _PID_BITS | os.getpid()


def put(fd: int, mark: Mark, slot: int) -> None:
    """Put a mark on an open folder, for as long as the descriptor is open.

    Raises
    ------
    OSError
        This filesystem has no such locks.
    """
    wanted = struct.pack(_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, mark + slot, 1, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)


def pid_of_another(fd: int, mark: Mark, slot: int) -> int | None:
    """Return the pid of another process's mark on an open folder, or None where there is none.

    Raises
    ------
    OSError
        This filesystem has no such locks.
    """
    for start, length in ((mark, slot), (mark + slot + 1, _SPAN - slot - 1)):
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        kind, _, found, _, _ = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
        if kind != fcntl.F_UNLCK:
            return int(found) % (1 << _PID_BITS)
    return None
