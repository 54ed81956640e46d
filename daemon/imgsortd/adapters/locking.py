"""One imgsortd for one state folder and one inbox: flock, which a kill -9 releases."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from imgsortd.adapters.fsops import open_root
from imgsortd.errors import LockedError, StoreError


class Locks:
    """The locks of one process; use as a context manager.

    Parameters
    ----------
    state_dir
        Made where it is new, mode 0700; holds the file ``lock`` with the owner's pid.
    inbox
        Locked too (the folder itself, no file is made) where files are moved out of it.

    Raises
    ------
    LockedError
        On entering: another process holds one of them; the text names its pid.
    """

    def __init__(self, state_dir: Path, inbox: Path | None = None) -> None:
        self._state_dir = state_dir
        self._inbox = inbox
        self._fds: list[int] = []

    def __enter__(self) -> Locks:
        try:
            self._lock_state()
            if self._inbox is not None:
                self._lock(open_root(self._inbox), f"inbox {self._inbox}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _lock_state(self) -> None:
        path = lock_file(self._state_dir)
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(
                f"state_dir {self._state_dir}: cannot be written by uid {os.geteuid()} "
                f"({error.strerror}); make it and give it to that user"
            ) from error
        self._lock(fd, f"state_dir {self._state_dir}")
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)

    def _lock(self, fd: int, what: str) -> None:
        self._fds.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{what}: another imgsortd is at work there ({_owner_text(fd)}); "
                f"stop it first, or ask it: imgsortd status"
            ) from error
        except OSError:
            pass  # some network shares have no locks; the state folder's lock remains


def lock_file(state_dir: Path) -> Path:
    """Return the path of the lock file."""
    return state_dir / "lock"


def _owner_text(fd: int) -> str:
    pid = _owner_of(fd)
    return f"pid {pid}" if pid else "its pid is not to be seen from here"


def _owner_of(fd: int) -> int | None:
    """Find who holds a flock, from /proc/locks by device and inode."""
    status = os.fstat(fd)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == wanted:
                return int(fields[4])
    with suppress(OSError, ValueError):
        return int(os.pread(fd, 32, 0))
    return None


def running_pid(state_dir: Path) -> int | None:
    """Return the pid of the imgsortd that holds a state folder, or None where none does."""
    try:
        fd = os.open(lock_file(state_dir), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner_of(fd) or 0
    except OSError:
        return None
    finally:
        os.close(fd)
    return None
