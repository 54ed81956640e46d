"""What stands in target against what the rows say, found out a little at a time.

Level-triggered: a folder is listed when its time of change is another one, so that nothing
depends on an event, and a restart begins with all of them. The daemon's own moves are told
apart by the journal, where they stay open until their rows are closed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from imgsortd.adapters import fsops
from imgsortd.adapters.store_hands import Standing
from imgsortd.adapters.target import FolderStamp, Target
from imgsortd.core.records import Op, Stamp
from imgsortd.library import Library

_FRESH_NS = 1_000_000_000  # the time of change moves in ticks: two changes may bear one time


@dataclass(frozen=True, slots=True)
class _Seen:
    """A folder as it was listed last.

    Attributes
    ----------
    stamp
        None where it was not there.
    changed_s
        When it was first seen so, on the loop's clock.
    known
        Files in it that have a row.
    has_strangers
        There are others that were passed over: no file of their size was missing.
    again
        It is to be listed again though nothing tells of a change.
    """

    stamp: FolderStamp | None
    changed_s: float
    known: int = 0
    has_strangers: bool = False
    again: bool = True


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

    stamp: Stamp
    size_bytes: int
    since_s: float
    sha256: bytes | None = None


class Survey:
    """Lists the folders of target that have changed, and reads the files that are new there.

    Attributes
    ----------
    folders
        The folders that stand in target now, by name.
    missing
        By folder and row, files that are not where they were put.
    sightings
        By folder and name, files that may be one of those.
    listed
        Folders that were listed since it was emptied.
    """

    def __init__(self, library: Library) -> None:
        config = library.config
        self._library, self._store = library, library.store
        self._settle_s = config.settle_s
        self._is_linking = config.op is Op.SYMLINK
        self._target = Target(config.target, config.ignore, with_links=self._is_linking)
        self._identity: tuple[int, int] | None = None
        self._forget()

    def _forget(self) -> None:
        self._seen: dict[bytes, _Seen] = {}
        self._to_list: dict[bytes, None] = {}
        self._is_cut_short = False
        self._sizes: set[int] = set()
        self._gone_sizes: set[int] | None = None
        self.folders: dict[bytes, FolderStamp] = {}
        self.missing: dict[bytes, dict[int, Missing]] = {}
        self.sightings: dict[bytes, dict[bytes, Sighting]] = {}
        self.listed: set[bytes] = set()

    def look(self, now: float, until: float) -> None:
        """Go on until ``until``, on the performance counter, at least by one folder.

        Raises
        ------
        OSError
            Target cannot be listed.
        """
        identity = self._target.identity()
        if identity != self._identity:  # at the start; mounted anew, or another disk
            self._forget()
            self._identity = identity
        self._library.folders.follow()
        self.folders = self._target.folders()
        self._note_changed(now)
        moving, promised = self._store.hands.under_way()
        if self._gone_sizes is None:
            self._gone_sizes = self._store.hands.gone_sizes()
        self._sizes = self._gone_sizes | {m.row.size_bytes for m in self.all_missing()}
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

    def all_missing(self) -> Iterator[Missing]:
        """Yield the missing files of all folders."""
        for files in self.missing.values():
            yield from files.values()

    def all_sightings(self) -> Iterator[Sighting]:
        """Yield the sightings of all folders."""
        for files in self.sightings.values():
            yield from files.values()

    def is_quiet(self, folder: bytes, now: float) -> bool:
        """Tell whether a folder has stayed as it is for as long as files need to settle."""
        seen = self._seen.get(folder)
        return seen is None or seen.stamp is None or now - seen.changed_s >= self._settle_s

    def has_place(self) -> bool:
        """Tell whether a folder of ours stands: else this is no target that files are gone of."""
        return any(self._seen[f].known or self.missing.get(f) for f in self.folders)

    def was_gone(self, size_bytes: int) -> bool:
        """Tell whether a file of this size was taken away before."""
        return size_bytes in (self._gone_sizes or ())

    def settle(self, missing: Missing, dst: bytes) -> None:
        """Learn that the rows know now what was missing, and where it is."""
        self.end([missing])
        folder = fsops.split(dst)[0]
        self.found(dst)
        seen = self._seen[folder]
        self._seen[folder] = replace(seen, known=seen.known + 1)

    def found(self, dst: bytes) -> None:
        """Learn that a stranger has a row now."""
        folder = fsops.split(dst)[0]
        self.sightings.get(folder, {}).pop(dst, None)
        self.listed.add(folder)

    def end(self, missing: list[Missing]) -> None:
        """Learn that files are no longer missed."""
        for file in missing:
            self.missing.get(file.folder, {}).pop(file.row.file_id, None)
        self._gone_sizes = None

    def list_again(self, folder: bytes) -> None:
        """List a folder with the next look: its rows have changed."""
        self._to_list[folder] = None

    def _note_changed(self, now: float) -> None:
        if not self._seen:
            folders = (*self._store.hands.folders(), *self.folders)
            self._seen = dict.fromkeys(folders, _Seen(None, now))
        for folder in self.folders.keys() | self._seen.keys():
            seen, stamp = self._seen.get(folder, _Seen(None, now)), self.folders.get(folder)
            if seen.stamp != stamp:
                self._seen[folder] = replace(seen, stamp=stamp, changed_s=now, again=True)
            if seen.again or seen.stamp != stamp:
                self._to_list[folder] = None

    def _list(self, folder: bytes, now: float, moving: set[int], promised: set[bytes]) -> None:
        seen = self._seen.get(folder, _Seen(None, now))
        names = self._target.names(folder, self._library.mover.after_each)
        if names is None:
            return  # it may not be read: nothing is taken for missing; it is tried again
        rows = self._store.hands.names_in(folder)
        absent = {file_id for dst, file_id in rows.items() if dst not in names}
        self._note_missing(folder, absent - moving, now)
        has_strangers = self._note_strangers(folder, names - rows.keys() - promised, now)
        self.listed.add(folder)
        self._seen[folder] = replace(
            seen,
            known=len(rows) - len(absent),
            has_strangers=has_strangers,
            again=seen.stamp is not None and time.time_ns() - seen.stamp.mtime_ns < _FRESH_NS,
        )

    def _note_missing(self, folder: bytes, absent: set[int], now: float) -> None:
        before = self.missing.pop(folder, {})
        files = {file_id: missing for file_id, missing in before.items() if file_id in absent}
        sizes: set[int] = set()
        for file_id in absent - before.keys():
            row = self._store.hands.file(file_id)
            if row is not None:
                files[file_id] = Missing(row, folder, now)
                sizes.add(row.size_bytes)
        if files:
            self.missing[folder] = files
        if sizes - self._sizes:  # what was passed over before may be one of them
            self._sizes |= sizes
            others = [name for name, seen in self._seen.items() if seen.has_strangers]
            self._to_list.update(dict.fromkeys(others))

    def _note_strangers(self, folder: bytes, strangers: set[bytes], now: float) -> bool:
        """Keep those that may be a missing file; return whether there are others."""
        before = self.sightings.pop(folder, {})
        kept = {dst: file for dst, file in before.items() if dst in strangers}
        is_passed_over = False
        for dst in strangers - kept.keys():
            size = self._target.size_of(dst) if self._sizes else None
            stamp = self._target.look(dst) if size in self._sizes else None
            if size is None or stamp is None or self._target.is_ignored(dst):
                is_passed_over = True
            else:
                kept[dst] = Sighting(stamp, size, now)
        if kept:
            self.sightings[folder] = kept
        return is_passed_over

    def _read(self, now: float, until: float) -> None:
        """Hash the strangers that have settled and that nobody writes."""
        self._is_cut_short = False
        for files in self.sightings.values():
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
        held = self._target.linked(dst) if self._is_linking else None
        if held is None:
            return self._target.sha256(dst, stamp)
        inbox = os.path.realpath(os.fsencode(self._library.config.inbox)) + b"/"
        return self._store.hands.linked(held.removeprefix(inbox))
