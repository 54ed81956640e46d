"""Where may a person put pictures? Into a folder directly in target: a cluster's, or another."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from imgsortd.adapters.target import Target
from imgsortd.cluster_folders import inodes_of
from imgsortd.core.hands import Kind
from imgsortd.core.names import cluster_of, folder_of, folder_problem
from imgsortd.core.routing import REVIEW_FOLDER
from imgsortd.corrections import Corrections
from imgsortd.errors import PlacingError
from imgsortd.library import Library

_NO_CLUSTER = -1
_HOW = '"to" must be {"cluster": N}, {"folder": "NAME"} or {"review": true}'


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder to put pictures into; ``cluster_id`` where it is that of a cluster in force."""

    folder: bytes
    kind: Kind
    cluster_id: int | None = None


def find_destination(library: Library, to: object) -> Destination:
    """Return the folder that a request means; it need not be there yet.

    Parameters
    ----------
    to
        ``{"cluster": 7}``, ``{"folder": "Receipts"}`` or ``{"review": true}``.

    Raises
    ------
    PlacingError
        It is none of these, or there is no such cluster, or the name cannot be had.
    """
    if not isinstance(to, dict) or len(to) != 1:
        raise PlacingError(f"{_HOW}, got {to!r}")
    ((key, value),) = to.items()
    if key == "cluster" and type(value) is int:
        folder = _folder_of_cluster(library, value)
    elif key == "folder" and isinstance(value, str):
        folder = _folder_of_name(library, value)
    elif key == "review" and value is True:
        folder = REVIEW_FOLDER
    else:
        raise PlacingError(f"{_HOW}, got {to!r}")
    _check_place(library, folder)
    place = Corrections(library).place(folder)
    in_force = place.cluster_id if place.kind is Kind.CLUSTER else None
    return Destination(folder, place.kind, in_force)


def _folder_of_cluster(library: Library, number: int) -> bytes:
    folder = folder_of(number, library.store.records.named_folders())
    if Corrections(library).place(folder).cluster_id != number or not _is_known(library, number):
        raise PlacingError(f"there is no cluster {number}; `imgsortd status` lists those there are")
    return folder


def _is_known(library: Library, number: int) -> bool:
    """Tell whether a cluster is in force, or was and has had files: others are only proposed."""
    if library.store.placings.in_force(number):
        return True
    rows = library.store.hands.cluster_folders()
    is_known = any(row.cluster_id == number for row in rows)
    return is_known and library.store.hands.is_free_number(number)


def _folder_of_name(library: Library, name: str) -> bytes:
    """Return the folder of a name: that of the cluster that has it, or a person's own."""
    try:
        folder = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise PlacingError(f"the folder must have a name that can be written: {name!a}") from error
    named = library.store.records.named_folders()
    number = cluster_of(folder, named)
    if number is not None and _is_known(library, number):
        in_force = library.store.placings.in_force(number)
        return folder_of(number, named) if in_force else folder
    problem = folder_problem(folder, _NO_CLUSTER, named)
    if problem:
        raise PlacingError(f"the name of a folder {problem}: {name!r}")
    config = library.config
    if not Target(config.target, config.ignore, with_links=False).is_ours_to_see(folder):
        raise PlacingError(f"the name of a folder must not be one that `ignore` names: {name!r}")
    return _as_spelled(library, folder)


def _as_spelled(library: Library, folder: bytes) -> bytes:
    """Return a folder's name as it stands, where upper and lower case are one to the target."""
    target = library.config.target
    try:
        inode = os.lstat(os.path.join(os.fsencode(target), folder)).st_ino
        inodes = inodes_of(target)
    except OSError:
        return folder
    if folder in inodes:
        return folder
    return next((name for name, other in inodes.items() if other == inode), folder)


def _check_place(library: Library, folder: bytes) -> None:
    """Refuse what no move could be made into: its row would stay open for good."""
    target = library.config.target
    if not target.is_dir():
        raise PlacingError(f"target {target} is not there; mount it, and ask again")
    try:
        mode = os.lstat(os.path.join(os.fsencode(target), folder)).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlacingError(f"{target / os.fsdecode(folder)}: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise PlacingError(
            f"{target / os.fsdecode(folder)}: is no folder, but a file or a link; choose another "
            f"name, or move that away first"
        )
