"""Make a sheet: read what it shows, make the small pictures, write the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgsortd import pages
from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.page_file import Replace, check_page, write_page
from imgsortd.adapters.store import open_read_only
from imgsortd.adapters.thumbnails import make_thumbnails
from imgsortd.config import Config
from imgsortd.contact_sheet import read_sheet
from imgsortd.refit_changes import RefitChanges

DEFAULT_MAX_MB = 50.0

OnProgress = Callable[[str, int, int], None]
"""Told (stage, done, of how many)."""


@dataclass(frozen=True, slots=True)
class SheetReport:
    """What became of a sheet; ``unread`` counts pictures that are gone or cannot be read."""

    file: str
    size_bytes: int
    clusters: int
    pictures: int
    unread: int
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def write_contact_sheet(
    config: Config,
    path: Path,
    *,
    note: str = "",
    replace: Replace = Replace.OURS,
    max_mb: float = DEFAULT_MAX_MB,
    on_progress: OnProgress = lambda *_: None,
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
    check_page(path, replace)
    store = open_read_only(config.database)
    try:
        sheet = read_sheet(config, store, note, lambda *now: on_progress("features", *now))
    finally:
        store.close()
    wanted = [(picture.file_id, picture.places) for picture in sheet.by_importance()]
    on_progress("pictures", 0, len(wanted))
    made = make_thumbnails(
        wanted,
        decode_limits(config.pictures),
        round(max_mb * 1e6),
        lambda done: on_progress("pictures", done, len(wanted)),
    )
    size_bytes = write_page(path, pages.contact_sheet(sheet, made), replace)
    return SheetReport(
        str(path), size_bytes, len(sheet.clusters), len(made.found), len(made.unread), made.left_out
    )


def write_refit_sheet(
    config: Config,
    changes: RefitChanges,
    path: Path,
    *,
    replace: Replace = Replace.OURS,
    max_mb: float = DEFAULT_MAX_MB,
    on_progress: OnProgress = lambda *_: None,
) -> SheetReport:
    """Write the sheet of what a refit would change.

    Raises
    ------
    ImgsortdError
        As :func:`write_contact_sheet`.
    """
    check_page(path, replace)
    groups = changes.by_size()
    names = dict.fromkeys(name for group in groups for name in group.sample())
    wanted = [(name, [(config.target, name)]) for name in names]
    made = make_thumbnails(
        wanted,
        decode_limits(config.pictures),
        round(max_mb * 1e6),
        lambda done: on_progress("pictures", done, len(wanted)),
    )
    size_bytes = write_page(path, pages.refit_sheet(changes, made.found), replace)
    return SheetReport(
        str(path), size_bytes, len(groups), len(made.found), len(made.unread), made.left_out
    )
