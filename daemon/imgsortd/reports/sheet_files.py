"""Make a sheet: read what it shows, make the small pictures, write the page."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from imgsortd.config.model import Config
from imgsortd.errors import ImgsortdError
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.reading import RootedName
from imgsortd.pictures.thumbnails import Thumbnails, make_thumbnails
from imgsortd.records import StageProgress
from imgsortd.refits.changes import RefitChanges
from imgsortd.reports.sheet import read_sheet
from imgsortd.reports.sheet_pages import MARK, contact_sheet, refit_sheet
from imgsortd.store.database import open_for_reading

_HEAD_BYTES = 1024

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class SheetReport:
    """What became of a sheet; ``unread`` counts pictures that are gone or cannot be read."""

    file: str
    size_bytes: int
    clusters: int
    pictures: int
    unread: int
    left_out: int


class Replace(Enum):
    """Which file a page may take the place of."""

    OURS = "ours"
    ANY = "any"


def write_contact_sheet(
    config: Config,
    path: Path,
    *,
    note: str = "",
    replace: Replace = Replace.OURS,
    max_mb: float = 50,
    on_progress: StageProgress = lambda *_: None,
) -> SheetReport:
    """Write the contact sheet of a library; a daemon may be at work on it.

    Parameters
    ----------
    note
        A sentence for the header, as plain text.
    max_mb
        Megabytes that the pictures may take in the file.

    Raises
    ------
    ImgsortdError
        ``path`` cannot be written, or holds something else; StoreError among them.
    """
    _check_page(path, replace)
    with open_for_reading(config.database) as store:
        sheet = read_sheet(config, store, note, lambda *now: on_progress("features", *now))
    wanted = [(picture.file_id, picture.places) for picture in sheet.by_importance()]
    made = _small_pictures(config, wanted, max_mb, on_progress)
    return _written(path, contact_sheet(sheet, made), replace, len(sheet.clusters), made)


def write_refit_sheet(
    config: Config,
    changes: RefitChanges,
    path: Path,
    *,
    on_progress: StageProgress = lambda *_: None,
) -> SheetReport:
    """Write the sheet of what a refit would change.

    Raises
    ------
    ImgsortdError
        As :func:`write_contact_sheet`.
    """
    _check_page(path, Replace.OURS)
    groups = changes.by_size()
    names = dict.fromkeys(name for group in groups for name in group.sample())
    wanted = [(name, ((config.target, name),)) for name in names]
    made = _small_pictures(config, wanted, 50, on_progress)
    return _written(path, refit_sheet(changes, made.found), Replace.OURS, len(groups), made)


def _small_pictures(
    config: Config,
    wanted: Sequence[tuple[Key, Sequence[RootedName]]],
    max_mb: float,
    on_progress: StageProgress,
) -> Thumbnails[Key]:
    on_progress("pictures", 0, len(wanted))
    return make_thumbnails(
        wanted,
        decode_limits(config.pictures),
        round(max_mb * 1e6),
        lambda done: on_progress("pictures", done, len(wanted)),
    )


def _written(
    path: Path, parts: Iterable[str], replace: Replace, clusters: int, made: Thumbnails[Key]
) -> SheetReport:
    size_bytes = write_page(path, parts, replace)
    pictures, unread = len(made.found), len(made.unread)
    return SheetReport(str(path), size_bytes, clusters, pictures, unread, made.left_out)


def write_page(path: Path, parts: Iterable[str], replace: Replace = Replace.OURS) -> int:
    """Write a page and return its size in bytes; a stop on the way leaves what was there.

    Raises
    ------
    ImgsortdError
        It is a folder or a file that imgsortd did not make, or stands in a folder that is not
        there or cannot be written; or the disk is full.
    """
    path = path.resolve()  # where the name is a link, the page goes where it leads
    _check_page(path, replace)
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
            umask = os.umask(0o077)
            os.umask(umask)
            os.fchmod(file.fileno(), 0o666 & ~umask)
            os.fsync(file.fileno())
            size_bytes = os.fstat(file.fileno()).st_size
        _put(part, path, may_replace or replace is Replace.ANY)
    except OSError as error:
        raise ImgsortdError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    return size_bytes


def _check_page(path: Path, replace: Replace) -> None:
    """Refuse a path that a page cannot be written to, before the work is done."""
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
