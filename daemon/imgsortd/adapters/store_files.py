"""The table of files seen: one row for each arrival, its state and where it went."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from imgsortd.adapters.store_counts import file_groups
from imgsortd.core.records import Candidate, FileState, Stamp

_STAMP = "inode, size_bytes, mtime_ns"
_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file taken into the store; ``sha256`` is known where its bytes were read before."""

    candidate: Candidate
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a sorted file stands."""

    dst: bytes
    sha256: bytes
    cluster_id: int
    state: FileState


@dataclass(frozen=True, slots=True)
class Counts:
    """Files by state. ``seen`` is the sum of the others."""

    seen: int = 0
    sorted: int = 0
    review: int = 0
    set_aside: int = 0
    duplicates: int = 0
    pending: int = 0
    undone: int = 0
    companions: int = 0


def storable(text: str) -> str:
    """Escape what is no character: for a name that is not UTF-8, SQLite would refuse the row."""
    return text.encode("utf-8", "backslashreplace").decode()


class Files:
    """Rows of ``files``.

    Attributes
    ----------
    is_away
        Tells of a row whether its file may stand where the inbox was before: it is not gone.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.is_away: Callable[[int], bool] = lambda _: False

    def arrive(self, settled: Iterable[tuple[bytes, Stamp]]) -> list[Arrival]:
        """Take settled files in as pending; one whose stamp is as before keeps its hash."""
        now = time.time()
        return [self._arrive(name, stamp, now) for name, stamp in settled]

    def _arrive(self, name: bytes, stamp: Stamp, now: float) -> Arrival:
        row = self._connection.execute(
            f"INSERT INTO files(src, {_STAMP}, seen_at) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT(src) WHERE state = 'pending' DO UPDATE SET "
            "sha256 = CASE WHEN inode = excluded.inode AND size_bytes = excluded.size_bytes "
            "AND mtime_ns = excluded.mtime_ns THEN sha256 END, "
            "inode = excluded.inode, size_bytes = excluded.size_bytes, "
            "mtime_ns = excluded.mtime_ns RETURNING id, sha256",
            (name, stamp.inode, stamp.size_bytes, stamp.mtime_ns, now),
        ).fetchone()
        return Arrival(Candidate(row[0], name, stamp), row[1])

    def set_read(self, candidate: Candidate, sha256: bytes) -> None:
        """Keep the hash of a file's bytes."""
        self._connection.execute(
            "UPDATE files SET sha256 = ?, reason = '' WHERE id = ?", (sha256, candidate.file_id)
        )

    def waits(self, file_id: int, reason: str) -> None:
        """Say for ``status`` why a pending file was not read this time."""
        reason = storable(reason)
        self._connection.execute(
            "UPDATE files SET reason = ? WHERE id = ? AND state = 'pending' AND reason != ?",
            (reason, file_id, reason),
        )

    def unread(self, limit: int) -> list[tuple[bytes, str]]:
        """Return (src, reason) of the newest files that could not be read yet."""
        return self._connection.execute(
            "SELECT src, reason FROM files WHERE state = 'pending' AND sha256 IS NULL "
            "AND reason != '' ORDER BY id DESC LIMIT ?",
            (limit,),
        ).fetchall()

    def finish(
        self,
        file_id: int,
        state: FileState,
        *,
        stays: bool,
        reason: str = "",
    ) -> None:
        """End a file's journey without a move: a duplicate that is skipped, a file gone."""
        self._connection.execute(
            "UPDATE files SET state = ?, stays = ?, reason = ?, done_at = ? WHERE id = ?",
            (state, stays, storable(reason), time.time(), file_id),
        )

    def gone(self, file_id: int) -> None:
        """End a pending file that its owner took away; one with an open move is left to it."""
        if self.is_away(file_id):
            return
        self._connection.execute(
            "UPDATE files SET state = 'gone', reason = 'taken away before it was sorted', "
            "done_at = ? WHERE id = ? AND state = 'pending' AND id NOT IN "
            "(SELECT file_id FROM moves WHERE phase IN ('planned', 'copied'))",
            (time.time(), file_id),
        )

    def restart(self, file_ids: Iterable[int]) -> None:
        """Make files pending and unread again: their bytes changed or their copy is missing.

        A companion has no row until it follows its picture, so it is forgotten instead.
        """
        self._connection.executemany(
            "UPDATE files SET state = iif(companion_of IS NULL, 'pending', 'gone'), stays = 0, "
            "sha256 = NULL, dst = NULL, done_at = NULL WHERE id = ?",
            [(file_id,) for file_id in file_ids],
        )

    def forget(self, file_id: int, stamp: Stamp, same_as: int) -> None:
        """Drop a pending row that is an older file with a new stamp, and keep that stamp."""
        for table in ("moves", "proposed_changes"):
            self._connection.execute(f"DELETE FROM {table} WHERE file_id = ?", (file_id,))
        self._connection.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self._connection.execute(
            "UPDATE files SET inode = ?, size_bytes = ?, mtime_ns = ? WHERE id = ?",
            (stamp.inode, stamp.size_bytes, stamp.mtime_ns, same_as),
        )

    def handled(self) -> Iterator[tuple[bytes, Stamp]]:
        """Yield files that stand in the inbox and need no reading: waiting ones and kept ones."""
        for src, *stamp in self._connection.execute(
            f"SELECT src, {_STAMP} FROM files WHERE stays = 1 "
            "OR (state = 'pending' AND sha256 IS NOT NULL) ORDER BY id"  # the newest last
        ):
            yield src, Stamp(*stamp)

    def pending_names(self) -> dict[bytes, int]:
        """Return the name and row of every pending file that no move is under way for."""
        rows = self._connection.execute(
            "SELECT src, id FROM files WHERE state = 'pending' AND id NOT IN "
            "(SELECT file_id FROM moves WHERE phase IN ('planned', 'copied'))"
        )
        return dict(rows.fetchall())

    def end_undone(self, src: bytes, but: int) -> None:
        """End files of this name that were put back into the inbox: it has other bytes now."""
        self._connection.execute(
            "UPDATE files SET state = 'gone', stays = 0, reason = 'changed after an undo' "
            "WHERE src = ? AND state = 'undone' AND id != ?",
            (src, but),
        )

    def undone_names(self) -> dict[bytes, int]:
        """Return the name and row of every file that was put back into the inbox."""
        rows = self._connection.execute("SELECT src, id FROM files WHERE state = 'undone'")
        return dict(rows.fetchall())

    def unwanted_names(self) -> dict[bytes, int]:
        """Return name and row of every file that stays in the inbox, its copy deleted."""
        rows = self._connection.execute("SELECT src, id FROM files WHERE state = 'gone' AND stays")
        return dict(rows.fetchall())

    def forget_source(self, file_ids: Iterable[int]) -> None:
        """Note that files have left the inbox: should they come again, they are sorted."""
        self._connection.executemany(
            "UPDATE files SET stays = 0 WHERE id = ?", [(file_id,) for file_id in file_ids]
        )

    def waiting(self, limit: int) -> list[tuple[Candidate, bytes]]:
        """Return read files that wait for their route and have no open move, oldest first."""
        rows = self._connection.execute(
            f"SELECT id, src, sha256, {_STAMP} FROM files INDEXED BY files_waiting "
            "WHERE state = 'pending' AND sha256 IS NOT NULL AND id NOT IN "
            "(SELECT file_id FROM moves WHERE phase IN ('planned', 'copied')) "
            "ORDER BY id LIMIT ?",
            (limit,),
        )
        return [(Candidate(row[0], row[1], Stamp(*row[3:])), row[2]) for row in rows]

    def count_waiting(self) -> int:
        """Count the files that :meth:`waiting` would return without a limit."""
        return len(self.pending_names()) - self._count_unread()

    def _count_unread(self) -> int:
        row = self._connection.execute(
            "SELECT count(*) FROM files WHERE state = 'pending' AND sha256 IS NULL"
        ).fetchone()
        return int(row[0])

    def staying(self, src: bytes, sha256: bytes, but: int) -> list[tuple[int, bytes | None, str]]:
        """Return (id, dst, state) of other rows for this name and bytes that stay in the inbox."""
        rows = self._connection.execute(
            "SELECT id, dst, state FROM files "
            "WHERE src = ? AND sha256 = ? AND id != ? AND stays = 1",
            (src, sha256, but),
        )
        return rows.fetchall()

    def same_bytes(self, sha256: bytes, but: int) -> list[tuple[int, bytes | None, str]]:
        """Return (id, dst, state) of other files with these bytes that have found a place."""
        rows = self._connection.execute(
            "SELECT id, dst, state FROM files WHERE sha256 = ? AND id != ? "
            "AND state IN ('sorted', 'review', 'duplicate') ORDER BY id",
            (sha256, but),
        )
        return rows.fetchall()

    def count_twins(self) -> int:
        """Count the files that wait in the inbox and have the bytes of an earlier or sorted one."""
        row = self._connection.execute(
            "SELECT count(*) FROM files AS one WHERE state = 'pending' AND sha256 IS NOT NULL "
            "AND EXISTS (SELECT 1 FROM files AS other WHERE other.sha256 = one.sha256 "
            "AND other.id != one.id AND (other.state IN ('sorted', 'review') "
            "OR (other.state = 'pending' AND other.id < one.id)))"
        ).fetchone()
        return int(row[0])

    def placed(self) -> Iterator[tuple[int, bytes]]:
        """Yield (id, dst) of every file that was put somewhere under target."""
        yield from self._connection.execute(
            "SELECT id, dst FROM files WHERE dst IS NOT NULL AND state NOT IN ('pending', 'gone')"
        )

    def placed_in(self, file_id: int) -> Placed | None:
        """Return where a file stands in a cluster folder, or None where it does not."""
        row = self._connection.execute(
            "SELECT dst, sha256, cluster_id, state FROM files WHERE id = ? "
            "AND dst IS NOT NULL AND cluster_id IS NOT NULL AND state IN ('sorted', 'duplicate')",
            (file_id,),
        ).fetchone()
        return None if row is None else Placed(row[0], row[1], row[2], FileState(row[3]))

    def in_review(self, file_id: int) -> tuple[bytes, bytes] | None:
        """Return (dst, sha256) of a file that stands in review, or None where it does not."""
        row: tuple[bytes, bytes] | None = self._connection.execute(
            "SELECT dst, sha256 FROM files WHERE id = ? AND state = 'review' AND dst IS NOT NULL",
            (file_id,),
        ).fetchone()
        return row

    def standing(self) -> Iterator[tuple[int, int]]:
        """Yield (id, cluster id) of each file in a cluster's folder, and (id, -1) in review, by id.

        Those that a person has put into review are (id, -3).
        """
        last = 0
        # In parts: a reader that stays would keep the writer from committing.
        while rows := self._connection.execute(
            "SELECT id, CASE WHEN state != 'review' THEN cluster_id "
            "WHEN EXISTS (SELECT 1 FROM pins WHERE pins.sha256 = files.sha256) THEN -3 "
            "ELSE -1 END FROM files WHERE id > ? AND dst IS NOT NULL AND (state = 'review' OR "
            "(state IN ('sorted', 'duplicate') AND cluster_id IS NOT NULL)) ORDER BY id LIMIT ?",
            (last, _AT_ONCE),
        ).fetchall():
            yield from rows
            last = rows[-1][0]

    def counts(self) -> Counts:
        """Count the files by state; files that their owner took away are not counted."""
        by_state: Counter[str] = Counter()
        for group in file_groups(self._connection):
            by_state[group.state] += group.files
        return Counts(
            seen=by_state.total() - by_state["gone"],
            sorted=by_state["sorted"],
            review=by_state["review"],
            set_aside=by_state["set_aside"],
            duplicates=by_state["duplicate"],
            pending=by_state["pending"],
            undone=by_state["undone"],
            companions=by_state["companion"],
        )

    def cluster_sizes(self) -> dict[int, int]:
        """Return how many files each cluster folder was given, kept duplicates included."""
        sizes: Counter[int] = Counter()
        for group in file_groups(self._connection):
            if group.cluster_id is not None and group.state in ("sorted", "duplicate"):
                sizes[group.cluster_id] += group.files
        return dict(sizes)

    def with_state(self, state: FileState, limit: int) -> Sequence[tuple[bytes, bytes, str]]:
        """Return (src, dst, reason) of the newest files in a state."""
        return self._connection.execute(
            "SELECT src, coalesce(dst, x''), reason FROM files WHERE state = ? "
            "ORDER BY id DESC LIMIT ?",
            (state, limit),
        ).fetchall()
