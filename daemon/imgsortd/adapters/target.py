"""Look at target: its folders, the files in them, and the bytes of those that are new."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imgsortd.adapters import fsops, leases
from imgsortd.core.records import Stamp
from imgsortd.core.routing import REVIEW_FOLDER, SET_ASIDE_FOLDER

_NAMES_A_TICK = 4096


@dataclass(frozen=True, slots=True)
class FolderStamp:
    """What tells that the entries of a folder have changed, or that it is another one."""

    device: int
    inode: int
    mtime_ns: int


class Target:
    """The target folder as it stands on disk; nothing here changes it.

    Parameters
    ----------
    root
        Its path.
    ignore
        Shell patterns of names that are left alone; hidden ones are, too.
    with_links
        Whether symlinks count as files: they do where files are sorted by linking.
    """

    def __init__(self, root: Path, ignore: Iterable[str], *, with_links: bool) -> None:
        self._root = os.fsencode(root)
        self._path = root
        self._with_links = with_links
        patterns = [fnmatch.translate(pattern) for pattern in (*ignore, ".*")]
        self._ignored = re.compile("|".join(patterns).encode())

    def identity(self) -> tuple[int, int]:
        """Return device and inode of target itself.

        Raises
        ------
        OSError
            It is not there.
        """
        status = os.stat(self._root)
        return status.st_dev, status.st_ino

    def folders(self) -> dict[bytes, FolderStamp]:
        """Return the folders directly in target that may hold pictures of ours, by name.

        Raises
        ------
        OSError
            Target cannot be listed.
        """
        found = {}
        with os.scandir(self._root) as entries:
            for entry in entries:
                if not self.is_ours_to_see(entry.name):
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        found[entry.name] = FolderStamp(
                            status.st_dev, status.st_ino, status.st_mtime_ns
                        )
        return found

    def is_ours_to_see(self, folder: bytes) -> bool:
        """Tell whether a folder of this name may hold pictures of ours."""
        if folder.startswith(b"_"):
            return folder in (REVIEW_FOLDER, SET_ASIDE_FOLDER)
        return not self._ignored.match(folder)

    def names(self, folder: bytes, on_tick: Callable[[], None]) -> set[bytes] | None:
        """Return the files of a folder as ``folder/name``; None where it cannot be listed.

        A folder that is gone has none.
        """
        try:
            with fsops.Folders(self._path) as folders:
                folders.open()
                try:
                    fd = folders.fd(folder)
                except FileNotFoundError:
                    return set()
                return self._names(fd, folder, on_tick)
        except OSError:
            return None

    def _names(self, fd: int, folder: bytes, on_tick: Callable[[], None]) -> set[bytes]:
        found: set[bytes] = set()
        with os.scandir(fd) as entries:
            for entry in entries:
                is_link = self._with_links and entry.is_symlink()
                if is_link or entry.is_file(follow_symlinks=False):
                    found.add(folder + b"/" + os.fsencode(entry.name))
                if len(found) % _NAMES_A_TICK == 0:
                    on_tick()
        return found

    def is_ignored(self, dst: bytes) -> bool:
        """Tell whether a file is hidden, or named as what is still written."""
        return self._ignored.match(fsops.split(dst)[1]) is not None

    def look(self, dst: bytes) -> Stamp | None:
        """Return the stamp of a regular file, or of a symlink where these count; else None."""
        try:
            status = os.lstat(os.path.join(self._root, dst))
        except OSError:
            return None
        is_link = stat.S_ISLNK(status.st_mode)
        if not (stat.S_ISREG(status.st_mode) or (is_link and self._with_links)):
            return None
        return fsops.stamp_of(status)

    def linked(self, dst: bytes) -> bytes | None:
        """Return what a symlink holds; None where it is none."""
        try:
            return os.readlink(os.path.join(self._root, dst))
        except OSError:
            return None

    def size_of(self, dst: bytes) -> int | None:
        """Return the size in bytes of a file, or of what a link of ours leads to."""
        try:
            follow = self._with_links
            return os.stat(os.path.join(self._root, dst), follow_symlinks=follow).st_size
        except OSError:
            return None

    def sha256(self, dst: bytes, stamp: Stamp) -> bytes | None:
        """Return the hash of a file that nobody writes and that is still as it was seen."""
        folder, base = fsops.split(dst)
        with fsops.Folders(self._path) as folders:
            try:
                fd = fsops.open_regular(folders.fd(folder), base)
            except OSError:
                return None
            with fsops.closing(fd):
                try:
                    is_written = leases.writer_of(fd) is leases.Writer.SOME
                    if is_written or fsops.stamp_of(os.fstat(fd)) != stamp:
                        return None
                    sha256 = fsops.sha256_of(fd)
                    return sha256 if fsops.stamp_of(os.fstat(fd)) == stamp else None
                except OSError:
                    return None
