"""A page on disk: there whole or not at all, and never in the place of a file that is not ours."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from pathlib import Path

from imgsortd.errors import ImgsortdError

MARK = '<meta name="generator" content="imgsortd">'
"""Stands in the head of each page of ours."""

_HEAD_BYTES = 1024


class Replace(Enum):
    """Which file a page may take the place of."""

    OURS = "ours"
    ANY = "any"


def check_page(path: Path, replace: Replace) -> None:
    """Refuse a path that a page cannot be written to, before the work is done.

    Raises
    ------
    ImgsortdError
        A folder, a file that imgsortd did not make, or a folder that is not there.
    """
    if path.is_dir():
        raise ImgsortdError(f"{path}: is a folder; give the name of a file, such as sheet.html")
    if not path.parent.is_dir():
        raise ImgsortdError(f"{path}: there is no folder {path.parent}; make it first")
    if not path.exists() or replace is Replace.ANY:
        return
    try:
        with path.open("rb") as file:
            is_ours = MARK.encode() in file.read(_HEAD_BYTES)
    except OSError as error:
        raise ImgsortdError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_ours:
        raise ImgsortdError(
            f"{path}: is there already and is no page of imgsortd's; "
            f"give another name, or --force to replace it"
        )


def write_page(path: Path, parts: Iterable[str], replace: Replace = Replace.OURS) -> int:
    """Write a page and return its size in bytes; a stop on the way leaves what was there.

    Raises
    ------
    ImgsortdError
        As :func:`check_page`; or the disk is full, or the folder cannot be written.
    """
    path = path.resolve()  # where the name is a link, the page goes where it leads
    check_page(path, replace)
    may_replace = path.exists()
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent)
    except OSError as error:
        raise ImgsortdError(f"{path}: cannot be written ({error.strerror})") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
            size_bytes = os.fstat(file.fileno()).st_size
        _put(part, path, may_replace or replace is Replace.ANY)
    except OSError as error:
        raise ImgsortdError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    return size_bytes


def _put(part: Path, path: Path, may_replace: bool) -> None:
    """Give the page its name; one that came meanwhile stays, where hard links can tell."""
    if not may_replace:
        with suppress(PermissionError, NotImplementedError):  # a filesystem without hard links
            try:
                path.hardlink_to(part)
            except FileExistsError as error:
                raise ImgsortdError(f"{path}: came meanwhile and is not replaced") from error
            return
    part.replace(path)


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
