"""Which folder does a cluster have? The name may be a person's, given here or in a file manager.

A renamed folder is known by its inode, and by a picture of its cluster in it: inodes are
used again. The names are also kept in a small file, for the day the database is lost.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.errors import NameRefusedError
from imgsortd.names import cluster_folder, folder_of, folder_problem
from imgsortd.store.database import Store
from imgsortd.store.folders import ClusterFolder
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

log = logging.getLogger(__name__)

NAMES_FILE = "names.json"
_FRESH_NS = 1_000_000_000  # times of files move in ticks: two changes may bear one time
_LOOKED_AT = 200


class ClusterFolders:
    """Follows the names of clusters' folders."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store, self._target = store, config.target
        self._names_file = config.state_dir / NAMES_FILE
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
        """Follow renamed folders in a listing of target: the inode of each folder by name."""
        rows = self._store.hands.cluster_folders()
        named = _taken_names(rows, lambda row: inodes.get(row.folder) == row.inode)
        names = {inode: name for name, inode in inodes.items()}
        new_inodes: list[tuple[int, int]] = []
        renamed = False
        for row in rows:
            there = inodes.get(row.folder)
            if there == row.inode:
                continue
            new = None if row.inode is None else names.get(row.inode)
            if new is not None and self._is_renamed(row.cluster_id, row.folder, new, named):
                self.take_name(row.cluster_id, row.folder, new, row.inode)
                named[row.cluster_id] = new
                renamed = True
            elif there is not None and not row.is_retired:
                new_inodes.append((row.cluster_id, there))
        if new_inodes:
            with self._store.atomic():
                self._store.hands.note_inodes(new_inodes)
        return renamed

    def _is_renamed(
        self, cluster_id: int, old: bytes, new: bytes, named: Mapping[int, bytes]
    ) -> bool:
        if folder_problem(new, cluster_id, named):
            return False
        known = sorted(self._store.hands.names_in(old))[:_LOOKED_AT]
        target = os.fsencode(self._target)
        return any(
            os.path.lexists(os.path.join(target, new, filesystem.split(dst)[1])) for dst in known
        )

    def take_name(self, cluster_id: int, old: bytes, new: bytes, inode: int | None) -> None:
        """Keep that a cluster's folder has another name now, in all rows that speak of it."""
        is_number = new == cluster_folder(cluster_id)
        with self._store.atomic():
            self._store.hands.relabel(old, new)
            folder, name = (None, None) if is_number else (new, os.fsdecode(new))
            self._store.hands.name_cluster(cluster_id, folder, name, inode)
        fault_point("name_taken")
        text = "folder renamed cluster=%d from=%r to=%r"
        log.info(text, cluster_id, os.fsdecode(old), os.fsdecode(new))
        self.keep_names()

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

    def keep_names(self) -> None:
        """Write the names to a file of their own; where that fails they are in the database."""
        named = self._store.records.named_folders()
        names = {str(number): os.fsdecode(folder) for number, folder in named.items()}
        try:
            filesystem.write_atomically(self._names_file, [json.dumps(names).encode()])
        except OSError as error:
            log.warning("names not kept file=%s reason=%s", self._names_file, error.strerror)


def kept_names(state_dir: Path) -> dict[int, bytes]:
    """Return the folders of named clusters from the file; empty where it cannot be read."""
    try:
        names = json.loads((state_dir / NAMES_FILE).read_text())
        return {int(number): os.fsencode(name) for number, name in names.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("names not read file=%s reason=%s", state_dir / NAMES_FILE, error)
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
    """Give clusters of a restored or rebuilt database the folders that the file knows of.

    A cluster whose folder stands under another name, as the database has it, keeps that.
    """
    target, hands = os.fsencode(config.target), store.hands
    rows = {row.cluster_id: row for row in hands.cluster_folders()}
    named = store.records.named_folders()
    for number, new in kept_names(config.state_dir).items():
        old = folder_of(number, named)
        is_there = os.path.isdir(os.path.join(target, new))
        if number not in rows or not is_there or folder_problem(new, number, named):
            continue
        if new != old and not (named.get(number) and os.path.isdir(os.path.join(target, old))):
            with store.atomic():
                hands.relabel(old, new)
                hands.name_cluster(number, new, os.fsdecode(new), None)
            named[number] = new


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
