"""What is known of one file: found by its place, its bytes or its row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from imgsortd.records import Backbone, ExtractorId, FileState, Layer, Op
from imgsortd.store.queries import HERE, NOT_MOVING, PLACED, Queries, marks, parts

_ELSEWHERE = "(SELECT path FROM roots WHERE roots.id = {} AND NOT is_current)"
_COLUMNS = (
    "id, src, dst, in_inbox, state, sha256, cluster_id, distance, fit_id, reason, seen_at, "
    "companion_of, size_bytes, done_at, in_target, op, "
    f"{_ELSEWHERE.format('inbox_id')}, {_ELSEWHERE.format('target_id')}"
)
_STANDS = "state NOT IN ('gone', 'set_aside', 'companion')"


@dataclass(frozen=True, slots=True)
class Absent:
    """A row of the store whose file does not stand where it was put."""

    file_id: int
    dst: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class FileRow:
    """A row of ``files``, as :data:`_COLUMNS` name it.

    ``src`` is the name that it came with, ``dst`` its last one below target; ``distance`` and
    ``reason`` are of the time when it was moved, ``op`` is how it was put there, None where
    nobody knows. ``inbox`` and ``target`` are where the folders of the two names were last, None
    where they are those in use. What goes through all files reads fewer columns.
    """

    file_id: int
    src: bytes
    dst: bytes | None
    is_in_inbox: bool
    state: FileState
    sha256: bytes | None
    cluster_id: int | None
    distance: float | None
    fit_id: int | None
    reason: str
    seen_at: float
    companion_of: int | None
    size_bytes: int
    done_at: float | None = None
    is_in_target: bool = False
    op: Op | None = None
    inbox: bytes | None = None
    target: bytes | None = None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Self:
        """Make it of a row's :data:`_COLUMNS`."""
        file_id, src, dst, in_inbox, state, *others, in_target, op, inbox, target = row
        others += [bool(in_target), None if op is None else Op(op), inbox, target]
        return cls(file_id, src, dst, bool(in_inbox), FileState(state), *others)

    @property
    def in_target(self) -> bytes | None:
        """Its name below target; None where it stands in the inbox alone."""
        return None if self.state in (FileState.PENDING, FileState.UNDONE) else self.dst


@dataclass(frozen=True, slots=True)
class Standing(FileRow):
    """The row of a file that was put below target: its name there and its bytes are known."""

    dst: bytes
    sha256: bytes

    @property
    def absent(self) -> Absent:
        """It as a file that is missing."""
        return Absent(self.file_id, self.dst, self.sha256)


@dataclass(frozen=True, slots=True)
class LastMove:
    """The newest move of a file; ``done_at`` is in Unix seconds."""

    batch: int
    op: str
    done_at: float
    undoes: bool


Row = TypeVar("Row", bound=FileRow)


def extractor_of(weights_digest: str, layer: str, dims: int, backbone: str) -> ExtractorId:
    """Make what made features of the columns of its row."""
    return ExtractorId(weights_digest, Layer(layer), dims, Backbone(backbone))


class FileQueries(Queries):
    """Queries that give rows of ``files``."""

    def _rows(self, kind: type[Row], where: str, *values: Any) -> list[Row]:
        rows = self._all(f"SELECT {_COLUMNS} FROM files WHERE {where}", *values)
        return [kind.of(row) for row in rows]


class FileLookup(FileQueries):
    """Queries for one file, or a few."""

    def by_id(self, file_id: int) -> FileRow | None:
        """Return a file by its row."""
        return next(iter(self._rows(FileRow, "id = ?", file_id)), None)

    def by_ids(self, ids: Iterable[int]) -> dict[int, FileRow]:
        """Return files by their rows; those without one are left out."""
        found = [
            row
            for part in parts(list(ids))
            for row in self._rows(FileRow, f"id IN {marks(part)}", *part)
        ]
        return {row.file_id: row for row in found}

    def newest(self, state: FileState, limit: int) -> list[FileRow]:
        """Return the newest files in a state."""
        return self._rows(FileRow, "state = ? ORDER BY id DESC LIMIT ?", state, limit)

    def first_of(self, cluster_id: int, limit: int) -> list[FileRow]:
        """Return the first files of a cluster, for one whose features are not kept."""
        where = "cluster_id = ? AND state = 'sorted' ORDER BY id LIMIT ?"
        return self._rows(FileRow, where, cluster_id, limit)

    def in_target(self, name: bytes) -> list[FileRow]:
        """Return the files that were put under a name below target, the newest first."""
        return self._rows(FileRow, f"dst = ? AND {PLACED} ORDER BY id DESC", name)

    def in_inbox(self, name: bytes) -> list[FileRow]:
        """Return the files that have, or had, a name in the inbox: those there now first."""
        where = f"src = ? AND {HERE} AND state != 'gone' ORDER BY in_inbox DESC, id DESC"
        return self._rows(FileRow, where, name)

    def same_bytes(self, sha256: bytes) -> list[FileRow]:
        """Return the pictures with these bytes that have a place; the original comes first."""
        where = f"sha256 = ? AND {_STANDS} ORDER BY state = 'duplicate', id"
        return self._rows(FileRow, where, sha256)

    def companions(self, file_id: int) -> list[FileRow]:
        """Return the files that go with a picture."""
        return self._rows(FileRow, "companion_of = ? AND state != 'gone' ORDER BY id", file_id)

    def last_move(self, file_id: int) -> LastMove | None:
        """Return the newest move of a file that was done."""
        row = self._one(
            "SELECT batch, op, coalesce(done_at, planned_at), undoes IS NOT NULL FROM moves "
            "WHERE file_id = ? AND phase = 'done' ORDER BY id DESC LIMIT 1",
            file_id,
        )
        return None if row is None else LastMove(row[0], row[1], row[2], bool(row[3]))

    def cluster_names(self) -> dict[int, str]:
        """Return the name of each cluster that has one."""
        return dict(self._all("SELECT id, name FROM clusters WHERE name IS NOT NULL"))

    def newest_extractor(self) -> ExtractorId | None:
        """Return the extractor that was the last to be new, of those that made features."""
        row = self._one(
            "SELECT weights_digest, layer, dims, backbone FROM extractors WHERE EXISTS "
            "(SELECT 1 FROM features WHERE extractor_id = extractors.id) ORDER BY id DESC LIMIT 1"
        )
        return None if row is None else extractor_of(*row)


class StoreCompanions(FileQueries):
    """Queries over ``files`` and ``moves``."""

    def pictures(self, stems: Iterable[bytes]) -> list[FileRow]:
        """Return the pictures that were seen under these stems; for each name the newest."""
        return self._pictures("src", HERE, stems)

    def placed_pictures(self, stems: Iterable[bytes]) -> list[FileRow]:
        """Return the pictures that stand below target under these stems."""
        return self._pictures("dst", PLACED, stems)

    def _pictures(self, column: str, where: str, stems: Iterable[bytes]) -> list[FileRow]:
        found: dict[bytes, FileRow] = {}
        for stem in stems:
            # "/" follows "." in ASCII: the range holds every name that begins with the stem
            # and a dot, and the index has it in one place.
            rows = self._rows(
                FileRow,
                f"{column} IS NOT NULL AND ({column} = ? OR ({column} >= ? AND {column} < ?)) "
                f"AND {where} AND companion_of IS NULL AND state != 'gone' "
                "ORDER BY state = 'pending', id",
                *(stem, stem + b".", stem + b"/"),
            )
            for picture in rows:
                name = picture.src if column == "src" else picture.dst
                assert name is not None
                found[name] = picture
        return list(found.values())

    def take(self, file_id: int, picture_id: int, sha256: bytes) -> None:
        """Make a row that has just arrived one of a companion."""
        self._connection.execute(
            "UPDATE files SET companion_of = ?, sha256 = ? WHERE id = ?",
            (picture_id, sha256, file_id),
        )

    def of(self, picture_id: int) -> list[Standing]:
        """Return a picture's companions below target that no move is under way for."""
        stands = f"state = 'companion' AND {PLACED} AND {NOT_MOVING}"
        return self._rows(Standing, f"companion_of = ? AND {stands} ORDER BY id", picture_id)

    def batch_of(self, file_id: int) -> int | None:
        """Return the batch that has brought a file to where it is; None where none has."""
        return self._number(
            "SELECT batch FROM moves WHERE file_id = ? AND phase = 'done' AND batch > 0 "
            "ORDER BY id DESC LIMIT 1",
            file_id,
        )

    def is_picture(self, src: bytes) -> bool:
        """Tell whether a file in the inbox was taken for a picture of its own."""
        return self._is_any(
            f"SELECT 1 FROM files WHERE src = ? AND {HERE} AND companion_of IS NULL "
            "AND in_inbox AND state != 'gone'",
            src,
        )

    def forget_unread(self, file_id: int) -> None:
        """Forget a file that has just arrived: it is no picture, and waits for one."""
        self._do(
            "DELETE FROM files WHERE id = ? AND id NOT IN (SELECT file_id FROM moves)", file_id
        )
        self._do(
            "UPDATE files SET state = 'gone', in_inbox = 0, reason = 'no picture' WHERE id = ?",
            file_id,
        )
