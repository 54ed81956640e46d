"""Which file does a person mean, where does it stand, and what are clusters called?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgsortd.adapters import fsops
from imgsortd.adapters.store import Store, open_read_only
from imgsortd.adapters.store_find import FileRow, Finder, check_schema
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.config import Config
from imgsortd.core.routing import cluster_folder
from imgsortd.errors import FindError


@dataclass(frozen=True, slots=True)
class Subject:
    """What a command was asked about.

    Attributes
    ----------
    path
        As it was given.
    row
        Its row, or that of a file of the library with the same bytes; None where there is none.
    is_row
        Whether it is that very file, not another one with its bytes.
    is_there
        Whether it is on disk under ``path``.
    changed
        The row's file stands there with other bytes than those that were sorted.
    """

    path: Path
    row: FileRow | None
    is_row: bool
    is_there: bool
    changed: bool = False


@contextmanager
def open_for_reading(config: Config) -> Iterator[Store]:
    """Open the library's database beside a daemon that may be running.

    Raises
    ------
    StoreError
        There is none yet, or it is of an older imgsortd.
    """
    store = open_read_only(config.database)
    try:
        with foreign_errors(config.database):
            check_schema(store)
            yield store
    finally:
        store.close()


def place_of(config: Config, row: FileRow) -> Path:
    """Return where a file stands, or should: below target, or in the inbox."""
    name = row.in_target
    return (config.inbox / os.fsdecode(row.src)) if name is None else target_path(config, name)


def target_path(config: Config, name: bytes) -> Path:
    """Return the path of a name below target."""
    return config.target / os.fsdecode(name)


def stands(config: Config, row: FileRow) -> bool:
    """Tell whether a file is where its row says."""
    return os.path.lexists(place_of(config, row))


def find_subject(config: Config, store: Store, path: Path) -> Subject:
    """Find the file that a person means: by its place in the library, else by its bytes.

    Raises
    ------
    FindError
        There is no such file, neither on disk nor in the library; or it cannot be read.
    """
    finder = Finder(store)
    named = _by_place(config, finder, path)
    sha256, there = _hash(path), path
    if sha256 is None and named is None:
        raise FindError(
            f"{path}: no such file; expected a picture on disk, or the path of one in the "
            f"library (below {config.target} or {config.inbox})"
        )
    if named is not None and sha256 is None:
        there = place_of(config, named)  # given relative to target, or it was moved since
        sha256 = _hash(there)
        return Subject(there, named, True, sha256 is not None, sha256 not in (None, named.sha256))
    if named is not None and named.sha256 in (None, sha256):
        return Subject(path, named, True, True)
    assert sha256 is not None
    same = finder.same_bytes(sha256)
    return Subject(path, same[0] if same else None, False, True, named is not None)


def _by_place(config: Config, finder: Finder, path: Path) -> FileRow | None:
    """Return the row of the file that has, or had, this place."""
    ways = [Path(os.path.abspath(path)), Path(os.path.realpath(path))]
    for root, look in ((config.target, finder.in_target), (config.inbox, finder.in_inbox)):
        roots = {Path(os.path.abspath(root)), Path(os.path.realpath(root))}
        for way in ways:
            for one in roots:
                if way.is_relative_to(one) and (rows := look(os.fsencode(way.relative_to(one)))):
                    return rows[0]
    if not path.is_absolute() and not os.path.lexists(path):
        return next(iter(finder.in_target(os.fsencode(os.path.normpath(path)))), None)
    return None


def _hash(path: Path) -> bytes | None:
    """Return the SHA-256 of a file on disk; None where there is none."""
    try:
        real = path.resolve(strict=True)
        folder = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with fsops.closing(folder):
            fd = fsops.open_regular(folder, os.fsencode(real.name))
        with fsops.closing(fd):
            return fsops.sha256_of(fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FindError(f"{path}: cannot be read as a picture file ({reason})") from error


class ClusterNames:
    """Says of files and clusters what a person knows them by."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._folders = store.records.named_folders()
        self._names = Finder(store).cluster_names()

    def file(self, row: FileRow) -> dict[str, Any]:
        """Describe a file: where it stands, its state and its cluster."""
        return {
            "file": str(place_of(self._config, row)),
            "state": str(row.state),
            **self.cluster(row.cluster_id),
        }

    def cluster(self, cluster_id: int | None) -> dict[str, Any]:
        """Describe a cluster: its number, its folder and its name."""
        if cluster_id is None:
            return {"cluster": None, "folder": None, "name": None}
        folder = self._folders.get(cluster_id) or cluster_folder(cluster_id)
        name = self._names.get(cluster_id)
        return {"cluster": cluster_id, "folder": os.fsdecode(folder), "name": name}
