"""The SQLite file: one writing connection in one thread, any number of readers.

Durability is ``synchronous=FULL``. WAL is used where SQLite's WAL-reset bug is
fixed (3.44.6, 3.50.7, 3.51.3 and later); below, the rollback journal in TRUNCATE
mode with ``synchronous=EXTRA`` is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database

from imgsortd.adapters.migrations import migrations
from imgsortd.adapters.store_control import Control
from imgsortd.adapters.store_files import Files
from imgsortd.adapters.store_fits import Fits
from imgsortd.adapters.store_journal import Journal
from imgsortd.errors import NoSpaceError, StoreError

BUSY_TIMEOUT_S = 10.0
_SQLITE_FULL = 13
_SQLITE_BUSY = (5, 6)
_SQLITE_CORRUPT = (11, 26)
_SQLITE_READONLY = 8


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """Tell whether this SQLite has the WAL-reset fix (sqlite.org/changes, 2026)."""
    fixed = {(3, 44): 6, (3, 50): 7}
    if version[:2] in fixed:
        return version[2] >= fixed[version[:2]]
    return version >= (3, 51, 3)


class Store:
    """The tables behind one connection.

    Attributes
    ----------
    files, journal, fits, control
        What was seen; what is being moved; features, fits and centers; the rows
        through which the daemon and the command line speak.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self.db = Database(connection)
        self.files = Files(connection)
        self.journal = Journal(connection)
        self.fits = Fits(connection)
        self.control = Control(connection)

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Run a block as one transaction, or as part of the one that is open.

        Raises
        ------
        NoSpaceError
            The disk of the SQLite file is full; nothing of the block is kept.
        StoreError
            Anything else that SQLite says, with the file and what to do.
        """
        with foreign_errors(self.path), self.db.atomic():
            yield

    def journal_mode(self) -> str:
        """Return SQLite's journal mode in force: ``wal`` or ``truncate``."""
        return str(self.db.conn.execute("PRAGMA journal_mode").fetchone()[0])

    def close(self) -> None:
        """Close the connection."""
        self.db.close()


@contextmanager
def foreign_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with the file's path."""
    try:
        yield
    except sqlite3.Error as error:
        raise _our_error(error, path) from error


def _our_error(error: sqlite3.Error, path: Path) -> StoreError | NoSpaceError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == _SQLITE_FULL:
        return NoSpaceError(f"{path}: the disk of state_dir is full; free some space there")
    if code in _SQLITE_BUSY:
        return StoreError(
            f"{path}: locked by another program for over {BUSY_TIMEOUT_S:g} s; "
            f"close what has it open (fuser '{path}' names it)"
        )
    if code in _SQLITE_CORRUPT:
        return StoreError(
            f"{path}: is damaged or not an imgsortd database ({error}); move it away and "
            f"start again: pictures in target stay where they are, those in the inbox are "
            f"sorted anew"
        )
    if code == _SQLITE_READONLY:
        return StoreError(f"{path}: cannot be written; check the owner of state_dir")
    return StoreError(f"{path}: SQLite says: {error}")


def open_store(path: Path) -> Store:
    """Open the SQLite file for writing; make it, mode 0600 in a 0700 folder, where it is new.

    Raises
    ------
    StoreError
        The folder cannot be made, the file is damaged, locked, or of a newer imgsortd.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be opened for writing ({error.strerror}); "
            f"state_dir must be a folder that uid {os.geteuid()} can write"
        ) from error
    with foreign_errors(path):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        _check_health(connection, path)
        _set_durability(connection)
        store = Store(connection, path)
        _refuse_newer(store)
        migrations.apply(store.db)
    return store


def open_read_only(path: Path) -> Store:
    """Open the SQLite file for reading; it must exist.

    Raises
    ------
    StoreError
        There is no such file, or it cannot be read.
    """
    if not path.exists():
        raise StoreError(
            f"{path}: no such database; the daemon makes it at its first start "
            f"(imgsortd run -c config.yaml)"
        )
    with foreign_errors(path):
        try:
            connection = _connect(path, "ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            # The daemon died in the middle of a commit, and only a writer may undo its half.
            _connect(path, "rw").close()
            connection = _connect(path, "ro")
    return Store(connection, path)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{_uri_path(path)}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection


def _uri_path(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _check_health(connection: sqlite3.Connection, path: Path) -> None:
    result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        damage = sqlite3.DatabaseError(f"quick_check: {result.splitlines()[-1]}")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _set_durability(connection: sqlite3.Connection) -> None:
    wal = wal_is_safe(sqlite3.sqlite_version_info)
    mode, synchronous = ("WAL", "FULL") if wal else ("TRUNCATE", "EXTRA")
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")


def _refuse_newer(store: Store) -> None:
    known = {migration.name for migration in migrations._migrations}
    newer = [row.name for row in migrations.applied(store.db) if row.name not in known]
    if newer:
        raise StoreError(
            f"{store.path}: was written by a newer imgsortd (schema step {newer[0]}); "
            f"install that version again, or start with another state_dir"
        )


class CommittedJournal:
    """The journal as a running move sees it: every note is committed before the next call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def rename(self, move_id: int, dst: bytes) -> None:
        """Commit another destination name."""
        with self._store.atomic():
            self._store.journal.rename(move_id, dst)

    def mark_copied(self, move_id: int) -> None:
        """Commit that the copy is whole and synced."""
        with self._store.atomic():
            self._store.journal.mark_copied(move_id)
