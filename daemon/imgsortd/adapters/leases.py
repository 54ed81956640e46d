"""Ask the kernel whether somebody is still writing a file."""

from __future__ import annotations

import errno
import fcntl
import signal
from enum import Enum


def allow_leases() -> None:
    """Let :func:`writer_of` ask the kernel; call once, in the main thread.

    Who holds a lease gets SIGIO when a writer comes, and SIGIO kills by default.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


class Writer(Enum):
    """Whether somebody has a file open, or mapped, for writing."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"  # no lease is to be had: a network share, a file of another owner


def writer_of(fd: int) -> Writer:
    """Tell whether somebody has the file open, or mapped, for writing.

    Source: fcntl(2), F_SETLEASE: a read lease is refused while a writer exists. It needs
    a file of one's own or CAP_LEASE, and a filesystem that has leases.
    """
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        return Writer.NONE  # this process does not ask: see allow_leases
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writer.SOME if error.errno == errno.EAGAIN else Writer.UNKNOWN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writer.NONE
