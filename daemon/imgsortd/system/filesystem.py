"""System calls on files, through folder descriptors, never through a symlink.

Every name is relative to an open folder (``O_DIRECTORY | O_NOFOLLOW``), so that
nobody can swap a folder for a link between a check and its use.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import signal
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

from imgsortd.names import name_choices
from imgsortd.records import Move, Stamp
from imgsortd.system.faults import fault_point

NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV)
"""What opening says where no regular file has the name: it is gone, or something else."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""What a call says where a disk, or a user's share of it, is full."""

_READ_BYTES = 1 << 20
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a hard link meets on a filesystem that has none."""

_RENAME_NOREPLACE = 1
_NO_RENAMEAT2 = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_libc = ctypes.CDLL(None, use_errno=True)


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


def write_atomically(
    path: Path,
    chunks: Iterable[bytes],
    *,
    synced: bool = True,
    shared: bool = False,
    mode: int = 0o600,
) -> None:
    """Write a small file of ours that is there whole, or not at all.

    Parameters
    ----------
    synced
        Also after a power cut; without that no fsync is waited for.
    shared
        Whether two processes may write it at once, as in a cache. In a folder with one owner a
        part that a kill has left is written over by the next one.
    mode
        Who may read it: its owner alone, unless told otherwise.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name.lstrip('.')}.part")
    if shared:
        part = part.with_name(f".{path.name}-{secrets.token_hex(8)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(part, flags, mode), "wb") as file:
            owner = path.parent.stat()
            if os.geteuid() == 0 and owner.st_uid:  # a command by sudo leaves it to its owner
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.writelines(chunks)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if synced:
        with closing(open_root(path.parent)) as folder_fd:
            sync_folder(folder_fd)


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


def rename_noreplace(src_fd: int, src: bytes, dst_fd: int, dst: bytes) -> bool:
    """Rename by ``renameat2``.

    Returns
    -------
    bool
        False where this filesystem or kernel does not have it.

    Raises
    ------
    OSError
        EEXIST when ``dst`` is there, EXDEV when it is another mount, and others.
    """
    try:
        call = _libc.renameat2
    except AttributeError:
        return False
    if call(src_fd, src, dst_fd, dst, _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_RENAMEAT2:
        return False
    raise OSError(code, os.strerror(code), os.fsdecode(src))


def link(src_fd: int, src: bytes, dst_fd: int, dst: bytes) -> None:
    """Make a hard link; an existing ``dst`` is EEXIST."""
    os.link(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd, follow_symlinks=False)


def rename(src_fd: int, src: bytes, dst_fd: int, dst: bytes) -> None:
    """Rename within one mount: by ``renameat2``, else by a hard link, else over a placeholder.

    Raises
    ------
    OSError
        EEXIST when ``dst`` is there, EXDEV when it is another mount, and others.
    """
    if rename_noreplace(src_fd, src, dst_fd, dst):
        return
    try:
        link(src_fd, src, dst_fd, dst)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _rename_over_placeholder(src_fd, src, dst_fd, dst)
        return
    fault_point("linked")
    os.unlink(src, dir_fd=src_fd)


def _rename_over_placeholder(src_fd: int, src: bytes, dst_fd: int, dst: bytes) -> None:
    """Take the name with an empty file of ours, then replace that (some FUSE mounts)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(dst, flags, 0o600, dir_fd=dst_fd))
    try:
        os.rename(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd)
    except OSError:
        unlink_if_there(dst_fd, dst)
        raise


def return_to(src_fd: int, src: bytes, folder_fd: int, name: bytes) -> bytes:
    """Rename a file back to its old name, or to the next free one; return that name.

    Raises
    ------
    FileNotFoundError
        There is no ``src``.
    """
    for choice in name_choices(name):
        try:
            rename(src_fd, src, folder_fd, choice)
        except FileExistsError:
            if not is_same_file(src_fd, src, folder_fd, choice):
                continue
            os.unlink(src, dir_fd=src_fd)  # linked, not unlinked before a crash
        sync_folder(folder_fd)
        sync_folder(src_fd)
        return choice
    raise AssertionError("name_choices never ends")


def allow_leases() -> None:
    """Let :func:`writer_of` ask the kernel; call once, in the main thread.

    Who holds a lease gets SIGIO when a writer comes, and SIGIO kills by default.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


class Writer(Enum):
    """Whether somebody has a file open, or mapped, for writing."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"  # no lease is to be had: a network share, a file of another owner


def writer_of(fd: int) -> Writer:
    """Tell whether somebody has the file open, or mapped, for writing.

    Source: fcntl(2), F_SETLEASE: a read lease is refused while a writer exists. It needs
    a file of one's own or CAP_LEASE, and a filesystem that has leases.
    """
    if signal.getsignal(signal.SIGIO) is signal.SIG_DFL:
        return Writer.NONE  # this process does not ask: see allow_leases
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writer.SOME if error.errno == errno.EAGAIN else Writer.UNKNOWN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writer.NONE
