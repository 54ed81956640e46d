"""The table of files seen: one row for each arrival, its state and where it went."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from imgsortd.records import BY_HAND, IN_REVIEW, Candidate, Choice, ExtractorId, FileState, Stamp
from imgsortd.store.lookup import FileQueries, FileRow
from imgsortd.store.queries import EXTRACTOR, FREE, HERE, NOT_MOVING, OPEN, PLACED
from imgsortd.words import storable

_STAMP = "inode, size_bytes, mtime_ns"
_AT_ONCE = 20_000
_OUTDATED = (
    "sha256 IS NOT NULL AND (state IN ('sorted', 'review') "
    "OR (state = 'duplicate' AND cluster_id IS NOT NULL)) "
    "AND files.id > ? AND NOT EXISTS (SELECT 1 FROM features "
    f"WHERE features.sha256 = files.sha256 AND extractor_id = {EXTRACTOR})"
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file taken into the store; ``sha256`` is known where its bytes were read before."""

    candidate: Candidate
    sha256: bytes | None


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


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of one state and cluster; ``is_read`` tells whether their bytes were hashed."""

    state: str
    cluster_id: int | None
    is_read: bool
    files: int


class Files(FileQueries):
    """Rows of ``files``."""

    def arrive(self, settled: Iterable[tuple[bytes, Stamp]]) -> list[Arrival]:
        """Take settled files in as pending; one whose stamp is as before keeps its hash."""
        now = time.time()
        return [self._arrive(name, stamp, now) for name, stamp in settled]

    def _arrive(self, name: bytes, stamp: Stamp, now: float) -> Arrival:
        row = self._one(
            f"INSERT INTO files(src, {_STAMP}, seen_at, in_inbox, inbox_id) "
            "SELECT ?, ?, ?, ?, ?, 1, id FROM roots WHERE kind = 'inbox' AND is_current "
            "ON CONFLICT(inbox_id, src) WHERE state = 'pending' DO UPDATE SET "
            "sha256 = CASE WHEN inode = excluded.inode AND size_bytes = excluded.size_bytes "
            "AND mtime_ns = excluded.mtime_ns THEN sha256 END, "
            "inode = excluded.inode, size_bytes = excluded.size_bytes, "
            "mtime_ns = excluded.mtime_ns RETURNING id, sha256",
            name,
            stamp.inode,
            stamp.size_bytes,
            stamp.mtime_ns,
            now,
        )
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
        return self._all(
            "SELECT src, reason FROM files WHERE state = 'pending' AND sha256 IS NULL "
            "AND reason != '' ORDER BY id DESC LIMIT ?",
            limit,
        )

    def skip(self, file_id: int, reason: str) -> None:
        """Leave a file in the inbox, whose bytes stand in target already."""
        self._do(
            "UPDATE files SET state = 'duplicate', reason = ?, done_at = ? WHERE id = ?",
            *(storable(reason), time.time(), file_id),
        )

    def end(self, file_id: int, reason: str) -> None:
        """End a file's journey without a move: another row, or none, speaks of it now."""
        self._do(
            "UPDATE files SET state = 'gone', in_inbox = 0, in_target = 0, reason = ?, "
            "done_at = ? WHERE id = ?",
            *(storable(reason), time.time(), file_id),
        )

    def gone(self, file_id: int) -> None:
        """End a pending file that its owner took away; one with an open move is left to it."""
        self._connection.execute(
            "UPDATE files SET state = 'gone', in_inbox = 0, done_at = ?, "
            "reason = 'taken away before it was sorted' "
            f"WHERE id = ? AND state = 'pending' AND {HERE} AND {NOT_MOVING}",
            (time.time(), file_id),
        )

    def restart(self, file_ids: Iterable[int]) -> None:
        """Make files pending and unread again: their bytes changed or their copy is missing.

        A companion has no row until it follows its picture, so it is forgotten instead; so is a
        row whose name in the inbox a newer one speaks of.
        """
        for file_id in sorted(file_ids, reverse=True):
            self._do(
                "UPDATE files SET sha256 = NULL, dst = NULL, target_id = NULL, in_target = 0, "
                "op = NULL, done_at = NULL, in_inbox = companion_of IS NULL, "
                "state = iif(companion_of IS NULL, 'pending', 'gone') WHERE id = ?1 AND NOT "
                "EXISTS (SELECT 1 FROM files AS newer WHERE newer.inbox_id = files.inbox_id "
                "AND newer.src = files.src AND newer.in_inbox AND newer.id > files.id)",
                file_id,
            )
            self._do(
                "UPDATE files SET state = 'gone', in_inbox = 0, in_target = 0, "
                "reason = 'another file has its name' WHERE id = ?1 AND state != 'pending'",
                file_id,
            )

    def forget(self, file_id: int, stamp: Stamp, same_as: int) -> None:
        """Drop a pending row that is an older file with a new stamp, and keep that stamp."""
        for table in ("moves", "proposed_changes"):
            self._do(f"DELETE FROM {table} WHERE file_id = ?", file_id)
        self._do("DELETE FROM files WHERE id = ?", file_id)
        self.refresh(same_as, stamp)

    def edited(self, file_id: int, sha256: bytes, stamp: Stamp) -> None:
        """Keep the bytes that a linked file has now, under both of its names."""
        self.refresh(file_id, stamp)
        self._do("UPDATE files SET sha256 = ? WHERE id = ?", sha256, file_id)
        self._do(
            "UPDATE moves SET sha256 = ?1, size_bytes = iif('inbox' IN (src_root, dst_root) OR "
            "(SELECT op FROM files WHERE id = ?3) = 'hardlink', ?2, size_bytes) "
            "WHERE file_id = ?3 AND phase = 'done'",
            *(sha256, stamp.size_bytes, file_id),
        )

    def refresh(self, file_id: int, stamp: Stamp) -> None:
        """Keep the stamp of a file in the inbox that was only touched."""
        self._connection.execute(
            "UPDATE files SET inode = ?, size_bytes = ?, mtime_ns = ?, in_inbox = 1 WHERE id = ?",
            (stamp.inode, stamp.size_bytes, stamp.mtime_ns, file_id),
        )

    def handled(self) -> Iterator[tuple[bytes, Stamp]]:
        """Yield files that stand in the inbox and need no reading: waiting ones and kept ones."""
        for src, *stamp in self._connection.execute(
            f"SELECT src, {_STAMP} FROM files WHERE in_inbox AND {HERE} "
            "AND sha256 IS NOT NULL ORDER BY id"  # the newest last
        ):
            yield src, Stamp(*stamp)

    def pending_names(self) -> dict[bytes, int]:
        """Return the name and row of every pending file that no move is under way for."""
        return self._names(f"state = 'pending' AND {HERE} AND {NOT_MOVING}")

    def replaced(self, src: bytes, but: int) -> None:
        """Note that a name in the inbox has other bytes now than those that older rows speak of."""
        self._connection.execute(
            "UPDATE files SET in_inbox = 0, state = iif(in_target, state, 'gone'), "
            "reason = iif(in_target, reason, 'replaced in the inbox') "
            f"WHERE src = ? AND {HERE} AND in_inbox AND state != 'pending' AND id != ?",
            (src, but),
        )

    def undone_names(self) -> dict[bytes, int]:
        """Return the name and row of every file that was put back into the inbox."""
        return self._names(f"state = 'undone' AND {HERE}")

    def unwanted_names(self) -> dict[bytes, int]:
        """Return name and row of every file that stays in the inbox, its copy deleted."""
        return self._names(f"state = 'gone' AND in_inbox AND {HERE}")

    def _names(self, where: str) -> dict[bytes, int]:
        return dict(self._all(f"SELECT src, id FROM files WHERE {where}"))

    def forget_source(self, file_ids: Iterable[int]) -> None:
        """Note that files have left the inbox: should they come again, they are sorted."""
        self._connection.executemany(
            "UPDATE files SET in_inbox = 0 WHERE id = ?", [(file_id,) for file_id in file_ids]
        )

    def waiting(self, limit: int) -> list[tuple[Candidate, bytes]]:
        """Return read files that wait for their route and have no open move, oldest first."""
        rows = self._all(
            f"SELECT id, src, sha256, {_STAMP} FROM files INDEXED BY files_waiting "
            f"WHERE state = 'pending' AND sha256 IS NOT NULL AND {HERE} AND {NOT_MOVING} "
            "ORDER BY id LIMIT ?",
            limit,
        )
        return [(Candidate(row[0], row[1], Stamp(*row[3:])), row[2]) for row in rows]

    def count_waiting(self) -> int:
        """Count the files that :meth:`waiting` would return without a limit."""
        unread = f"SELECT count(*) FROM files WHERE state = 'pending' AND {HERE}"
        return len(self.pending_names()) - self._count(f"{unread} AND sha256 IS NULL")

    def staying(self, src: bytes, sha256: bytes, but: int) -> list[tuple[int, bytes | None, str]]:
        """Return (id, dst, state) of other rows for this name and bytes that stay in the inbox.

        Those of copies are among them whose source had other bytes for a while.
        """
        return self._connection.execute(
            "SELECT id, dst, state FROM files WHERE src = ? AND sha256 = ? AND id != ? "
            f"AND {HERE} AND (in_inbox OR (in_target AND op != 'move'))",
            (src, sha256, but),
        ).fetchall()

    def state_of(self, file_id: int) -> FileState | None:
        """Return the state of a file; None where there is no such row."""
        row = self._one("SELECT state FROM files WHERE id = ?", file_id)
        return None if row is None else FileState(row[0])

    def is_pending(self, src: bytes) -> bool:
        """Tell whether a file of this name in the inbox waits to be sorted."""
        where = f"src = ? AND state = 'pending' AND {HERE}"
        return self._is_any(f"SELECT 1 FROM files WHERE {where}", src)

    def same_bytes(self, sha256: bytes, but: int) -> list[tuple[int, bytes]]:
        """Return (id, dst) of other files with these bytes that have found a place."""
        return self._all(
            f"SELECT id, dst FROM files WHERE sha256 = ? AND id != ? AND {PLACED} "
            "AND state IN ('sorted', 'review', 'duplicate') ORDER BY id",
            *(sha256, but),
        )

    def count_twins(self) -> int:
        """Count the files that wait in the inbox and have the bytes of an earlier or sorted one."""
        return self._count(
            "SELECT count(*) FROM files AS one WHERE state = 'pending' AND sha256 IS NOT NULL "
            "AND EXISTS (SELECT 1 FROM files AS other WHERE other.sha256 = one.sha256 "
            "AND other.id != one.id AND (other.state IN ('sorted', 'review') "
            "OR (other.state = 'pending' AND other.id < one.id)))"
        )

    def placed(self) -> Iterator[tuple[int, bytes]]:
        """Yield (id, dst) of every file that was put somewhere under target."""
        yield from self._connection.execute(f"SELECT id, dst FROM files WHERE {PLACED}")

    def placed_elsewhere(self) -> list[int]:
        """Return the files of the inbox whose copies stand in a target of former days."""
        return self._column(
            f"SELECT id FROM files WHERE in_target AND in_inbox AND {HERE} AND NOT ({PLACED})"
        )

    def skipped_names(self) -> dict[bytes, int]:
        """Return name and row of every file that was left in the inbox as a duplicate."""
        return self._names(f"state = 'duplicate' AND in_inbox AND NOT in_target AND {HERE}")

    def wake_skipped(self) -> bool:
        """Let duplicates wait again whose bytes stand nowhere in target any more.

        Returns whether there were any.
        """
        woken = self._column(
            "UPDATE files SET state = 'pending', reason = '', done_at = NULL "
            f"WHERE state = 'duplicate' AND in_inbox AND NOT in_target AND {HERE} AND NOT EXISTS "
            "(SELECT 1 FROM files AS other WHERE other.sha256 = files.sha256 AND other.in_target) "
            "AND NOT EXISTS (SELECT 1 FROM files AS newer WHERE newer.inbox_id = files.inbox_id "
            "AND newer.src = files.src AND newer.state = 'pending') RETURNING id"
        )
        return bool(woken)

    def standing(self) -> Iterator[tuple[int, int]]:
        """Yield (id, cluster id) of each file in a cluster's folder or in review, by id.

        In review it is (id, IN_REVIEW), or (id, BY_HAND) where a person has put it there. No row
        of its own for each: a fit asks it of a million.
        """
        last = 0
        # In parts: a reader that stays would keep the writer from committing.
        while rows := self._connection.execute(
            "SELECT id, CASE WHEN state != 'review' THEN cluster_id "
            f"WHEN {FREE} THEN {IN_REVIEW} ELSE {BY_HAND} END FROM files "
            "WHERE id > ? AND in_target AND (state = 'review' "
            "OR (state IN ('sorted', 'duplicate') AND cluster_id IS NOT NULL)) ORDER BY id LIMIT ?",
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

    def cluster_sizes(self, *, only_duplicates: bool = False) -> dict[int, int]:
        """Return how many files each cluster folder was given, kept duplicates included."""
        states = ("duplicate",) if only_duplicates else ("sorted", "duplicate")
        sizes: Counter[int] = Counter()
        for group in file_groups(self._connection):
            if group.cluster_id is not None and group.state in states:
                sizes[group.cluster_id] += group.files
        return dict(sizes)

    def with_state(self, state: FileState, limit: int) -> Sequence[tuple[bytes, bytes, str]]:
        """Return (src, dst, reason) of the newest files in a state."""
        return self._connection.execute(
            "SELECT src, coalesce(dst, x''), reason FROM files WHERE state = ? "
            "ORDER BY id DESC LIMIT ?",
            (state, limit),
        ).fetchall()

    # --- pictures whose features are to be made anew ---------------------------------

    def count_outdated(self, extractor: ExtractorId) -> int:
        """Count the sorted files that lack features of this extractor."""
        made_by = extractor.weights_digest, extractor.layer
        return self._count(f"SELECT count(*) FROM files WHERE {_OUTDATED}", 0, *made_by)

    def outdated(self, extractor: ExtractorId, after_id: int, limit: int) -> list[FileRow]:
        """Return the next sorted files, by id, that lack features of this extractor."""
        where = f"{_OUTDATED} ORDER BY files.id LIMIT ?"
        made_by = extractor.weights_digest, extractor.layer
        return self._rows(FileRow, where, after_id, *made_by, limit)

    def first_sorted(self, limit: int) -> list[FileRow]:
        """Return the files that were sorted first, oldest first."""
        where = "state = 'sorted' AND sha256 IS NOT NULL ORDER BY id LIMIT ?"
        return self._rows(FileRow, where, limit)

    # --- review -----------------------------------------------------------------------

    def unasked(self, fit_id: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (id, sha256) of files in review that this fit has not been asked about.

        One that it has taken out of review, and that was put back since, is left there; so is
        one that a person has put there.
        """
        return self._connection.execute(
            "SELECT id, sha256 FROM files WHERE state = 'review' AND fit_id IS NOT ? "
            f"AND {FREE} AND NOT EXISTS (SELECT 1 FROM moves WHERE file_id = files.id "
            f"AND (moves.fit_id = ? OR {OPEN})) LIMIT ?",
            (fit_id, fit_id, limit),
        ).fetchall()

    def stays_in_review(self, file_id: int, fit_id: int, choice: Choice) -> None:
        """Note that this fit would send a file in review there, too, and why."""
        self._connection.execute(
            "UPDATE files SET fit_id = ?, distance = ?, reason = ? WHERE id = ?",
            (fit_id, choice.distance, storable(choice.reason), file_id),
        )

    def undecided(self, after: int, limit: int) -> list[int]:
        """Return the next files in review, by number; those that a person has put there are not."""
        return self._column(
            "SELECT id FROM files INDEXED BY files_state WHERE state = 'review' AND id > ? "
            f"AND {FREE} ORDER BY id LIMIT ?",
            after,
            limit,
        )

    def count_kept_in_review(self) -> int:
        """Count the files that a person has put into review, to stay there."""
        return self._count(
            "SELECT count(*) FROM pins CROSS JOIN files USING (sha256) WHERE state = 'review'"
        )


def file_groups(connection: sqlite3.Connection) -> list[FileGroup]:
    """Return the counts that triggers keep (schema.py), each in its transaction.

    A database that an older imgsortd left has none until the daemon has started
    once; its files are counted one by one.
    """
    kept = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'file_counts'").fetchone()
    rows = connection.execute(
        "SELECT state, cluster_id, is_read, files FROM file_counts WHERE files > 0"
        if kept
        else "SELECT state, coalesce(cluster_id, -1) AS cluster, sha256 IS NOT NULL AS is_read, "
        "count(*) FROM files GROUP BY state, cluster, is_read"
    )
    return [
        FileGroup(state, None if cluster == -1 else cluster, bool(is_read), files)
        for state, cluster, is_read, files in rows
    ]
