"""Copy a file so that its name appears only when all its bytes are there and synced.

A copy is *staged* in an unnamed file (``O_TMPFILE``) in the destination folder,
or in ``.imgsortd-<mark>.part`` where that is not to be had, then synced, then
*published* under its name without replacing anything: only the file that was written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imgsortd.records import Move
from imgsortd.system import filesystem

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_SYNC_THREADS = 8
_SYNC_BYTES = 64 << 20


class BytesChangedError(Exception):
    """The source no longer holds the bytes that were hashed."""


class GivenUpError(Exception):
    """The copy was given up because the process is to end; nothing is left behind."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A complete copy without its final name; ``part`` is empty for an unnamed file."""

    fd: int
    folder_fd: int
    part: bytes


def stage(
    src_fd: int,
    folder_fd: int,
    part: bytes,
    sha256: bytes,
    on_chunk: Callable[[], None] = lambda: None,
) -> Staged:
    """Copy bytes, times, mode and ``user.*`` attributes into a new file in a folder.

    Parameters
    ----------
    part
        Name to use where unnamed files are not to be had. It has the mark of one move of one
        library: an older file of that name is what a crash has left of this very move.
    sha256
        Digest that the bytes must have.
    on_chunk
        Called after each megabyte, for a film of gigabytes takes a slow disk minutes; gives
        the copy up by a :class:`GivenUpError`.

    Raises
    ------
    BytesChangedError
        The bytes read are not the ones that were hashed.
    OSError
        No space, no permission, input/output error. Nothing is left behind.
    """
    staged = _create(folder_fd, part)
    try:
        before = os.fstat(src_fd)
        _copy_bytes(src_fd, staged.fd, before.st_size, sha256, on_chunk)
        _copy_attributes(src_fd, staged.fd, before)
    except BaseException:
        discard(staged)
        raise
    return staged


def _create(folder_fd: int, part: bytes) -> Staged:
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        fd = os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=folder_fd)
        return Staged(fd, folder_fd, b"")
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    filesystem.unlink_if_there(folder_fd, part)
    fd = os.open(part, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder_fd)
    return Staged(fd, folder_fd, part)


def _copy_bytes(
    src_fd: int, dst_fd: int, size_bytes: int, sha256: bytes, on_chunk: Callable[[], None]
) -> None:
    if size_bytes:
        # A full disk is met here, before the first byte; not all filesystems can.
        try:
            os.posix_fallocate(dst_fd, 0, size_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    digest, unsynced = hashlib.sha256(), 0
    for chunk in filesystem.read_chunks(src_fd):
        digest.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(dst_fd, view) :]
        unsynced += len(chunk)
        if unsynced >= _SYNC_BYTES:  # or gigabytes would be left for one fsync, without a ping
            os.fdatasync(dst_fd)
            unsynced = 0
        on_chunk()
    if digest.digest() != sha256:
        raise BytesChangedError


def _copy_attributes(src_fd: int, dst_fd: int, status: os.stat_result) -> None:
    with suppress(OSError):
        for name in os.listxattr(src_fd):
            if name.startswith("user."):
                os.setxattr(dst_fd, name, os.getxattr(src_fd, name))
    with suppress(OSError):  # FAT and some shares have no modes
        os.fchmod(dst_fd, status.st_mode & 0o777)
    with suppress(OSError):  # or keep times of their own
        os.utime(dst_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def sync(copies: Sequence[Staged]) -> list[OSError | None]:
    """Fsync copies side by side, so that the disk can join their journal commits.

    Returns the error of each copy, or None. A failed copy must be discarded: a second fsync
    would not tell again.
    """

    def sync_one(staged: Staged) -> OSError | None:
        try:
            os.fsync(staged.fd)
        except OSError as error:
            return error
        return None

    if len(copies) < 2:
        return [sync_one(staged) for staged in copies]
    with ThreadPoolExecutor(min(_SYNC_THREADS, len(copies))) as pool:
        return list(pool.map(sync_one, copies))


def publish(staged: Staged, name: bytes) -> None:
    """Give a synced copy its name; where that is taken it stays staged, and may try another."""
    if not staged.part:
        source = f"/proc/self/fd/{staged.fd}"
        os.link(source, name, dst_dir_fd=staged.folder_fd, follow_symlinks=True)
        return
    if filesystem.inode_at(staged.folder_fd, staged.part) != os.fstat(staged.fd).st_ino:
        raise OSError(errno.ESTALE, "what was copied was taken away before it had its name")
    filesystem.rename(staged.folder_fd, staged.part, staged.folder_fd, name)
    if filesystem.inode_at(staged.folder_fd, name) != os.fstat(staged.fd).st_ino:
        filesystem.rename(staged.folder_fd, name, staged.folder_fd, staged.part)
        raise OSError(errno.ESTALE, "another file was put in place of what was copied")


def discard(staged: Staged) -> None:
    """Drop a copy that will not be published, or close one that was."""
    inode = os.fstat(staged.fd).st_ino
    os.close(staged.fd)
    if staged.part and filesystem.inode_at(staged.folder_fd, staged.part) == inode:
        filesystem.unlink_if_there(staged.folder_fd, staged.part)


def part_of(move: Move) -> bytes:
    """Return the name that a move's copy has where unnamed files are not to be had."""
    return b".imgsortd-%s.part" % move.mark.encode()


def try_folder(folder: Path) -> None:
    """Make and drop an empty file; an OSError tells that a folder takes none."""
    with filesystem.closing(filesystem.open_root(folder)) as folder_fd:
        discard(_create(folder_fd, b".imgsortd-try-%s.part" % secrets.token_hex(8).encode()))
