"""The SQLite file: one writing connection in one thread, any number of readers.

Durability is ``synchronous=FULL``. WAL is used where SQLite's WAL-reset bug is
fixed (3.44.6, 3.50.7, 3.51.3 and later); below, the rollback journal in TRUNCATE
mode with ``synchronous=EXTRA`` is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from imgsortd.adapters.fsops import closing
from imgsortd.adapters.store_backbones import Backbones
from imgsortd.adapters.store_control import Control
from imgsortd.adapters.store_files import Files
from imgsortd.adapters.store_hands import Hands
from imgsortd.adapters.store_hashes import PictureHashes
from imgsortd.adapters.store_health import (
    BUSY_TIMEOUT_S,
    check_health,
    check_in_place,
    foreign_errors,
)
from imgsortd.adapters.store_journal import Journal
from imgsortd.adapters.store_pins import Pins
from imgsortd.adapters.store_placing import Placings
from imgsortd.adapters.store_proposals import Proposals
from imgsortd.adapters.store_records import FitRecords
from imgsortd.errors import StoreError

if TYPE_CHECKING:
    from sqlite_utils import Database

    from imgsortd.adapters.store_fits import Fits

_CACHE_KB = 16_384
# At SQLite's usual 4,096 bytes, a row of `features` (1,062 bytes) does not fit into a page of
# an index tree and takes one of its own besides: 4.7 KB an image instead of 1.2 to 1.4.
_PAGE_BYTES = 8192
_REWRITE_BYTES = 2**31  # above, it would take longer than systemd waits for a start


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
    files, journal, control
        What was seen; what is being moved; the rows through which the daemon and the
        command line speak.
    records, fits
        What is told of fits; the same with features and centers.
    proposals
        What became of each fit, and what those that wait would change.
    backbones
        Sorted files to be read again.
    pins, hands
        What a person has decided; what a person has done in target.
    placings
        What pictures had before a person placed them by a request.
    hashes
        What pictures look like, in 64 bits, and which alike ones are to stay.
    db
        The connection as sqlite-utils sees it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._inode = path.stat().st_ino if path.exists() else None
        self.connection = connection
        self.files = Files(connection)
        self.pins = Pins(connection)
        self.placings = Placings(connection, self.pins)
        self.journal = Journal(connection, self.placings.made)
        self.records = FitRecords(connection)
        self.proposals = Proposals(connection)
        self.control = Control(connection)
        self.backbones = Backbones(connection)
        self.hands = Hands(connection)
        self.hashes = PictureHashes(connection)

    # These two are imported when they are asked for: `status` takes less time than they do.
    @cached_property
    def db(self) -> Database:
        from sqlite_utils import Database

        return Database(self.connection)

    @cached_property
    def fits(self) -> Fits:
        from imgsortd.adapters.store_fits import Fits

        return Fits(self.connection)

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Run a block as one transaction, or as part of the one that is open.

        Raises
        ------
        NoSpaceError
            The disk of the SQLite file is full; nothing of the block is kept.
        StoreLockedError
            Another program holds a lock on it.
        StoreError
            Anything else that SQLite says, with the file and what to do; or the file
            was removed or replaced.
        """
        with foreign_errors(self.path):
            check_in_place(self.path, self._inode)
            if not self.connection.in_transaction:
                # At once for writing: where one has read first, and another process has begun to
                # commit (a request of the command line or the page), SQLite refuses at once
                # instead of waiting. The block's end commits, or rolls back.
                self.connection.execute("BEGIN IMMEDIATE")
                with self._to_its_end():
                    yield
                return
            with self.db.atomic():
                yield

    @contextmanager
    def _to_its_end(self) -> Iterator[None]:
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.rollback()  # nothing, where the error has ended the transaction
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything in a block from one state of the database; write nothing in it.

        Raises
        ------
        StoreError
            As :meth:`atomic`.
        """
        with foreign_errors(self.path):
            self.connection.execute("BEGIN")
            try:
                yield
            finally:
                self.connection.rollback()

    def journal_mode(self) -> str:
        """Return SQLite's journal mode in force: ``wal`` or ``truncate``."""
        return str(self.connection.execute("PRAGMA journal_mode").fetchone()[0])

    def has_tables(self) -> bool:
        """Tell whether the first start has come as far as making the tables."""
        row = self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'errors'")
        return row.fetchone() is not None

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def open_store(path: Path) -> Store:
    """Open the SQLite file for writing; make it, mode 0600 in a 0700 folder, where it is new.

    Raises
    ------
    StoreDamagedError
        It is no database, or its pages do not fit together.
    StoreError
        The folder cannot be made, the file is locked, or of a newer imgsortd.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with closing(fd):
            if os.fstat(fd).st_uid == os.geteuid():
                os.fchmod(fd, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be opened for writing ({error.strerror}); "
            f"state_dir must be a folder that uid {os.geteuid()} can write"
        ) from error
    with foreign_errors(path):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
        check_health(connection, path)
        _set_page_size(connection)
        _set_durability(connection)
        _set_temporary_folder(connection, path.parent)
        store = Store(connection, path)
        _migrate(store)
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


def _set_page_size(connection: sqlite3.Connection) -> None:
    """Give a new file pages that rows of features fit into; write an older file anew, once."""
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if page_bytes >= _PAGE_BYTES or pages * page_bytes > _REWRITE_BYTES:
        return
    with suppress(sqlite3.OperationalError):  # no space, or someone reads: it works as it is
        connection.execute("PRAGMA journal_mode=DELETE")  # in WAL mode pages keep their size
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        connection.execute("VACUUM")


def _set_durability(connection: sqlite3.Connection) -> None:
    wal = wal_is_safe(sqlite3.sqlite_version_info)
    mode, synchronous = ("WAL", "FULL") if wal else ("TRUNCATE", "EXTRA")
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    # With SQLite's usual 2 MB, a commit of thousands of rows writes and syncs half-way.
    connection.execute(f"PRAGMA cache_size={-_CACHE_KB}")


def _set_temporary_folder(connection: sqlite3.Connection, folder: Path) -> None:
    """Let SQLite put a large statement's own journal here: /tmp may be read-only."""
    with suppress(sqlite3.OperationalError, UnicodeEncodeError):  # not in every SQLite
        name = str(folder.absolute()).replace("'", "''")
        connection.execute(f"PRAGMA temp_store_directory='{name}'")


def _migrate(store: Store) -> None:
    from imgsortd.adapters.migrations import migrations

    known = {migration.name for migration in migrations._migrations}
    newer = [row.name for row in migrations.applied(store.db) if row.name not in known]
    if newer:
        raise StoreError(
            f"{store.path}: was written by a newer imgsortd (schema step {newer[0]}); "
            f"install that version again, or start with another state_dir"
        )
    with store.db.atomic():  # all or none: whoever reads beside us knows no schema in between
        migrations.apply(store.db)


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
