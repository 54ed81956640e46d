"""One imgsortd for one state folder and one inbox: flock, which a kill -9 releases."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from imgsortd.adapters.fsops import open_root
from imgsortd.errors import LockedError, StoreError, WatchError

log = logging.getLogger(__name__)

_TRIES, _BETWEEN_TRIES_S = 10, 0.05


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
        self._first = (state_dir, inbox)
        self._held: dict[tuple[int, int], int] = {}

    def __enter__(self) -> Locks:
        self.also(*self._first)
        return self

    def __exit__(self, *_: object) -> None:
        self.only(set())

    @property
    def held(self) -> set[tuple[int, int]]:
        """What the locks held now are known by: device and inode."""
        return set(self._held)

    def also(self, state_dir: Path, inbox: Path | None = None) -> set[tuple[int, int]]:
        """Take the locks of another pair besides those held; return what they are known by.

        Raises
        ------
        LockedError, StoreError, WatchError
            One of them cannot be had; what was held before is held still, and no more.
        """
        before = self.held
        try:
            wanted = {self._lock_state(state_dir)}
            if inbox is not None:
                wanted.add(self._lock_inbox(inbox))
        except BaseException:
            self.only(before)
            raise
        return wanted

    def only(self, wanted: set[tuple[int, int]]) -> None:
        """Release all but these."""
        for key in self.held - wanted:
            os.close(self._held.pop(key))

    def _lock_state(self, state_dir: Path) -> tuple[int, int]:
        path = lock_file(state_dir)
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(state_dir)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(
                f"state_dir {state_dir}: cannot be written by uid {os.geteuid()} "
                f"({error.strerror}); make it and give it to that user"
            ) from error
        key = self._lock(fd, f"state_dir {state_dir}")
        os.ftruncate(self._held[key], 0)
        os.pwrite(self._held[key], b"%d\n" % os.getpid(), 0)
        return key

    def _lock_inbox(self, inbox: Path) -> tuple[int, int]:
        try:
            fd = open_root(inbox)
        except OSError as error:
            raise WatchError(f"inbox {inbox}: cannot be opened ({error.strerror})") from error
        return self._lock(fd, f"inbox {inbox}")

    def _lock(self, fd: int, what: str) -> tuple[int, int]:
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        if key in self._held:
            os.close(fd)  # a second flock would be refused by our own first
            return key
        self._held[key] = fd
        try:
            _flock(fd)
        except BlockingIOError as error:
            raise LockedError(
                f"{what}: another imgsortd is at work there ({_owner_text(fd)}); "
                f"stop it first, or ask it: imgsortd status"
            ) from error
        except OSError:
            pass  # some network shares have no locks; the state folder's lock remains
        return key


def _make_private(state_dir: Path) -> None:
    """Keep others out of what is known of the pictures: ``mkdir`` by hand leaves 0755."""
    status = state_dir.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        state_dir.chmod(0o700)
        log.info("state_dir made private path=%s mode=0700", state_dir)


def _flock(fd: int) -> None:
    """Take the lock; ``status`` holds it for an instant when it looks, so ask more than once."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_BETWEEN_TRIES_S)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


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
