"""The SQLite file: one writing connection in one thread, any number of readers.

Durability is ``synchronous=FULL``. WAL is used where SQLite's WAL-reset bug is
fixed (3.44.6, 3.50.7, 3.51.3 and later); below, the rollback journal in TRUNCATE
mode with ``synchronous=EXTRA`` is.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, overload

from imgsortd.errors import StoreError
from imgsortd.store.audit import TargetListing
from imgsortd.store.control import Control
from imgsortd.store.files import Files
from imgsortd.store.fits import FitRecords
from imgsortd.store.folders import TargetFolders
from imgsortd.store.hashes import PictureHashes
from imgsortd.store.health import (
    BUSY_TIMEOUT_S,
    check_health,
    check_in_place,
    foreign_errors,
    our_error,
)
from imgsortd.store.library import LibraryFile
from imgsortd.store.lookup import FileLookup, StoreCompanions
from imgsortd.store.moves import Journal
from imgsortd.store.pins import Pins
from imgsortd.store.roots import RootRows
from imgsortd.system.filesystem import closing

if TYPE_CHECKING:
    from sqlite_utils import Database

    from imgsortd.store.features import Fits
    from imgsortd.store.shown import WebRows

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
    files, lookup, companions
        What was seen; one file, or a few; files that go with a picture.
    journal, pins
        What is being moved, and was; what a person has decided.
    roots, library
        The folders that all this is of; what the library is known by without its database.
    records, fits
        What is told of fits; the same with features and centers.
    hands, audit
        What a person has done in target; the rows against a listing of it.
    hashes
        What pictures look like, in 64 bits, and which alike ones are to stay.
    control, shown
        The rows through which daemon and command line speak; what the page shows.
    db
        The connection as sqlite-utils sees it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._inode = path.stat().st_ino if path.exists() else None
        self.connection = connection
        self.files = Files(connection)
        self.lookup = FileLookup(connection)
        self.companions = StoreCompanions(connection)
        self.pins = Pins(connection)
        self.roots = RootRows(connection)
        self.library = LibraryFile(path.parent)
        self.journal = Journal(connection, self.library, self.pins.made)
        self.records = FitRecords(connection)
        self.hands = TargetFolders(connection)
        self.audit = TargetListing(connection)
        self.hashes = PictureHashes(connection)
        self.control = Control(connection)

    # These are imported when they are asked for: `status` takes less time than they do.
    @cached_property
    def db(self) -> Database:
        from sqlite_utils import Database

        return Database(self.connection)

    @cached_property
    def fits(self) -> Fits:
        from imgsortd.store.features import Fits

        return Fits(self.connection)

    @cached_property
    def shown(self) -> WebRows:
        from imgsortd.store.shown import WebRows

        return WebRows(self.connection)

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
            if self.connection.in_transaction:
                with self.db.atomic():
                    yield
                return
            # At once for writing: where one has read first, and another process has begun to
            # commit (a request of the command line or the page), SQLite refuses at once
            # instead of waiting.
            self.connection.execute("BEGIN IMMEDIATE")
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

    def is_of_this_version(self) -> bool:
        """Tell whether it has the tables and sizes that a daemon of this version adds."""
        found = {row[0] for row in self.connection.execute("SELECT name FROM sqlite_master")}
        return {"picture_hashes", "kept_pairs", "pins", "files_shown", "roots"} <= found

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> Self:
        """Hand the store to a block that it is closed after."""
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Close it; what SQLite has said in the block is raised in our words."""
        self.close()
        if isinstance(error, sqlite3.Error):
            raise our_error(error, self.path) from error


def open_for_writing(path: Path) -> Store:
    """Open the SQLite file for writing; make it, mode 0600 in a 0700 folder, where it is new.

    As all three ways to open it, for a ``with`` block.

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


@overload
def open_for_reading(
    path: Path,
    *,
    if_there: Literal[False] = False,
    any_schema: bool = False,
    one_moment: bool = False,
) -> Store: ...


@overload
def open_for_reading(
    path: Path, *, if_there: Literal[True], any_schema: bool = False, one_moment: bool = False
) -> AbstractContextManager[Store | None]: ...


def open_for_reading(
    path: Path, *, if_there: bool = False, any_schema: bool = False, one_moment: bool = False
) -> AbstractContextManager[Store | None]:
    """Open the SQLite file for reading, beside a daemon or without one.

    Parameters
    ----------
    if_there
        Give None where no daemon has made it yet, instead of an error.
    any_schema
        Take also one of an older imgsortd: for what tells how the daemon does, or of damage.
        All else would ask for tables that it lacks.
    one_moment
        Let all that is read be of one moment: counts taken apart would not add up. Not for
        long: in the journal mode of an older SQLite, nobody can commit meanwhile.

    Raises
    ------
    StoreError
        There is no such file, it cannot be read, or it is of an older imgsortd.
    """
    if not path.exists():
        if if_there:
            return nullcontext()
        raise StoreError(
            f"{path}: no such database; the daemon makes it at its first start "
            f"(imgsortd run -c config.yaml)"
        )
    with foreign_errors(path), ExitStack() as stack:
        try:
            connection = _connect(path, "ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            # The daemon died in the middle of a commit, and only a writer may undo its half.
            _connect(path, "rw").close()
            connection = _connect(path, "ro")
        store = stack.enter_context(Store(connection, path))
        if one_moment:
            connection.execute("BEGIN")
        # For the blink of the first start there are no tables.
        if if_there and not store.has_tables():
            return nullcontext()
        if not any_schema:
            _check_schema(store)
        stack.pop_all()
    return store


def open_beside_daemon(path: Path) -> Store:
    """Open the SQLite file, which is there, for a few rows beside the daemon that owns it.

    Its schema and durability are the daemon's.

    Raises
    ------
    StoreError
        It cannot be opened.
    """
    with foreign_errors(path):
        return Store(_connect(path, "rw"), path)


def _check_schema(store: Store) -> None:
    """Refuse a database of an older version."""
    if not store.is_of_this_version():
        raise StoreError(
            f"{store.path}: was written by an older imgsortd; start the daemon once "
            f"(imgsortd run -c …), which brings it up to date"
        )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    name = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(f"file:{name}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection


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
    from imgsortd.store.schema import migrations

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
