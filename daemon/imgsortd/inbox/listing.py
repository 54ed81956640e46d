"""List the inbox: which files are there, which are not to be touched, which are pictures."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgsortd.errors import WatchError
from imgsortd.pictures.formats import PICTURE_EXTENSIONS
from imgsortd.pictures.reading import is_picture_by_content
from imgsortd.records import Stamp
from imgsortd.system import filesystem

log = logging.getLogger(__name__)

_MOST_LEFT = 10_000  # names kept of what is not sorted


@dataclass(slots=True)
class Inbox:
    """The watched folder.

    Attributes
    ----------
    ignore
        Shell patterns; a file or folder whose name matches one is not touched.
    extensions
        ``auto``, or the only extensions that are taken.
    companions
        Extensions that are listed all the same: of files that may go with a picture.
    left_alone
        What the last listing met and did not yield, by name: the reason. Not what is ignored.
    """

    root: Path
    recursive: bool
    ignore: Sequence[str]
    extensions: str | Sequence[str]
    companions: Sequence[str] = ()
    folders: int = field(init=False, default=0)  # gone through by the last listing
    _ignored: re.Pattern[bytes] = field(init=False)
    _only: frozenset[bytes] | None = field(init=False)
    _also: frozenset[bytes] = field(init=False)
    left_alone: dict[bytes, str] = field(init=False, default_factory=dict)
    _unseen: set[bytes] = field(init=False, default_factory=set)  # not gone through, not stated
    _told: set[bytes] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        # What imgsortd itself makes (.imgsortd-claim) is never a picture to sort.
        patterns = [fnmatch.translate(pattern) for pattern in (*self.ignore, ".imgsortd*")]
        self._ignored = re.compile("|".join(patterns).encode())
        self._only = None if isinstance(self.extensions, str) else endings(self.extensions)
        self._also = endings(self.companions)

    def scan(self) -> Iterator[tuple[bytes, Stamp]]:
        """Yield name and stamp of every regular file that is not ignored.

        Symlinks are not followed. A FIFO, socket or device is told once in the log. A
        WatchError tells that the inbox itself is gone or cannot be listed.
        """
        self.look_at_root()
        self.left_alone, self._unseen = {}, set()
        folders = [b""]  # a list, no recursion: strangers may nest folders without end
        self.folders = 0
        while folders:
            yield from self._scan_folder(folders.pop(), folders)

    def look_at_root(self) -> os.stat_result:
        """Return what stands under the inbox's path; a WatchError tells that no folder does."""
        try:
            status = os.stat(self.root)
        except OSError as error:
            raise WatchError(
                f"inbox {self.root}: cannot be listed ({error.strerror}); sorting waits until "
                f"the folder is there and readable again"
            ) from error
        if not stat.S_ISDIR(status.st_mode):
            raise WatchError(f"inbox {self.root}: is no longer a folder; sorting waits")
        return status

    def has_looked_at(self, name: bytes) -> bool:
        """Tell whether the last listing would have yielded a file, were it there.

        Else its absence from that says nothing: a folder on its way was not gone through, or
        what is configured leaves it out.
        """
        if self.is_ignored(name) or not self._is_wanted(name) or name in self._unseen:
            return False
        folder = name
        while b"/" in folder:
            folder = folder.rpartition(b"/")[0]
            if folder in self._unseen:
                return False
        return True

    def _scan_folder(self, folder: bytes, below: list[bytes]) -> Iterator[tuple[bytes, Stamp]]:
        path = os.path.join(os.fsencode(self.root), folder)
        try:
            with os.scandir(path) as entries:
                self.folders += 1
                for entry in entries:
                    if self._ignored.match(entry.name):
                        continue
                    name = folder + b"/" + entry.name if folder else entry.name
                    if not entry.is_dir(follow_symlinks=False):
                        yield from self._entry(name, entry)
                    elif self.recursive:
                        below.append(name)
                    else:
                        self._unseen.add(name)
                        self._leave(name, "folder, and recursive is false")
        except OSError as error:
            if not folder:
                raise WatchError(
                    f"inbox {self.root}: cannot be listed ({error.strerror})"
                ) from error
            if error.errno not in filesystem.NO_FILE:  # it went away between its listing and now
                self._unseen.add(folder)
                self._leave(folder, f"folder that cannot be listed: {error.strerror}")

    def _entry(self, name: bytes, entry: os.DirEntry[bytes]) -> Iterator[tuple[bytes, Stamp]]:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            if error.errno not in filesystem.NO_FILE:  # gone between listing and stat
                self._unseen.add(name)
            return
        if not stat.S_ISREG(status.st_mode):
            self._leave(name, "symlink" if stat.S_ISLNK(status.st_mode) else "special file")
        elif self._is_wanted(name):
            yield name, filesystem.stamp_of(status)

    def _leave(self, name: bytes, reason: str) -> None:
        if len(self.left_alone) < _MOST_LEFT:
            self.left_alone[name] = reason
        if name not in self._told and len(self._told) < _MOST_LEFT:
            self._told.add(name)
            log.info("left alone reason=%s name=%r", reason, os.fsdecode(name))

    def _is_wanted(self, name: bytes) -> bool:
        return self._only is None or os.path.splitext(name)[1].lower() in self._only | self._also

    def is_ignored(self, name: bytes) -> bool:
        """Tell whether a name, or a folder on its way, matches an ignore pattern."""
        if not self.recursive and b"/" in name:
            return True
        return any(self._ignored.match(part) for part in name.split(b"/"))

    def look(self, name: bytes) -> Stamp | None:
        """Return the stamp of a file now; None when it is gone or not to be taken."""
        if self.is_ignored(name) or not self._is_wanted(name):
            return None
        try:
            status = os.lstat(os.path.join(os.fsencode(self.root), name))
        except OSError:
            return None
        return filesystem.stamp_of(status) if stat.S_ISREG(status.st_mode) else None

    def claims_picture(self, name: bytes) -> bool:
        """Tell whether a finished file is one to sort: by its extension, else its first bytes."""
        extension = os.path.splitext(name)[1].lower()
        if self._only is not None:
            return extension in self._only
        if extension in PICTURE_EXTENSIONS:
            return True
        with filesystem.Folders(self.root) as folders:
            return is_picture_by_content(folders, name)


def endings(extensions: Iterable[str | bytes]) -> frozenset[bytes]:
    """Return extensions as a person writes them (any case, dot or none) as names have them."""
    return frozenset(b"." + os.fsencode(ending).lower().lstrip(b".") for ending in extensions)
