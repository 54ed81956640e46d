"""Small pictures that were made before, in an SQLite file of their own: a cache, and no more.

Everything in it can be made again. So a file that is damaged, of another version or not ours is
deleted and made anew, and where it cannot be written, pictures are made each time.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TypeVar

from imgsortd.records import SizePx
from imgsortd.system.filesystem import closing

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION = 1
"""Of the tables and of what is in them; a file with another one is made anew."""
_APPLICATION = 0x494D5448  # "IMTH": says whose file it is
_TABLES = """
CREATE TABLE thumbnails(
  sha256 BLOB PRIMARY KEY,
  width_px INTEGER NOT NULL,
  height_px INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  crc32 INTEGER NOT NULL,
  used_at REAL NOT NULL,
  webp BLOB NOT NULL
);
CREATE INDEX thumbnails_used ON thumbnails(used_at, size_bytes);
"""
_BUSY_TIMEOUT_S = 2.0
_WAL_BYTES = 4 << 20  # what may lie beside the file for long
_WAL_PAGES = 500
_KEPT_SHARE = 0.9  # left when something must go: seldom many go at once, not always one
_MOST_EVICTED_BYTES, _LEAST_EVICTED = 16 << 20, 16  # whoever wants a picture meanwhile waits
_VACUUM_PAGES, _VACUUM_STEPS = 500, 8  # in steps: what was moved lies in the WAL until it is copied
_USED_AGAIN_S = 3600.0  # a use is noted once an hour: reading should not write
_NOTED_AT_ONCE = 200
_IDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Cached:
    """A small picture, and the upright size of the picture that it was made of."""

    webp: bytes
    size_px: SizePx


class ThumbnailCache:
    """Small pictures by the SHA-256 of the files they were made of; for any thread.

    What was used least recently goes first. Nothing here raises for the file's sake: a cache
    that cannot be used has nothing, and the log says so once.

    Parameters
    ----------
    path
        The file, made with mode 0600 when the first picture is kept.
    max_bytes
        About what it may take on disk, the log beside it (:data:`_WAL_BYTES`) aside; 0 keeps
        nothing.
    """

    def __init__(self, path: Path, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._used: dict[bytes, float] = {}
        self._is_told = self._is_closed = False

    def get(self, sha256: bytes) -> Cached | None:
        """Return what is kept of a picture; None where nothing is."""
        return self._use(lambda connection: self._get(connection, sha256))

    def put(self, sha256: bytes, cached: Cached) -> None:
        """Keep a picture, in the place of one that was kept."""
        if len(cached.webp) <= self._max_bytes // 2:
            self._use(lambda connection: self._put(connection, sha256, cached), make=True)

    def sizes(self, hashes: Iterable[bytes]) -> dict[bytes, SizePx]:
        """Return the upright size of each of these pictures that is kept."""
        return self._use(lambda connection: _sizes(connection, hashes)) or {}

    def close(self) -> None:
        """Close the file; nothing is kept or found from then on."""
        self._use(self._note_used)
        with self._lock:
            self._is_closed = True
            self._drop()

    def _use(self, do: Callable[[sqlite3.Connection], T], *, make: bool = False) -> T | None:
        """Do something with the file, alone; None where it is not there (nor made) or at fault."""
        with self._lock:
            try:
                connection = self._open(make=make)
                return None if connection is None else do(connection)
            except (sqlite3.Error, OSError, _DamagedError) as error:
                self._drop()
                if _is_damage(error):
                    self._begin_anew(str(error))
                else:
                    self._tell(error)
        return None

    def _get(self, connection: sqlite3.Connection, sha256: bytes) -> Cached | None:
        row = connection.execute(
            "SELECT webp, width_px, height_px, crc32, used_at FROM thumbnails WHERE sha256 = ?",
            (sha256,),
        ).fetchone()
        if row is None:
            return None
        webp, width_px, height_px, crc32, used_at = row
        if zlib.crc32(webp) != crc32:
            raise _DamagedError("a picture in it is not what was kept")
        now = self._clock()
        if abs(now - used_at) > _USED_AGAIN_S:  # or the clock was set back
            self._used[sha256] = now
            if len(self._used) >= _NOTED_AT_ONCE:
                self._note_used(connection)
        return Cached(webp, (width_px, height_px))

    def _put(self, connection: sqlite3.Connection, sha256: bytes, cached: Cached) -> None:
        self._note_used(connection)
        crc32, now = zlib.crc32(cached.webp), self._clock()
        connection.execute(
            "INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?, ?, ?, ?, ?)",
            (sha256, *cached.size_px, len(cached.webp), crc32, now, cached.webp),
        )
        self._keep_to_size(connection)
        self._is_told = False

    def _open(self, *, make: bool) -> sqlite3.Connection | None:
        if self._connection is not None and os.lstat(self._path).st_ino != self._inode:
            self._drop()  # what is kept in a deleted file takes space, and is gone at the end
        if self._connection is not None or self._is_closed or self._max_bytes <= 0:
            return self._connection
        if not make and not os.path.lexists(self._path):
            return None
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with closing(fd):
            os.fchmod(fd, 0o600)
            self._inode = os.fstat(fd).st_ino
        self._connection = connection = sqlite3.connect(
            self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        if _pragma(connection, "page_count") == 0:
            _make_tables(connection)
        about = (_pragma(connection, "application_id"), _pragma(connection, "user_version"))
        if about != (_APPLICATION, VERSION):
            raise _DamagedError(f"expected version {VERSION} of a thumbnail cache, got {about}")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        self._keep_to_size(connection)  # it may have been allowed more
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _begin_anew(self, reason: str) -> None:
        log.warning("thumbnail cache is made anew path=%s reason=%r", self._path, reason)
        self._used.clear()
        try:
            # The log first: SQLite would take a stranger's log for that of a new file.
            for suffix in ("-wal", "-shm", "-journal", ""):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        """Say once that there is no cache; the next picture that is kept takes it back."""
        if not self._is_told:
            log.warning("thumbnail cache cannot be used path=%s reason=%r", self._path, str(error))
        self._is_told = True

    def _note_used(self, connection: sqlite3.Connection) -> None:
        used, self._used = self._used, {}
        if used:
            with _transaction(connection):
                connection.executemany(
                    "UPDATE thumbnails SET used_at = ? WHERE sha256 = ?",
                    [(at, sha256) for sha256, at in used.items()],
                )

    def _keep_to_size(self, connection: sqlite3.Connection) -> None:
        """Let the least recently used go where there is too much; give the disk space back.

        Counted are pages, as they are on disk. Free ones are used again, so that the file need
        not shrink, but where it is larger than it may be; far too much goes in parts.
        """
        page_bytes = _pragma(connection, "page_size")
        in_use = _pages_in_use(connection) * page_bytes
        kept = max(_KEPT_SHARE * self._max_bytes, in_use - _MOST_EVICTED_BYTES)
        while in_use > self._max_bytes and in_use > kept and _evict(connection, in_use - kept):
            in_use = _pages_in_use(connection) * page_bytes
        for _ in range(_VACUUM_STEPS):
            is_over = _pragma(connection, "page_count") * page_bytes > self._max_bytes
            if not is_over or not _pragma(connection, "freelist_count"):
                break
            # execute() takes one step of it, which is one page.
            connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")


class _DamagedError(Exception):
    """The file is not what this version keeps."""


def _sizes(connection: sqlite3.Connection, hashes: Iterable[bytes]) -> dict[bytes, SizePx]:
    found: dict[bytes, SizePx] = {}
    rest = iter(hashes)
    while part := list(islice(rest, _IDS_AT_ONCE)):
        rows = connection.execute(
            "SELECT sha256, width_px, height_px FROM thumbnails "
            f"WHERE sha256 IN ({','.join('?' * len(part))})",
            part,
        )
        found.update({sha256: (width_px, height_px) for sha256, width_px, height_px in rows})
    return found


def _is_damage(error: Exception) -> bool:
    """Tell whether a file is at fault, and not the disk, or a program that has it open."""
    if isinstance(error, _DamagedError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # SQLITE_ERROR: a table or a column is not there.
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make a new file. One that was left half-way has no version, and is made anew."""
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only before anything is in it
    connection.execute("PRAGMA journal_mode=WAL")
    with _transaction(connection):
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={_APPLICATION}")
        connection.execute(f"PRAGMA user_version={VERSION}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have done so itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _pages_in_use(connection: sqlite3.Connection) -> int:
    return _pragma(connection, "page_count") - _pragma(connection, "freelist_count")


def _evict(connection: sqlite3.Connection, least_bytes: float) -> int:
    """Delete the least recently used, about so many bytes of them; return how many."""
    room, chosen = least_bytes, list[tuple[int]]()
    for rowid, size_bytes in connection.execute(
        "SELECT rowid, size_bytes FROM thumbnails ORDER BY used_at"
    ):
        if room <= 0 and len(chosen) >= _LEAST_EVICTED:
            break
        chosen.append((rowid,))
        room -= size_bytes
    with _transaction(connection):
        connection.executemany("DELETE FROM thumbnails WHERE rowid = ?", chosen)
    return len(chosen)
