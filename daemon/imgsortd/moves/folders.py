"""Which folder does a cluster have? The name may be a person's, given here or in a file manager.

A renamed folder is known by its inode, and by a picture of its cluster in it: inodes are
used again. The names are also written into target, for the day the database is lost.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.errors import LostError, NameRefusedError, OwnedError
from imgsortd.moves.roots import Roots, read_marker
from imgsortd.names import (
    REVIEW_FOLDER,
    SET_ASIDE_FOLDER,
    cluster_folder,
    folder_of,
    folder_problem,
)
from imgsortd.store.database import Store
from imgsortd.store.folders import ClusterFolder, NewName
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

log = logging.getLogger(__name__)

_FORMER_FILE = "names.json"  # of an older imgsortd, in the state folder
_FRESH_NS = 1_000_000_000  # times of files move in ticks: two changes may bear one time
_LOOKED_AT = 200


class ClusterFolders:
    """Follows the names of clusters' folders."""

    def __init__(self, store: Store, config: Config, roots: Roots) -> None:
        self._store, self._target, self._roots = store, config.target, roots
        self._seen: tuple[int, int, int] | None = None

    def follow(self) -> bool:
        """Look for renamed folders where target has changed; return whether there were any.

        One ``stat`` where nothing has. Where target cannot be listed nothing is renamed:
        whoever needs it says so.
        """
        try:
            status = os.stat(self._target)
            key = (status.st_dev, status.st_ino, status.st_mtime_ns)
            if key == self._seen:
                return False
            is_fresh = time.time_ns() - status.st_mtime_ns < _FRESH_NS
            renamed = self.follow_in(inodes_of(self._target))
        except OSError:
            return False
        self._seen = None if is_fresh else key
        return renamed

    def follow_in(self, inodes: Mapping[bytes, int]) -> bool:
        """Follow renamed folders in a listing of target: the inode of each folder by name.

        All together: one folder may have got the name that another one had.
        """
        rows = self._store.hands.cluster_folders()
        renamed = self._renamed(rows, inodes)
        new_inodes = [
            (row.cluster_id, there)
            for row in rows
            if (there := inodes.get(row.folder)) not in (None, row.inode)
            and not row.is_retired
            and row.cluster_id not in renamed
        ]
        if renamed:
            new_names = [
                (row.folder, NewName(row.cluster_id, new, inodes.get(new)))
                for row in rows
                if (new := renamed.get(row.cluster_id)) is not None
            ]
            self._take_names(new_names)
        elif new_inodes:
            with self._store.atomic():
                self._store.hands.note_inodes(new_inodes)
        return bool(renamed)

    def _renamed(
        self, rows: Sequence[ClusterFolder], inodes: Mapping[bytes, int]
    ) -> dict[int, bytes]:
        """Return the folder that each cluster has now, of those that have another one."""
        names = {inode: name for name, inode in inodes.items()}
        found: dict[int, bytes] = {}
        for row in rows:
            new = None if row.inode is None else names.get(row.inode)
            if new in (None, row.folder):
                continue
            if self._share(row.folder, new) > self._share(row.folder, row.folder):
                found[row.cluster_id] = new
        refused: set[int] = set()
        while True:
            self._displace([row for row in rows if row.cluster_id not in refused], inodes, found)
            wrong = self._problem(rows, inodes, found)
            if wrong is None:
                return found
            refused.add(wrong)
            del found[wrong]

    def _displace(
        self, rows: Sequence[ClusterFolder], inodes: Mapping[bytes, int], found: dict[int, bytes]
    ) -> None:
        """Find where a cluster is whose folder's name another one has now: by its pictures."""
        for row in rows:
            if row.cluster_id in found or row.folder not in found.values():
                continue
            taken = {one.folder for one in rows if one is not row and one.cluster_id not in found}
            free = inodes.keys() - taken - set(found.values()) - {REVIEW_FOLDER, SET_ASIDE_FOLDER}
            shares = {name: self._share(row.folder, name) for name in sorted(free)}
            best = max(shares, key=shares.__getitem__, default=b"")
            is_there = bool(best) and shares[best] > 0.5
            found[row.cluster_id] = best if is_there else cluster_folder(row.cluster_id)

    def _problem(
        self, rows: Sequence[ClusterFolder], inodes: Mapping[bytes, int], found: dict[int, bytes]
    ) -> int | None:
        """Return a cluster that cannot have the folder found for it; None where all can."""
        named = _taken_names(rows, lambda row: inodes.get(row.folder) == row.inode) | found
        return next((n for n, name in found.items() if folder_problem(name, n, named)), None)

    def _share(self, folder: bytes, new: bytes) -> float:
        """Return the share (0 to 1) of a folder's known files that stand in another one."""
        known = sorted(self._store.hands.names_in(folder))[:_LOOKED_AT]
        there = os.path.join(os.fsencode(self._target), new)
        found = (os.path.lexists(os.path.join(there, filesystem.split(dst)[1])) for dst in known)
        return sum(found) / len(known) if known else 0.0

    def take_name(self, cluster_id: int, old: bytes, new: bytes, inode: int | None) -> None:
        """Keep that a cluster's folder has another name now, in all rows that speak of it."""
        self._take_names([(old, NewName(cluster_id, new, inode))])

    def _take_names(self, renamed: Sequence[tuple[bytes, NewName]]) -> None:
        with self._store.atomic():
            self._store.hands.relabel({old: new.folder for old, new in renamed})
            self._store.hands.name_clusters(new for _, new in renamed)
        fault_point("name_taken")
        for old, new in renamed:
            text = "folder renamed cluster=%d from=%r to=%r"
            log.info(text, new.cluster_id, os.fsdecode(old), os.fsdecode(new.folder))
        self.keep_names()

    def keep_names(self) -> None:
        """Write the names of clusters into target, too: should the database be lost."""
        self._roots.mark()

    def rename(self, cluster_id: int, name: str) -> dict[str, object]:
        """Give a cluster's folder another name; an empty one gives ``cluster_N`` back.

        The folder is renamed first: should the rows not follow, for a crash, the next
        look finds it by its inode.

        Raises
        ------
        NameRefusedError
            There is no such cluster, the name cannot be had, or the folder not be renamed.
        """
        self.follow()
        rows = {row.cluster_id: row for row in self._store.hands.cluster_folders()}
        if cluster_id not in rows:
            raise NameRefusedError(
                f"there is no cluster {cluster_id}; `imgsortd status` lists those there are"
            )
        new = os.fsencode(name) if name else cluster_folder(cluster_id)
        target = os.fsencode(self._target)
        named = _taken_names(
            rows.values(), lambda row: os.path.lexists(os.path.join(target, row.folder))
        )
        if problem := folder_problem(new, cluster_id, named):
            raise NameRefusedError(f"the name of cluster {cluster_id} {problem}: {name!r}")
        old = rows[cluster_id].folder
        if new != old:
            self._rename(cluster_id, old, new)
        return {
            "cluster": cluster_id,
            "from": os.fsdecode(old),
            "folder": os.fsdecode(new),
            "path": os.fsdecode(os.path.join(target, new)),
        }

    def _rename(self, cluster_id: int, old: bytes, new: bytes) -> None:
        try:
            with filesystem.closing(filesystem.open_root(self._target)) as target_fd:
                inode = _folder_inode(target_fd, old)
                if inode is not None:
                    with self._store.atomic():  # for the look after a crash
                        self._store.hands.note_inodes([(cluster_id, inode)])
                    _rename_folder(target_fd, old, new)
                    fault_point("folder_renamed")
                elif filesystem.inode_at(target_fd, new) is not None:
                    raise FileExistsError
        except FileExistsError as error:
            raise NameRefusedError(
                f"{self._target / os.fsdecode(new)}: is there already; choose another name, or "
                f"move that away first"
            ) from error
        except OSError as error:
            raise NameRefusedError(
                f"{self._target / os.fsdecode(old)}: cannot be renamed ({error.strerror})"
            ) from error
        self.take_name(cluster_id, old, new, inode)


def kept_names(config: Config) -> dict[int, bytes]:
    """Return the folders of named clusters as they are written in target; empty for none."""
    with suppress(OwnedError, LostError):  # told by whoever looks whose target it is
        marker = read_marker(config.target)
        if marker is not None:
            return dict(marker.names)
    file = config.state_dir / _FORMER_FILE
    try:
        names = json.loads(file.read_text())
        return {int(number): os.fsencode(name) for number, name in names.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("names not read file=%s reason=%s", file, error)
        return {}


def _taken_names(
    rows: Iterable[ClusterFolder], stands: Callable[[ClusterFolder], bool]
) -> dict[int, bytes]:
    """Return the named folders; that of a cluster that is no more only where it stands."""
    return {
        row.cluster_id: row.named
        for row in rows
        if row.named is not None and (not row.is_retired or stands(row))
    }


def restore_names(store: Store, config: Config) -> None:
    """Give clusters of a restored or rebuilt database the folders that target knows of.

    A cluster whose folder stands under another name, as the database has it, keeps that.
    """
    target, hands = os.fsencode(config.target), store.hands
    named = store.records.named_folders()
    numbers = {row.cluster_id for row in hands.cluster_folders()}
    renamed: dict[int, bytes] = {}
    for number, new in kept_names(config).items():
        old = folder_of(number, named)
        is_there = os.path.isdir(os.path.join(target, new))
        stands = named.get(number) and os.path.isdir(os.path.join(target, old))
        if number in numbers and is_there and new != old and not stands:
            renamed[number] = new
    renamed = {n: new for n, new in renamed.items() if not folder_problem(new, n, named | renamed)}
    with store.atomic():
        hands.relabel({folder_of(number, named): new for number, new in renamed.items()})
        hands.name_clusters(NewName(number, new, None) for number, new in renamed.items())


def inodes_of(target: Path) -> dict[bytes, int]:
    """Return the inode of each folder directly in target by name; symlinks are none."""
    with os.scandir(os.fsencode(target)) as entries:
        found = {}
        for entry in entries:
            with suppress(OSError):  # it may have gone since it was listed
                if entry.is_dir(follow_symlinks=False):
                    found[entry.name] = entry.stat(follow_symlinks=False).st_ino
    return found


def _folder_inode(target_fd: int, folder: bytes) -> int | None:
    """Return the inode of a folder; None where it is not made; OSError where it is none."""
    try:
        with filesystem.closing(filesystem.open_below(target_fd, folder)) as fd:
            return os.fstat(fd).st_ino
    except FileNotFoundError:
        return None


def _rename_folder(target_fd: int, old: bytes, new: bytes) -> None:
    if not filesystem.rename_noreplace(target_fd, old, target_fd, new):
        # No such call here. rename(2) replaces nothing but an empty folder.
        if filesystem.inode_at(target_fd, new) is not None:
            raise FileExistsError
        os.rename(old, new, src_dir_fd=target_fd, dst_dir_fd=target_fd)
    filesystem.sync_folder(target_fd)
