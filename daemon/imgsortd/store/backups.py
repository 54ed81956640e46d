"""Copies of the database beside it: made by SQLite, checked, and whole before they have a name."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from imgsortd.system import filesystem

FOLDER = "backups"
_NAME = re.compile(r"imgsortd-(\d{4}-\d{2}-\d{2})\.db")
_LOOK_EVERY_STEPS = 10_000  # of SQLite's machine: about a millisecond
_LEFTOVERS = ("", "-journal", "-wal", "-shm")


def day_of(unix_s: float) -> str:
    """Return the UTC date that a backup of this moment is named after."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")


def backups(state_dir: Path, today: str) -> list[Path]:
    """Return the backups, newest first; one dated after ``today`` was made by a wrong clock."""
    folder = state_dir / FOLDER
    if not folder.is_dir():
        return []
    days = {path: match[1] for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return sorted(days, key=lambda path: (days[path] <= today, days[path]), reverse=True)


def make_backup(
    connection: sqlite3.Connection, state_dir: Path, day: str, stopping: Callable[[], bool]
) -> Path | None:
    """Copy the database to ``backups/imgsortd-DAY.db``; None where it was stopped.

    Made by ``VACUUM INTO`` on the writing connection: in rollback-journal mode a second
    one would keep the writer from committing for as long as it takes.

    Parameters
    ----------
    stopping
        Asked every few milliseconds whether to give up.

    Raises
    ------
    OSError, sqlite3.Error
        The disk is full, or the copy is not whole; nothing of it is left.
    """
    folder = state_dir / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"imgsortd-{day}.db"
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(0o600)
    connection.set_progress_handler(stopping, _LOOK_EVERY_STEPS)
    try:
        connection.execute("VACUUM INTO ?", (str(part),))
        _sync(part)
        os.replace(part, path)
        _sync(folder)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)
        part.unlink(missing_ok=True)
    return path


def is_whole(path: Path) -> bool:
    """Tell whether a database passes SQLite's full check."""
    try:
        connection = sqlite3.connect(path)
        try:
            return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok")
        finally:
            connection.close()
    except sqlite3.Error:
        return False


def prune(state_dir: Path, today: str, keep: int) -> None:
    """Remove all but the newest backups."""
    for path in backups(state_dir, today)[keep:]:
        path.unlink(missing_ok=True)


def copy_to(backup: Path, path: Path) -> None:
    """Copy a backup to where it is to be opened; the backup stays."""
    remove(path)
    shutil.copyfile(backup, path)
    path.chmod(0o600)


def set_aside(database: Path, mark: str) -> Path | None:
    """Rename a damaged database and what belongs to it; return its new path, if there is any.

    The journal of a database that is gone is put aside, too: SQLite would play it back
    into the one that takes its place.
    """
    base = Path(f"{database}.damaged-{mark}")
    aside, number = base, 0
    while any(os.path.lexists(f"{aside}{end}") for end in _LEFTOVERS):  # none is overwritten
        number += 1
        aside = Path(f"{base}-{number}")
    moved = [end for end in _LEFTOVERS if os.path.lexists(f"{database}{end}")]
    for end in moved:
        os.rename(f"{database}{end}", f"{aside}{end}")
    _sync(database.parent)
    return aside if moved else None


def newest_aside(database: Path) -> Path | None:
    """Return the damaged database that was put aside last."""
    asides = database.parent.glob(f"{database.name}.damaged-*")
    return max((path for path in asides if not path.name.endswith(_LEFTOVERS[1:])), default=None)


def remove(path: Path) -> None:
    """Remove a database of ours that was never finished."""
    for end in _LEFTOVERS:
        Path(f"{path}{end}").unlink(missing_ok=True)


def put_in_place(path: Path, database: Path) -> None:
    """Give a finished, closed database its name; there is none of that name."""
    for end in _LEFTOVERS[1:]:  # empty: it was closed
        Path(f"{path}{end}").unlink(missing_ok=True)
    _sync(path)
    os.rename(path, database)
    _sync(database.parent)


def _sync(path: Path) -> None:
    with filesystem.closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        filesystem.sync_folder(fd)
