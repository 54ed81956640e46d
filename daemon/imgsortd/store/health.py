"""Is the SQLite file there, whole and ours to write? And what SQLite says, in our words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from imgsortd.errors import NoSpaceError, StoreDamagedError, StoreError, StoreLockedError

BUSY_TIMEOUT_S = 10.0
_QUICK_CHECK_S = 2.0


@contextmanager
def foreign_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with the file's path."""
    try:
        yield
    except sqlite3.Error as error:
        raise our_error(error, path) from error


def our_error(error: sqlite3.Error, path: Path) -> StoreError | NoSpaceError:
    """Say in our words what SQLite says of a file."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return NoSpaceError(f"{path}: the disk of state_dir is full; free some space there")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreLockedError(
            f"{path}: locked by another program for over {BUSY_TIMEOUT_S:g} s; "
            f"close what has it open (fuser '{path}' names it)"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreDamagedError(
            f"{path}: is damaged or not an imgsortd database ({error}); starting the daemon "
            f"keeps it aside and restores it from a backup, or rebuilds it from the target"
        )
    if code == sqlite3.SQLITE_READONLY:
        return StoreError(f"{path}: cannot be written; check the owner of state_dir")
    return StoreError(f"{path}: SQLite says: {error}")


def check_in_place(path: Path, inode: int | None) -> None:
    """Refuse to write into a file that no longer has its name: it would go nowhere.

    Raises
    ------
    StoreError
        The file was removed or replaced since it was opened.
    """
    try:
        if inode is None or path.stat().st_ino == inode:
            return
        what = "was replaced"
    except OSError as error:
        what = f"cannot be reached any more ({error.strerror})"
    raise StoreError(
        f"{path}: {what} while it was in use; nothing more is sorted until the daemon is "
        f"started again, which restores or rebuilds what is missing"
    )


def wants_full_check(path: Path) -> Path:
    """Return the marker that asks the next start to look at all of the file."""
    return path.with_name(path.name + ".check")


def check_health(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a damaged file; a big one is looked at for two seconds.

    A million images are gigabytes to check, and systemd waits. What is not looked at
    now is met as the same error when it is read, and then the next start looks at all.
    """
    marker = wants_full_check(path)
    timer = Timer(_QUICK_CHECK_S, connection.interrupt)
    if not marker.exists():
        timer.start()
    try:
        result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()  # it must not interrupt what comes next
    if result != "ok":
        damage = sqlite3.DatabaseError(f"quick_check: {result.splitlines()[-1]}")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage
    marker.unlink(missing_ok=True)
