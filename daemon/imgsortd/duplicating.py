"""``imgsortd duplicates``: report them, make hashes that are missing, remember what is kept.

Nothing here moves or deletes a file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.store import Store, open_store
from imgsortd.adapters.store_find import FileRow, Finder
from imgsortd.adapters.store_health import BUSY_TIMEOUT_S, foreign_errors
from imgsortd.asking import Progress, ask_daemon
from imgsortd.config import Config
from imgsortd.core.perceptual import look_of
from imgsortd.core.records import FileState
from imgsortd.errors import FindError
from imgsortd.finding import library_extractor
from imgsortd.keeping import MAX_FILES, decide
from imgsortd.near_search import NearGroup, find_near
from imgsortd.placed_pictures import PlacedPictures, same_picture
from imgsortd.subjects import ClusterNames, find_subject, open_for_reading, place_of, stands

_FILES_AT_ONCE = 64
_PAIRS_TOLD = 100


def duplicates(
    config: Config, *, exact: bool, near: bool, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Report the groups of exact and of near-duplicates, as plain values for JSON.

    Raises
    ------
    StoreError, FindError
        There is no library yet, or no picture in it.
    """
    with open_for_reading(config) as store:
        kept = store.hashes.kept()
        report: dict[str, Any] = {"kept_pairs": len(kept), "exact": None, "near": None}
        if exact:
            same = (name for name in store.hashes.repeated() if (name, name) not in kept)
            finder, names = Finder(store), ClusterNames(config, store)
            groups = [_equal_files(config, finder, names, name) for name in same]
            report["exact"] = [group for group in groups if len(group["files"]) > 1]
        if near:
            report |= _near(config, store, progress)
        return report


def _rows(config: Config, finder: Finder, sha256: bytes) -> list[FileRow]:
    """Return the files with these bytes that stand, each place once; the original first."""
    rows = {place_of(config, row): row for row in reversed(finder.same_bytes(sha256))}
    return [row for row in reversed(rows.values()) if stands(config, row)]


def _equal_files(
    config: Config, finder: Finder, names: ClusterNames, sha256: bytes
) -> dict[str, Any]:
    rows = _rows(config, finder, sha256)
    files = [_file(config, names, row) | {"original": at == 0} for at, row in enumerate(rows)]
    return {"sha256": sha256.hex(), "files": files}


def _file(config: Config, names: ClusterNames, row: FileRow) -> dict[str, Any]:
    path = place_of(config, row)
    try:
        size_bytes: int | None = os.stat(path).st_size
    except OSError:  # taken away just now
        size_bytes = None
    return {**names.file(row), "size_bytes": size_bytes}


def _near(config: Config, store: Store, progress: Progress) -> dict[str, Any]:
    finder, names = Finder(store), ClusterNames(config, store)

    def is_there(sha256: bytes) -> bool:
        return bool(_rows(config, finder, sha256))

    found = find_near(store, library_extractor(store), is_there, progress)
    return {
        "near": [_alike_files(config, finder, names, group) for group in found.groups],
        "compared": found.compared,
        "crowded": found.crowded,
        "lacking": store.hashes.count_lacking(),
    }


def _alike_files(
    config: Config, finder: Finder, names: ClusterNames, group: NearGroup
) -> dict[str, Any]:
    rows = {name: _rows(config, finder, name) for name in group.members}
    files = [_file(config, names, row) for some in rows.values() for row in some]
    # The first file of each picture stands for it; one taken away just now has none.
    place = {name: str(place_of(config, some[0])) for name, some in rows.items() if some}
    pairs = sorted(group.pairs, key=lambda pair: (pair.bits, -pair.cosine))
    return {
        "files": sorted(files, key=lambda file: -(file["size_bytes"] or 0)),
        "n_pairs": len(pairs),
        "pairs": [
            {
                "first": place.get(pair.first),
                "second": place.get(pair.second),
                "bits": pair.bits,
                "cosine": pair.cosine,
            }
            for pair in pairs[:_PAIRS_TOLD]
        ],
    }


@contextmanager
def _open_for_hashes(config: Config) -> Iterator[Store]:
    """Open the database for some rows: beside a running daemon, else under the locks."""
    with open_for_reading(config):
        pass  # it is there, and has the tables
    if running_pid(config.state_dir) is not None:
        with foreign_errors(config.database):
            # The daemon owns the schema and the durability; this connection adds rows.
            store = Store(sqlite3.connect(config.database, timeout=BUSY_TIMEOUT_S), config.database)
        try:
            yield store
        finally:
            store.close()
        return
    with Locks(config.state_dir):
        store = open_store(config.database)
        try:
            yield store
        finally:
            store.close()


def complete(config: Config, progress: Progress) -> dict[str, int]:
    """Make the hashes of pictures that were sorted before there were any; from their files.

    Stopped half-way, what was made stays. Returns how many were made, and how many pictures
    could not be read, or are no longer what was sorted.

    Raises
    ------
    StoreError, LockedError
        There is no library yet, or another program holds it.
    """
    with _open_for_hashes(config) as store:
        total, after_id, made, unreadable = store.hashes.count_lacking(), 0, 0, 0
        reader = PlacedPictures(config)
        try:
            while rows := store.hashes.lacking(after_id, _FILES_AT_ONCE):
                after_id = rows[-1].file_id
                reads = [(kept, reader.submit(kept)) for kept in rows]
                pictures = [read and same_picture(kept, read.result()) for kept, read in reads]
                looks = {one.sha256: look_of(one) for one in pictures if one}
                with store.atomic():
                    store.hashes.put(looks)
                made += len(looks)
                unreadable += sum(kept.sha256 not in looks for kept in rows)
                progress(f"hashing pictures: {made + unreadable:,} of {total:,}")
        finally:
            reader.close()
    return {"hashed": made, "unreadable": unreadable}


def decide_files(
    config: Config, paths: Sequence[Path], *, forget: bool, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Remember that all these files are wanted, or forget it: by the daemon, or here.

    Raises
    ------
    FindError
        One of them is no picture of the library; or there are too few, or too many.
    RequestError, StoreError, LockedError
        The daemon could not do it; there is no library; another program holds it.
    """
    hashes = _hashes(config, paths)
    if len(hashes) > MAX_FILES or len(hashes) < (1 if forget else 2):
        expected = f"{1 if forget else 2} to {MAX_FILES} different files"
        raise FindError(f"expected {expected}, got {len(hashes)}")
    params = {"hashes": [sha256.hex() for sha256 in hashes], "forget": forget}
    if running_pid(config.state_dir) is not None:
        return ask_daemon(config, "keep", params, progress)
    with Locks(config.state_dir):
        store = open_store(config.database)
        try:
            with store.atomic():
                return decide(store, params)
        finally:
            store.close()


def _hashes(config: Config, paths: Sequence[Path]) -> list[bytes]:
    """Return the SHA-256 of each file, one for each row of the library."""
    found: dict[int, bytes] = {}
    with open_for_reading(config) as store:
        for path in paths:
            row = find_subject(config, store, path).row
            is_picture = row is not None and row.state not in (
                FileState.SET_ASIDE,
                FileState.COMPANION,
            )
            if row is None or row.sha256 is None or not is_picture:
                raise FindError(f"{path}: is no picture of the library; nothing was changed")
            found[row.file_id] = row.sha256
    return list(found.values())
