"""What is known of one file: found by its place, its bytes or its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.core.records import Backbone, ExtractorId, FileState, Layer
from imgsortd.errors import StoreError

_COLUMNS = (
    "id, src, dst, stays, state, sha256, cluster_id, distance, fit_id, reason, seen_at, "
    "companion_of"
)
_STANDS = "state NOT IN ('gone', 'set_aside', 'companion')"


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row of ``files``. ``distance`` and ``reason`` are of the time when it was moved."""

    file_id: int
    src: bytes
    dst: bytes | None
    stays: bool
    state: FileState
    sha256: bytes | None
    cluster_id: int | None
    distance: float | None
    fit_id: int | None
    reason: str
    seen_at: float
    companion_of: int | None

    @property
    def in_target(self) -> bytes | None:
        """Its name below target; None where it stands in the inbox alone."""
        return None if self.state in (FileState.PENDING, FileState.UNDONE) else self.dst


@dataclass(frozen=True, slots=True)
class LastMove:
    """The newest move of a file; ``done_at`` is in Unix seconds."""

    batch: int
    op: str
    done_at: float
    undoes: bool


class Finder:
    """Queries for one file, or a few."""

    def __init__(self, store: Store) -> None:
        self._connection = store.connection

    def _rows(self, where: str, values: tuple[Any, ...]) -> list[FileRow]:
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM files WHERE {where}", values)
        return [
            FileRow(row[0], row[1], row[2], bool(row[3]), FileState(row[4]), *row[5:])
            for row in rows
        ]

    def by_id(self, file_id: int) -> FileRow | None:
        """Return a file by its row."""
        return next(iter(self._rows("id = ?", (file_id,))), None)

    def in_target(self, name: bytes) -> list[FileRow]:
        """Return the files that were put under a name below target, the newest first."""
        return self._rows("dst = ? AND state != 'gone' ORDER BY id DESC", (name,))

    def in_inbox(self, name: bytes) -> list[FileRow]:
        """Return the files that have, or had, a name in the inbox: those there now first."""
        return self._rows(
            "src = ? AND state != 'gone' ORDER BY (stays = 1 OR state = 'pending') DESC, id DESC",
            (name,),
        )

    def same_bytes(self, sha256: bytes) -> list[FileRow]:
        """Return the pictures with these bytes that have a place; the original comes first."""
        return self._rows(f"sha256 = ? AND {_STANDS} ORDER BY state = 'duplicate', id", (sha256,))

    def companions(self, file_id: int) -> list[FileRow]:
        """Return the files that go with a picture."""
        return self._rows("companion_of = ? AND state != 'gone' ORDER BY id", (file_id,))

    def last_move(self, file_id: int) -> LastMove | None:
        """Return the newest move of a file that was done."""
        row = self._connection.execute(
            "SELECT batch, op, coalesce(done_at, planned_at), undoes IS NOT NULL FROM moves "
            "WHERE file_id = ? AND phase = 'done' ORDER BY id DESC LIMIT 1",
            (file_id,),
        ).fetchone()
        return None if row is None else LastMove(row[0], row[1], row[2], bool(row[3]))

    def pin(self, sha256: bytes) -> tuple[int | None, float] | None:
        """Return (cluster id, Unix seconds) of a pin: no cluster is review; None: not pinned."""
        row = self._connection.execute(
            "SELECT cluster_id, pinned_at FROM pins WHERE sha256 = ?", (sha256,)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def fit(self, fit_id: int) -> tuple[str, int, float] | None:
        """Return (trigger, clusters, Unix seconds) of a fit."""
        row = self._connection.execute(
            "SELECT fit_trigger, n_clusters, created_at FROM fits WHERE id = ?", (fit_id,)
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def cluster_names(self) -> dict[int, str]:
        """Return the name of each cluster that has one."""
        rows = self._connection.execute("SELECT id, name FROM clusters WHERE name IS NOT NULL")
        return dict(rows.fetchall())

    def newest_extractor(self) -> ExtractorId | None:
        """Return the extractor that was the last to be new, of those that made features."""
        row = self._connection.execute(
            "SELECT weights_digest, layer, dims, backbone FROM extractors WHERE EXISTS "
            "(SELECT 1 FROM features WHERE extractor_id = extractors.id) ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return None if row is None else ExtractorId(row[0], Layer(row[1]), row[2], Backbone(row[3]))


def check_schema(store: Store) -> None:
    """Refuse a database that only a daemon of this version would bring up to date.

    Raises
    ------
    StoreError
        It has not the tables of near-duplicates and pins, or not the sizes of pictures.
    """
    wanted = {"picture_hashes", "kept_pairs", "pins", "files_shown"}
    found = {row[0] for row in store.connection.execute("SELECT name FROM sqlite_master")}
    if not wanted <= found:
        raise StoreError(
            f"{store.path}: was written by an older imgsortd; start the daemon once "
            f"(imgsortd run -c …), which brings it up to date"
        )
