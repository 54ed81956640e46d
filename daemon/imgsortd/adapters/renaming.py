"""Give a file another name without ever replacing one, by whatever the filesystem has for it."""

from __future__ import annotations

import ctypes
import errno
import os

from imgsortd.adapters import fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.core.routing import name_choices

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a hard link meets on a filesystem that has none."""

_RENAME_NOREPLACE = 1
_NO_RENAMEAT2 = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

_libc = ctypes.CDLL(None, use_errno=True)


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
        fsops.unlink_if_there(dst_fd, dst)
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
            continue
        fsops.sync_folder(folder_fd)
        fsops.sync_folder(src_fd)
        return choice
    raise AssertionError("name_choices never ends")
