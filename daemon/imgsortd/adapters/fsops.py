"""System calls on files, through folder descriptors, never through a symlink.

Every name is relative to an open folder (``O_DIRECTORY | O_NOFOLLOW``), so that
nobody can swap a folder for a link between a check and its use.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imgsortd.core.records import Move, Stamp

NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV)
"""What opening says where no regular file has the name: it is gone, or something else."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""What a call says where a disk, or a user's share of it, is full."""

_READ_BYTES = 1 << 20
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a stat result."""
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def look(root: Path, name: bytes) -> Stamp | None:
    """Return the stamp of what has a name below inbox or target; None where nothing has."""
    try:
        return stamp_of(os.lstat(os.path.join(os.fsencode(root), name)))
    except OSError:
        return None


def split(name: bytes) -> tuple[bytes, bytes]:
    """Split a relative name into its folder (may be empty) and its last part."""
    folder, _, base = name.rpartition(b"/")
    return folder, base


def walk(root: Path, *, deep: bool) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield folders, relative to the root, each with the names of the folders in it.

    Names taken out of the list are not walked, and nor is what cannot be listed. There is
    no recursion: strangers may nest folders without end.

    Parameters
    ----------
    deep
        Walk all folders, or only the root and those directly in it.
    """
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(os.fsencode(root), folder)) as entries:
                below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        yield folder, below
        if deep or not folder:
            folders.extend(os.path.join(folder, name) for name in below)


def open_root(root: Path) -> int:
    """Open inbox or target itself; the path to it may hold symlinks, as its owner chose."""
    return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_below(root_fd: int, folder: bytes) -> int:
    """Open a folder below a root, part by part, none of them a symlink."""
    fd = os.dup(root_fd)
    for part in folder.split(b"/") if folder else ():
        if part in (b"..", b"."):
            os.close(fd)
            raise OSError(errno.EINVAL, "name leaves its root", os.fsdecode(folder))
        try:
            below = os.open(part, _OPEN_FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def open_regular(folder_fd: int, name: bytes) -> int:
    """Open a regular file for reading; a FIFO does not block, a symlink is not followed.

    Raises
    ------
    OSError
        One of ``NO_FILE`` where there is no regular file, ELOOP for a symlink.
    """
    fd = os.open(name, _OPEN_FILE, dir_fd=folder_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(name))
    return fd


def inode_at(folder_fd: int, name: bytes) -> int | None:
    """Return the inode of a name, or None where there is none."""
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def is_same_file(fd: int, name: bytes, other_fd: int, other: bytes) -> bool:
    """Tell whether two names in open folders are there and of one file."""
    try:
        one = os.stat(name, dir_fd=fd, follow_symlinks=False)
        two = os.stat(other, dir_fd=other_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(one, two)


def unlink_if_there(folder_fd: int, name: bytes) -> None:
    """Remove a name of ours that may be gone already."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder_fd)


def make_folder(root_fd: int, folder: bytes) -> bool:
    """Make a folder directly in another; return whether it is new.

    Raises
    ------
    OSError
        ENOTDIR when a file or a symlink has that name.
    """
    try:
        os.mkdir(folder, dir_fd=root_fd)
    except FileExistsError:
        return False
    sync_folder(root_fd)
    return True


def sync_folder(fd: int) -> None:
    """Fsync a folder's entries; some shares cannot, and say EINVAL."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def read_chunks(fd: int) -> Iterator[bytes]:
    """Yield a file's bytes from its beginning."""
    offset = 0
    while chunk := os.pread(fd, _READ_BYTES, offset):
        yield chunk
        offset += len(chunk)


def sha256_of(fd: int) -> bytes:
    """Return the SHA-256 (32 bytes) of an open file."""
    digest = hashlib.sha256()
    for chunk in read_chunks(fd):
        digest.update(chunk)
    return digest.digest()


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


class Folders:
    """Folders below one root, opened once for a batch and synced together.

    Use as a context manager; descriptors are closed at its end.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root_fd = -1
        self._open: dict[bytes, int] = {}
        self._dirty: set[bytes] = set()

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._open.values(), self._root_fd):
            if fd >= 0:
                os.close(fd)
        self._open.clear()
        self._root_fd = -1

    def open(self) -> None:
        """Open the root now, so that its absence is not taken for a file's.

        Raises
        ------
        OSError
            It is gone, not mounted, or not to be read.
        """
        if self._root_fd < 0:
            self._root_fd = open_root(self.root)

    @property
    def is_open(self) -> bool:
        """Whether the root was opened."""
        return self._root_fd >= 0

    @property
    def root_fd(self) -> int:
        """The root's descriptor."""
        self.open()
        return self._root_fd

    def fd(self, folder: bytes) -> int:
        """Return the descriptor of a folder; the root itself is the empty name."""
        if folder not in self._open:
            self._open[folder] = open_below(self.root_fd, folder)
        return self._open[folder]

    def make(self, folder: bytes) -> int:
        """Return the descriptor of a folder below the root, made part by part where it is new."""
        parts = folder.split(b"/") if folder else []
        for end in range(1, len(parts) + 1):
            below = b"/".join(parts[:end])
            if below not in self._open:
                make_folder(self.fd(b"/".join(parts[: end - 1])), parts[end - 1])
                self.fd(below)
        return self.fd(folder)

    def close(self, folder: bytes) -> None:
        """Close a folder that was removed; its name may be made anew."""
        if folder in self._open:
            os.close(self._open.pop(folder))

    def touched(self, folder: bytes) -> None:
        """Remember that a folder's entries changed."""
        self._dirty.add(folder)

    def sync(self) -> None:
        """Fsync every touched folder, once."""
        for folder in sorted(self._dirty):
            sync_folder(self.fd(folder))
        self._dirty.clear()


def same_content(fd: int, move: Move) -> bool:
    """Compare by stamp; where that differs (a touch, a share's new inodes), by bytes."""
    status = os.fstat(fd)
    return stamp_of(status).same_content(move.stamp) or (
        status.st_size == move.stamp.size_bytes and sha256_of(fd) == move.sha256
    )


def holds_bytes(folders: Folders, name: bytes, size_bytes: int, sha256: bytes) -> bool:
    """Tell whether a name below a root is a regular file with exactly these bytes.

    Raises
    ------
    OSError
        There is a file, but it cannot be read now (permission, a bad sector).
    """
    folder, base = split(name)
    try:
        fd = open_regular(folders.fd(folder), base)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return False
    with closing(fd):
        return os.fstat(fd).st_size == size_bytes and sha256_of(fd) == sha256
