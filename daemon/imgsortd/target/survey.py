"""What stands in target against what the rows say, found out a little at a time.

Level-triggered: a folder is listed when its time of change is another one, so that nothing
depends on an event, and a restart begins with all of them. The daemon's own moves are told
apart by the journal, where they stay open until their rows are closed.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.names import REVIEW_FOLDER, SET_ASIDE_FOLDER
from imgsortd.records import Stamp
from imgsortd.store.database import Store
from imgsortd.store.lookup import Standing
from imgsortd.system import filesystem

_FRESH_NS = 1_000_000_000  # the time of change moves in ticks: two changes may bear one time

_NAMES_A_TICK = 4096


@dataclass(frozen=True, slots=True)
class _Seen:
    """A folder as it was listed last."""

    stamp: FolderStamp | None  # None where it was not there
    changed_s: float  # when it was first seen so, on the loop's clock
    known: int = 0  # files in it that have a row
    has_strangers: bool = False  # others were passed over: no file of their size was missing
    again: bool = True  # it is to be listed again though nothing tells of a change


@dataclass(slots=True)
class Missing:
    """A file that does not stand where its row says."""

    row: Standing
    folder: bytes
    since_s: float
    looks: int = 0


@dataclass(slots=True)
class Sighting:
    """A file that no row knows, of the size of one that is missing or was taken away."""

    dst: bytes
    stamp: Stamp
    size_bytes: int
    since_s: float
    sha256: bytes | None = None


class Survey:
    """Lists the folders of target that have changed, and reads the files that are new there.

    It is of the target that is mounted now: where it is another one, a new survey begins.
    """

    def __init__(
        self, config: Config, store: Store, target: Target, on_tick: Callable[[], None]
    ) -> None:
        self._store, self._target, self._on_tick = store, target, on_tick
        self._settle_s = config.settle_s
        self._seen: dict[bytes, _Seen] = {}
        self._to_list: dict[bytes, None] = {}
        self._is_cut_short = False
        self._sizes: set[int] = set()
        self._gone_sizes: set[int] | None = None
        self._folders: dict[bytes, FolderStamp] = {}
        self._missing: dict[bytes, dict[int, Missing]] = {}
        self._sightings: dict[bytes, dict[bytes, Sighting]] = {}
        self._listed: set[bytes] = set()

    def look(self, now: float, until: float) -> None:
        """Go on until ``until``, on the performance counter, at least by one folder.

        Raises
        ------
        OSError
            Target cannot be listed.
        """
        self._folders = self._target.folders()
        self._note_changed(now)
        moving, promised = self._store.hands.under_way()
        if self._gone_sizes is None:
            self._gone_sizes = self._store.hands.gone_sizes()
        self._sizes = self._gone_sizes | {missing.row.size_bytes for missing in self.missing()}
        while self._to_list:
            folder = next(iter(self._to_list))
            del self._to_list[folder]
            self._list(folder, now, moving, promised)
            if time.perf_counter() > until:
                break
        self._read(now, until)

    @property
    def is_through(self) -> bool:
        """Whether every folder that has changed has been listed."""
        return not self._to_list

    @property
    def has_work(self) -> bool:
        """Whether there was more to list or to read than there was time for."""
        return bool(self._to_list) or self._is_cut_short

    def missing(self) -> list[Missing]:
        """Return the files of all folders that are not where they were put."""
        return [missing for files in self._missing.values() for missing in files.values()]

    def sightings(self) -> list[Sighting]:
        """Return the files of all folders that may be one of those."""
        return [file for files in self._sightings.values() for file in files.values()]

    def inode_of(self, folder: bytes) -> int | None:
        """Return the inode of a folder; None where there is none of that name now."""
        stamp = self._folders.get(folder)
        return None if stamp is None else stamp.inode

    def is_quiet(self, folder: bytes, now: float) -> bool:
        """Tell whether a folder has stayed as it is for as long as files need to settle."""
        seen = self._seen.get(folder)
        return seen is None or seen.stamp is None or now - seen.changed_s >= self._settle_s

    def has_place(self) -> bool:
        """Tell whether a folder of ours stands: else this is no target that files are gone of."""
        return any(self._seen[f].known or self._missing.get(f) for f in self._folders)

    def was_gone(self, size_bytes: int) -> bool:
        """Tell whether a file of this size was taken away before."""
        return size_bytes in (self._gone_sizes or ())

    def listed(self) -> list[bytes]:
        """Return the folders listed and not yet judged, by name."""
        return sorted(self._listed)

    def judged(self, folder: bytes) -> None:
        """Learn that a folder need not be judged before it is listed again."""
        self._listed.discard(folder)

    def settle(self, missing: Missing, dst: bytes) -> None:
        """Learn that the rows know now what was missing, and where it is."""
        self.end([missing])
        folder = self.found(dst)
        seen = self._seen[folder]
        self._seen[folder] = replace(seen, known=seen.known + 1)

    def found(self, dst: bytes) -> bytes:
        """Learn that a stranger has a row now; return its folder."""
        folder = filesystem.split(dst)[0]
        self._sightings.get(folder, {}).pop(dst, None)
        self._listed.add(folder)
        return folder

    def end(self, missing: Iterable[Missing]) -> None:
        """Learn that files are no longer missed."""
        for file in missing:
            self._missing.get(file.folder, {}).pop(file.row.file_id, None)
        self._gone_sizes = None

    def list_again(self, folder: bytes) -> None:
        """List a folder with the next look: its rows have changed."""
        self._to_list[folder] = None

    def _note_changed(self, now: float) -> None:
        if not self._seen:
            folders = (*self._store.hands.folders(), *self._folders)
            self._seen = dict.fromkeys(folders, _Seen(None, now))
        for folder in self._folders.keys() | self._seen.keys():
            seen, stamp = self._seen.get(folder, _Seen(None, now)), self._folders.get(folder)
            if seen.stamp != stamp:
                self._seen[folder] = replace(seen, stamp=stamp, changed_s=now, again=True)
            if seen.again or seen.stamp != stamp:
                self._to_list[folder] = None

    def _list(self, folder: bytes, now: float, moving: set[int], promised: set[bytes]) -> None:
        seen = self._seen.get(folder, _Seen(None, now))
        names = self._target.names(folder, self._on_tick)
        if names is None:
            return  # it may not be read: nothing is taken for missing; it is tried again
        rows = self._store.hands.names_in(folder)
        absent = {file_id for dst, file_id in rows.items() if dst not in names}
        self._note_missing(folder, absent - moving, now)
        has_strangers = self._note_strangers(folder, names - rows.keys() - promised, now)
        self._listed.add(folder)
        self._seen[folder] = replace(
            seen,
            known=len(rows) - len(absent),
            has_strangers=has_strangers,
            again=seen.stamp is not None and time.time_ns() - seen.stamp.mtime_ns < _FRESH_NS,
        )

    def _note_missing(self, folder: bytes, absent: set[int], now: float) -> None:
        before = self._missing.pop(folder, {})
        files = {file_id: missing for file_id, missing in before.items() if file_id in absent}
        sizes: set[int] = set()
        for file_id in absent - before.keys():
            row = self._store.hands.file(file_id)
            if row is not None:
                files[file_id] = Missing(row, folder, now)
                sizes.add(row.size_bytes)
        if files:
            self._missing[folder] = files
        if sizes - self._sizes:  # what was passed over before may be one of them
            self._sizes |= sizes
            others = [name for name, seen in self._seen.items() if seen.has_strangers]
            self._to_list.update(dict.fromkeys(others))

    def _note_strangers(self, folder: bytes, strangers: set[bytes], now: float) -> bool:
        """Keep those that may be a missing file; return whether there are others."""
        before = self._sightings.pop(folder, {})
        kept = {dst: file for dst, file in before.items() if dst in strangers}
        is_passed_over = False
        for dst in strangers - kept.keys():
            size = self._target.size_of(dst) if self._sizes else None
            stamp = self._target.look(dst) if size in self._sizes else None
            if size is None or stamp is None or self._is_no_picture(dst):
                is_passed_over = True
            else:
                kept[dst] = Sighting(dst, stamp, size, now)
        if kept:
            self._sightings[folder] = kept
        return is_passed_over

    def _is_no_picture(self, dst: bytes) -> bool:
        """Tell whether a stranger is what imgsortd makes on its way, or a person's own link."""
        held = self._target.linked(dst)
        is_own_link = held is not None and self._store.hands.linked(held) is None
        return is_own_link or self._target.is_own_mark(dst)

    def _read(self, now: float, until: float) -> None:
        """Hash the strangers that have settled and that nobody writes."""
        self._is_cut_short = False
        for files in self._sightings.values():
            for dst, file in list(files.items()):
                if file.sha256 is not None or now - file.since_s < self._settle_s:
                    continue
                stamp = self._target.look(dst)
                if stamp is None:
                    del files[dst]
                elif stamp != file.stamp:
                    file.stamp, file.since_s = stamp, now
                else:
                    file.sha256 = self._sha256(dst, stamp)
                    file.since_s = now
                if time.perf_counter() > until:
                    self._is_cut_short = True
                    return

    def _sha256(self, dst: bytes, stamp: Stamp) -> bytes | None:
        held = self._target.linked(dst)
        return self._target.sha256(dst, stamp) if held is None else self._store.hands.linked(held)


@dataclass(frozen=True, slots=True)
class FolderStamp:
    """What tells that the entries of a folder have changed, or that it is another one."""

    device: int
    inode: int
    mtime_ns: int


class Target:
    """The target folder as it stands on disk; nothing here changes it.

    Symlinks in it count as files, as how they came there is not asked here.
    """

    def __init__(self, root: Path) -> None:
        self._path, self._root = root, os.fsencode(root)

    def identity(self) -> tuple[int, int]:
        """Return device and inode of target itself; OSError where it is not there."""
        status = os.stat(self._root)
        return status.st_dev, status.st_ino

    def folders(self) -> dict[bytes, FolderStamp]:
        """Return the folders directly in target that may hold pictures of ours, by name.

        OSError where target cannot be listed.
        """
        found = {}
        with os.scandir(self._root) as entries:
            for entry in entries:
                if not self.is_ours_to_see(entry.name):
                    continue
                with suppress(OSError):
                    st = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(st.st_mode):
                        found[entry.name] = FolderStamp(st.st_dev, st.st_ino, st.st_mtime_ns)
        return found

    @staticmethod
    def is_ours_to_see(folder: bytes) -> bool:
        """Tell whether a folder of this name may hold pictures of ours."""
        return folder in (REVIEW_FOLDER, SET_ASIDE_FOLDER) or not folder.startswith((b".", b"_"))

    def names(self, folder: bytes, on_tick: Callable[[], None]) -> set[bytes] | None:
        """Return the files of a folder as ``folder/name``; None where it cannot be listed.

        A folder that is gone has none.
        """
        found: set[bytes] = set()
        try:
            with filesystem.Folders(self._path) as folders:
                folders.open()
                try:
                    fd = folders.fd(folder)
                except FileNotFoundError:
                    return found
                with os.scandir(fd) as entries:
                    for entry in entries:
                        if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                            found.add(folder + b"/" + os.fsencode(entry.name))
                        if len(found) % _NAMES_A_TICK == 0:
                            on_tick()
        except OSError:
            return None
        return found

    @staticmethod
    def is_own_mark(dst: bytes) -> bool:
        """Tell whether a file is what imgsortd makes on its way, and not to be sorted."""
        return filesystem.split(dst)[1].startswith(b".imgsortd")

    def look(self, dst: bytes) -> Stamp | None:
        """Return the stamp of a regular file or a symlink; else None."""
        try:
            status = os.lstat(os.path.join(self._root, dst))
        except OSError:
            return None
        is_file = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
        return filesystem.stamp_of(status) if is_file else None

    def linked(self, dst: bytes) -> bytes | None:
        """Return what a symlink holds; None where it is none."""
        try:
            return os.readlink(os.path.join(self._root, dst))
        except OSError:
            return None

    def size_of(self, dst: bytes) -> int | None:
        """Return the size in bytes of a file, or of what a link leads to."""
        try:
            return os.stat(os.path.join(self._root, dst)).st_size
        except OSError:
            return None

    def sha256(self, dst: bytes, stamp: Stamp) -> bytes | None:
        """Return the hash of a file that nobody writes and that is still as it was seen."""
        folder, base = filesystem.split(dst)
        with (
            filesystem.Folders(self._path) as folders,
            suppress(OSError),
            filesystem.closing(filesystem.open_regular(folders.fd(folder), base)) as fd,
        ):
            is_written = filesystem.writer_of(fd) is filesystem.Writer.SOME
            if not is_written and filesystem.stamp_of(os.fstat(fd)) == stamp:
                sha256 = filesystem.sha256_of(fd)
                return sha256 if filesystem.stamp_of(os.fstat(fd)) == stamp else None
        return None
