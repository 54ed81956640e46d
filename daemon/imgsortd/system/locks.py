"""One imgsortd for one state folder, inbox and target: locks that a kill -9 releases.

State folder and inbox are each held by an flock. That two inboxes are not one inside the
other is told by marks on the inbox and on the folders above it, and so is who sorts into a
target, which may be another one's inbox. A mark is a read lock of one
byte, far behind the end of any file, on the folder's own open descriptor: it needs no right to
write, ends with the process, and bothers nobody who locks the folder for another reason. Which
byte tells the pid, so that it can be named where /proc/locks is not to be seen (the unit hides
it) and across bind mounts.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import struct
import time
from contextlib import suppress
from enum import IntEnum, StrEnum
from pathlib import Path

from imgsortd.errors import LockedError, NoSpaceError, StoreError, WatchError
from imgsortd.system.filesystem import NO_SPACE, closing, open_root

log = logging.getLogger(__name__)

LockKey = tuple[str, int, int]
"""What a lock is known by: what it is on, device and inode."""

_TRIES, _BETWEEN_TRIES_S = 10, 0.05

_PID_BITS, _TOKEN_BITS = 22, 24  # pids end at 2**22
_SPAN = 1 << (_PID_BITS + _TOKEN_BITS)
_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, pid


class Hold(StrEnum):
    """How an inbox is held."""

    ALONE = "alone"
    TO_READ = "to read"  # beside others that only read it


class Locks:
    """The locks of one process; use as a context manager.

    Parameters
    ----------
    state_dir
        Made where it is new, mode 0700; holds the file ``lock`` with the owner's pid.
    inbox
        Locked too: the folder itself, no file is made and no right to write is needed.
        Nobody else's inbox may stand in it or above it.
    hold
        Whether others may read that inbox meanwhile.
    target
        Nobody else sorts into it. Where it is not there yet it is not held.

    Raises
    ------
    LockedError
        On entering: another process holds one of them; the text names its pid.
    """

    def __init__(
        self,
        state_dir: Path,
        inbox: Path | None = None,
        hold: Hold = Hold.ALONE,
        target: Path | None = None,
    ) -> None:
        self._first = (state_dir, inbox, target)
        self._hold = hold
        self._slot = new_slot()
        self._held: dict[LockKey, int] = {}

    def __enter__(self) -> Locks:
        self.also(*self._first)
        return self

    def __exit__(self, *_: object) -> None:
        self.only(set())

    @property
    def held(self) -> set[LockKey]:
        """What the locks held now are known by."""
        return set(self._held)

    def also(
        self, state_dir: Path, inbox: Path | None = None, target: Path | None = None
    ) -> set[LockKey]:
        """Take the locks of other folders besides those held; return what they are known by.

        Raises
        ------
        LockedError, NoSpaceError, StoreError, WatchError
            One of them cannot be had; what was held before is held still, and no more.
        """
        before = self.held
        try:
            wanted = {self._lock_state(state_dir)}
            if inbox is not None:
                wanted |= self._lock_inbox(inbox)
            if target is not None:
                wanted |= self._lock_target(target)
        except BaseException:
            self.only(before)
            raise
        return wanted

    def only(self, wanted: set[LockKey]) -> None:
        """Release all but these."""
        for key in self.held - wanted:
            os.close(self._held.pop(key))

    def is_removed(self, identity: tuple[int, int]) -> bool:
        """Tell of an inbox that is held, by device and inode, whether it was deleted."""
        fd = self._held.get(("inbox", *identity))
        return fd is not None and os.fstat(fd).st_nlink == 0

    def _lock_state(self, state_dir: Path) -> LockKey:
        path = lock_file(state_dir)
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(state_dir)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise NoSpaceError(
                    f"state_dir {state_dir}: its disk is full ({error.strerror}); free some "
                    f"space there, or choose a state_dir on another disk"
                ) from error
            raise StoreError(
                f"state_dir {state_dir}: cannot be written by uid {os.geteuid()} "
                f"({error.strerror}); make it and give it to that user"
            ) from error
        key = self._keep("state", fd)
        self._flock(self._held[key], f"state_dir {state_dir}", fcntl.LOCK_EX)
        try:
            os.ftruncate(self._held[key], 0)
            os.pwrite(self._held[key], b"%d\n" % os.getpid(), 0)
        except OSError as error:  # a full disk: the lock holds without it
            log.warning("pid not written file=%s reason=%s", path, error.strerror)
        return key

    def _lock_inbox(self, inbox: Path) -> set[LockKey]:
        try:
            fd = open_root(inbox)
        except OSError as error:
            raise WatchError(f"inbox {inbox}: cannot be opened ({error.strerror})") from error
        key = self._keep("inbox", fd)
        how = fcntl.LOCK_EX if self._hold is Hold.ALONE else fcntl.LOCK_SH
        self._flock(self._held[key], f"inbox {inbox}", how)
        # First the marks, then the look: of two that start at once, at least one is refused.
        above = self._mark(inbox, self._held[key])
        self._refuse_nested(inbox, self._held[key], Mark.ABOVE_AN_INBOX, "in a folder of it")
        for name, outer in above.items():
            self._refuse_nested(inbox, self._held[outer], Mark.INBOX, f"in {name} above it")
        return {key, *above.values()}

    def _mark(self, inbox: Path, fd: int) -> dict[Path, LockKey]:
        """Mark the inbox and the folders above it; return these and their keys."""
        above = {}
        for folder in Path(os.path.realpath(inbox)).parents:
            with suppress(OSError):  # not to be read by this user: no inbox of ours
                above[folder] = self._keep("above", open_root(folder))
        if self._hold is Hold.ALONE:
            with suppress(OSError):
                put(fd, Mark.INBOX, self._slot)
            for key in above.values():
                with suppress(OSError):
                    put(self._held[key], Mark.ABOVE_AN_INBOX, self._slot)
        return above

    def _refuse_nested(self, inbox: Path, fd: int, mark: Mark, where: str) -> None:
        with suppress(OSError):
            pid = pid_of_another(fd, mark, self._slot)
            if pid is not None:
                raise LockedError(
                    f"inbox {inbox}: another imgsortd is at work {where} (pid {pid}); "
                    f"stop it first, or take folders that do not contain one another"
                )

    def _lock_target(self, target: Path) -> set[LockKey]:
        try:
            key = self._keep("target", open_root(target))
        except OSError:
            return set()  # not there, or not to be read: told by whoever sorts into it
        fd, pid = self._held[key], None
        with suppress(OSError):  # no such locks here: what is written in it remains
            for _ in range(_TRIES):
                put(fd, Mark.TARGET, self._slot)
                pid = pid_of_another(fd, Mark.TARGET, self._slot)
                if pid is None:
                    break
                take_off(fd, Mark.TARGET, self._slot)  # of two that start at once, one stays
                time.sleep(_BETWEEN_TRIES_S * (1 + secrets.randbelow(8)) / 4)
        if pid is not None:
            raise LockedError(
                f"target {target}: another imgsortd sorts into it (pid {pid}); stop that one "
                f"first, or choose another target"
            )
        return {key}

    def _keep(self, what: str, fd: int) -> LockKey:
        """Keep a descriptor, or the one that is held on the same already."""
        status = os.fstat(fd)
        key = (what, status.st_dev, status.st_ino)
        if key in self._held:
            os.close(fd)  # a second flock would be refused by our own first
        else:
            self._held[key] = fd
        return key

    def _flock(self, fd: int, what: str, how: int) -> None:
        try:
            _flock(fd, how)
        except BlockingIOError as error:
            raise LockedError(
                f"{what}: another imgsortd is at work there ({self._owner_text(fd)}); "
                f"stop it first, or ask it: imgsortd status"
            ) from error
        except OSError:
            pass  # some network shares have no locks; the state folder's lock remains

    def _owner_text(self, fd: int) -> str:
        pid = _owner_of(fd)
        if not pid:
            with suppress(OSError):
                pid = pid_of_another(fd, Mark.INBOX, self._slot)
        return f"pid {pid}" if pid else "its pid is not to be seen from here"


def _make_private(state_dir: Path) -> None:
    """Keep others out of what is known of the pictures: ``mkdir`` by hand leaves 0755."""
    status = state_dir.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        state_dir.chmod(0o700)
        log.info("state_dir made private path=%s mode=0700", state_dir)


def _flock(fd: int, how: int) -> None:
    """Take the lock; ``status`` holds it for an instant when it looks, so ask more than once."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return
        time.sleep(_BETWEEN_TRIES_S)
    fcntl.flock(fd, how | fcntl.LOCK_NB)


def lock_file(state_dir: Path) -> Path:
    """Return the path of the lock file."""
    return state_dir / "lock"


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


def sorting_pid(target: Path) -> int | None:
    """Return the pid of another imgsortd that sorts into a target; None where none is seen."""
    with suppress(OSError), closing(open_root(target)) as fd:
        pid = pid_of_another(fd, Mark.TARGET, new_slot())
        return None if pid == os.getpid() else pid
    return None


class Mark(IntEnum):
    """What a mark says of the folder it is on; its value is the first byte of its range."""

    INBOX = 1 << 58
    ABOVE_AN_INBOX = 1 << 59
    TARGET = 1 << 60


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
    _set(fd, fcntl.F_RDLCK, mark + slot)


def take_off(fd: int, mark: Mark, slot: int) -> None:
    """Take a mark off again."""
    _set(fd, fcntl.F_UNLCK, mark + slot)


def _set(fd: int, kind: int, at: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, at, 1, 0))


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
