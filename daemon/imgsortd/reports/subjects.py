"""Which file does a person mean, where does it stand, and what are clusters called?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.errors import FindError
from imgsortd.names import folder_of
from imgsortd.pictures.reading import RootedName
from imgsortd.store.database import Store
from imgsortd.store.lookup import FileLookup, FileRow
from imgsortd.system import filesystem


@dataclass(frozen=True, slots=True)
class Subject:
    """What a command was asked about.

    Attributes
    ----------
    path
        As it was given, or where its file stands.
    row
        Its row, or that of a file of the library with the same bytes; None where there is none.
    is_row
        It is that very file, not another one with its bytes.
    is_there
        It is on disk under ``path``.
    changed
        The row's file stands there with other bytes than those that were sorted.
    """

    path: Path
    row: FileRow | None
    is_row: bool
    is_there: bool
    changed: bool = False


@dataclass(frozen=True, slots=True)
class ToldCluster:
    """A cluster as a person knows it: its number, its folder and its name; None for none."""

    cluster: int | None
    folder: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class ToldFile:
    """A file as a person knows it: where it stands, its state and its cluster."""

    file: str
    state: str
    cluster: int | None
    folder: str | None
    name: str | None


def place_of(config: Config, row: FileRow) -> Path:
    """Return where a file stands, or should: below target, or in the inbox."""
    if row.in_target is None:
        return _inbox_of(config, row) / os.fsdecode(row.src)
    return _target_of(config, row) / os.fsdecode(row.in_target)


def _inbox_of(config: Config, row: FileRow) -> Path:
    return config.inbox if row.inbox is None else Path(os.fsdecode(row.inbox))


def _target_of(config: Config, row: FileRow) -> Path:
    return config.target if row.target is None else Path(os.fsdecode(row.target))


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
    finder = store.lookup
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


def _by_place(config: Config, finder: FileLookup, path: Path) -> FileRow | None:
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
        with filesystem.closing(folder):
            fd = filesystem.open_regular(folder, os.fsencode(real.name))
        with filesystem.closing(fd):
            return filesystem.sha256_of(fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FindError(f"{path}: cannot be read as a picture file ({reason})") from error


class ClusterNames:
    """Says what a person knows files and clusters by: the fields of what is told of them."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._folders = store.records.named_folders()
        self._names = store.lookup.cluster_names()

    def of_file(self, row: FileRow) -> tuple[str, str, int | None, str | None, str | None]:
        """Return the values of a :class:`ToldFile`."""
        return str(place_of(self._config, row)), str(row.state), *self.of_cluster(row.cluster_id)

    def of_cluster(self, cluster_id: int | None) -> tuple[int | None, str | None, str | None]:
        """Return the values of a :class:`ToldCluster`."""
        if cluster_id is None:
            return None, None, None
        folder = os.fsdecode(folder_of(cluster_id, self._folders))
        return cluster_id, folder, self._names.get(cluster_id)


def places_of(config: Config, file: FileRow) -> tuple[RootedName, ...]:
    """Return where a file may stand; what a link in target leads to is its source."""
    places: list[RootedName] = []
    if file.dst is not None:
        places.append((_target_of(config, file), file.dst))
    if file.is_in_inbox:
        places.append((_inbox_of(config, file), file.src))
    return tuple(places)
