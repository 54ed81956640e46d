"""The folders that names are relative to: every inbox and target ever used; one of each is in use.

What is known of files belongs to the folder that it was learnt in, not to its path: a disk that
is not mounted, or another folder in its place, makes no file of it gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgsortd.records import Root, Stamp
from imgsortd.store.queries import NOT_MOVING, OPEN, Queries

_COLUMNS = "id, kind, path, filesystem, inode, mark, is_current"
_CURRENT_INBOX = "(SELECT id FROM roots WHERE kind = 'inbox' AND is_current)"
# Other folders that stood under the path of the inbox in use.
_FORMER = (
    "(SELECT former.id FROM roots AS former JOIN roots AS now ON now.path = former.path "
    "WHERE now.kind = 'inbox' AND now.is_current AND former.kind = 'inbox' "
    "AND NOT former.is_current)"
)


@dataclass(frozen=True, slots=True)
class FolderId:
    """What a folder keeps when its disk is mounted again: its filesystem's id, and its inode."""

    filesystem: str
    inode: int

    @classmethod
    def of(cls, folder: Path | int) -> FolderId:
        """Return that of a folder, by its path or an open descriptor.

        Raises
        ------
        OSError
            It is not there.
        """
        return cls(str(os.statvfs(folder).f_fsid), os.stat(folder).st_ino)


@dataclass(frozen=True, slots=True)
class RootRow:
    """A folder that was or is inbox or target.

    ``path`` is where it stood when it was last used, None where no imgsortd has noted it;
    ``folder`` what it is known by there; ``mark`` what is written in a target.
    """

    root_id: int
    kind: Root
    path: Path | None
    folder: FolderId | None
    mark: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class FormerFile:
    """A row of a file in a folder that stood where the inbox stands now."""

    file_id: int
    src: bytes
    stamp: Stamp


class RootRows(Queries):
    """Rows of ``roots``, and which rows of files and moves are of which."""

    def all(self, kind: Root) -> list[RootRow]:
        """Return every folder of a kind, the one in use first, then the newest."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM roots WHERE kind = ? ORDER BY is_current DESC, id DESC", kind
        )
        return [_root(row) for row in rows]

    def current(self, kind: Root) -> RootRow:
        """Return the one that is in use."""
        return _root(self._one(f"SELECT {_COLUMNS} FROM roots WHERE kind = ? AND is_current", kind))

    def by_id(self, root_id: int) -> RootRow:
        """Return a folder by its row."""
        return _root(self._one(f"SELECT {_COLUMNS} FROM roots WHERE id = ?", root_id))

    def use(
        self, kind: Root, root_id: int | None, path: Path, folder: FolderId, mark: str = ""
    ) -> int:
        """Put a folder in use, a new one with None; keep where it stands; return its row."""
        found = path.resolve(), folder.filesystem, folder.inode, mark
        values = (os.fsencode(found[0]), *found[1:])
        self._do("UPDATE roots SET is_current = 0 WHERE kind = ?", kind)
        if root_id is None:
            names = ("path", "filesystem", "inode", "mark")
            columns = dict(zip(names, values, strict=True))
            return self._insert("roots", kind=kind, is_current=1, **columns)
        self._do(
            "UPDATE roots SET path = ?, filesystem = ?, inode = ?, mark = ?, is_current = 1 "
            "WHERE id = ?",
            *values,
            root_id,
        )
        return root_id

    def placed(self, root_id: int, limit: int) -> list[tuple[bytes, int]]:
        """Return (name, bytes) of some files that stand in a target, wherever it is."""
        return self._all(
            "SELECT dst, size_bytes FROM files WHERE target_id = ? AND in_target LIMIT ?",
            root_id,
            limit,
        )

    # --- what stood in the inbox, where another folder has its path now ----------------

    def has_former(self) -> bool:
        """Tell whether rows may speak of a folder that had the inbox's path before this one."""
        return self._is_any(f"SELECT 1 FROM roots WHERE id IN {_FORMER}")

    def former_files(self) -> list[FormerFile]:
        """Return the files of those folders that stood there, as far as is known."""
        rows = self._all(
            "SELECT id, src, inode, size_bytes, mtime_ns FROM files "
            f"WHERE in_inbox AND inbox_id IN {_FORMER} ORDER BY id"
        )
        return [FormerFile(row[0], row[1], Stamp(*row[2:])) for row in rows]

    def kept(self, root_id: int) -> list[tuple[int, bytes]]:
        """Return (id, src) of files that wait in an inbox, or were put back there."""
        return self._all(
            "SELECT id, src FROM files WHERE inbox_id = ? AND state IN ('pending', 'undone') "
            f"AND {NOT_MOVING}",
            root_id,
        )

    def same_files(self, src: bytes, sha256: bytes) -> list[tuple[int, int]]:
        """Return (id, inbox) of files that former inboxes kept under a name, with these bytes."""
        return self._all(
            "SELECT id, inbox_id FROM files WHERE src = ? AND sha256 = ? AND in_inbox "
            f"AND state != 'pending' AND {NOT_MOVING} AND inbox_id IN "
            "(SELECT id FROM roots WHERE kind = 'inbox' AND NOT is_current)",
            *(src, sha256),
        )

    def bring_home(self, file_ids: Iterable[int]) -> None:
        """Note that files stand in the inbox in use, with their open moves."""
        for file_id in file_ids:
            self._do(  # one of this name has come here since: the older row ends
                "UPDATE files SET state = 'gone', in_inbox = 0, reason = 'seen again' "
                "WHERE id = ?1 AND state = 'pending' AND EXISTS (SELECT 1 FROM files AS now "
                f"WHERE now.state = 'pending' AND now.inbox_id = {_CURRENT_INBOX} "
                "AND now.src = files.src)",
                file_id,
            )
            self._do(
                f"UPDATE files SET inbox_id = {_CURRENT_INBOX} WHERE id = ? AND in_inbox", file_id
            )
            for end in ("src", "dst"):
                self._do(
                    f"UPDATE moves SET {end}_id = {_CURRENT_INBOX} "
                    f"WHERE file_id = ? AND {end}_root = 'inbox' AND {OPEN}",
                    file_id,
                )

    def give_up(self, root_id: int) -> None:
        """Let the inbox in use stand for one that is no more: what is not here is gone."""
        files = self._column(
            "SELECT id FROM files WHERE inbox_id = ?1 AND in_inbox UNION "
            f"SELECT file_id FROM moves WHERE src_id = ?1 AND {OPEN}",
            root_id,
        )
        self.bring_home(files)


def _root(row: Any) -> RootRow:
    root_id, kind, path, filesystem, inode, mark, is_current = row
    folder = None if filesystem is None else FolderId(filesystem, inode)
    where = Path(os.fsdecode(path)) if path else None
    return RootRow(root_id, Root(kind), where, folder, mark or "", bool(is_current))
