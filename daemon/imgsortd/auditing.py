"""Compare the folders of target with the store, in both directions, and take in what is there.

The file system is the truth: nothing here moves, changes or removes a picture.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from imgsortd.adapters import fsops
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_audit import Adopted, Differing, Found, StoreAudit
from imgsortd.adopted_companions import AdoptedCompanions
from imgsortd.cluster_folders import kept_names
from imgsortd.config import Config
from imgsortd.core.names import cluster_of
from imgsortd.core.records import FileState, Op, Stamp
from imgsortd.core.routing import REVIEW_FOLDER, SET_ASIDE_FOLDER, base_name

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told how many files are done, of how many."""

_OURS = b".imgsortd"
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Audit:
    """What differs between target and the store.

    Attributes
    ----------
    missing
        (row, name) of files that were placed and are not there: moved on or deleted by
        their owner.
    foreign
        Files in cluster folders, ``_set_aside`` or ``_review`` that no row knows.
    changed
        (row, new SHA-256) of files whose bytes are no longer those that were sorted.
    unreadable
        Files that would have to be read for that, and cannot be.
    """

    missing: Sequence[tuple[int, bytes]]
    foreign: Sequence[Found]
    changed: Sequence[tuple[Differing, bytes]]
    unreadable: Sequence[Differing]


def audit(
    store: Store,
    config: Config,
    *,
    deep: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Audit:
    """Compare; files are read where size or a time differ, or all of them in a deep look.

    Raises
    ------
    OSError
        Target cannot be listed.
    """
    rows = StoreAudit(store.connection)
    named = known_folders(store, config)
    folders = _our_folders(config, named)
    rows.take_listing(_listing(config, folders))
    suspects = rows.differing(all_of_them=deep)
    changed, unreadable = [], []
    with fsops.Folders(config.target) as target:
        for number, file in enumerate(suspects, 1):
            sha256 = _sha256(target, file.found.dst)
            if sha256 is None and config.op is not Op.SYMLINK:
                unreadable.append(file)
            elif sha256 not in (None, file.sha256):
                changed.append((file, sha256))
            progress(number, len(suspects))
    # Pictures that their owner has put into a folder of their own are known by name alone.
    missing = [
        (file_id, dst)
        for file_id, dst in rows.missing()
        if fsops.split(dst)[0] in folders
        or not os.path.lexists(os.path.join(os.fsencode(config.target), dst))
    ]
    return Audit(missing, rows.foreign(), changed, unreadable)


def known_folders(store: Store, config: Config) -> dict[int, bytes]:
    """Return the folders of named clusters; from the file beside a database that is lost."""
    if store.hands.cluster_folders():
        return store.records.named_folders()
    return kept_names(config.state_dir)


def _listing(config: Config, folders: Iterable[bytes]) -> Iterator[Found]:
    """Yield the files directly in the folders that are ours; symlinks only where op makes them."""
    target = os.fsencode(config.target)
    for folder in sorted(folders):
        with os.scandir(os.path.join(target, folder)) as entries:
            for entry in entries:
                is_ours = entry.is_file(follow_symlinks=False) or (
                    config.op is Op.SYMLINK and entry.is_symlink()
                )
                if is_ours and not entry.name.startswith(_OURS):
                    status = entry.stat(follow_symlinks=False)
                    yield Found(folder + b"/" + entry.name, fsops.stamp_of(status))


def _our_folders(config: Config, named: Mapping[int, bytes]) -> set[bytes]:
    with os.scandir(os.fsencode(config.target)) as entries:
        return {
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False)
            and (
                cluster_of(entry.name, named) is not None
                or entry.name in (SET_ASIDE_FOLDER, REVIEW_FOLDER)
            )
        }


def cluster_numbers(store: Store, config: Config) -> list[int]:
    """Return the numbers of the clusters whose folders stand in target, empty ones too."""
    named = known_folders(store, config)
    numbers = {cluster_of(folder, named) for folder in _our_folders(config, named)}
    return sorted(number for number in numbers if number is not None)


def holds_sorted_files(config: Config) -> bool:
    """Tell whether target has a cluster folder with a file in it."""
    named = kept_names(config.state_dir)
    own = {f for f in _our_folders(config, named) if cluster_of(f, named) is not None}
    return any(True for _ in _listing(config, own))


def _sha256(folders: fsops.Folders, name: bytes) -> bytes | None:
    """Return the hash of a file, or None where it cannot be read now."""
    folder, base = fsops.split(name)
    try:
        with fsops.closing(fsops.open_regular(folders.fd(folder), base)) as fd:
            return fsops.sha256_of(fd)
    except OSError as error:
        log.warning("file not read name=%r reason=%s", os.fsdecode(name), error.strerror)
        return None


def adopt(
    store: Store,
    config: Config,
    foreign: Sequence[Found],
    progress: Progress = lambda _done, _total: None,
) -> int:
    """Take files in that stand in target and that no row knows; return how many.

    A file in ``cluster_7`` counts as sorted into cluster 7. Where files are copied or
    linked rather than moved, the file in the inbox with the same bytes is its source, so
    that it is not copied again. A raw file, sidecar or film beside a picture of its name
    counts as its companion.
    """
    rows, sources = StoreAudit(store.connection), _sources(config)
    named = known_folders(store, config)
    adopted = 0
    with fsops.Folders(config.target) as target, fsops.Folders(config.inbox) as inbox:
        companions = AdoptedCompanions(store, config, target)
        foreign = companions.last(foreign)
        for start in range(0, len(foreign), _AT_ONCE):
            with store.atomic():
                for found in foreign[start : start + _AT_ONCE]:
                    file = _as_sorted(found, target, inbox, config, named)
                    if file is not None:
                        file = _as_duplicate(companions.pair(file), rows)
                        rows.adopt([_with_source(file, sources)])
                        adopted += 1
            progress(min(start + _AT_ONCE, len(foreign)), len(foreign))
    return adopted


def _as_sorted(
    found: Found,
    target: fsops.Folders,
    inbox: fsops.Folders,
    config: Config,
    named: Mapping[int, bytes],
) -> Adopted | None:
    folder, base = fsops.split(found.dst)
    number = cluster_of(folder, named)
    if config.op is Op.SYMLINK and folder != SET_ASIDE_FOLDER:
        name = _linked_name(config, found.dst)
        sha256 = None if name is None else _sha256(inbox, name)
    else:
        sha256 = _sha256(target, found.dst)
    if sha256 is None:
        return None
    if number is not None:
        return Adopted(found, base, sha256, FileState.SORTED, number)
    if folder == REVIEW_FOLDER:
        return Adopted(found, base, sha256, FileState.REVIEW, None)
    reason = "was in _set_aside when the database was rebuilt"
    return Adopted(found, base, sha256, FileState.SET_ASIDE, None, reason)


def _linked_name(config: Config, dst: bytes) -> bytes | None:
    """Return the name in the inbox that a symlink of ours leads to."""
    link = os.path.join(os.fsencode(config.target), dst)
    inbox = os.path.realpath(os.fsencode(config.inbox)) + b"/"
    leads_to = os.path.realpath(link)
    return leads_to.removeprefix(inbox) if leads_to.startswith(inbox) else None


def _as_duplicate(file: Adopted, rows: StoreAudit) -> Adopted:
    original = rows.original_of(file.sha256) if file.state is FileState.SORTED else None
    if original is None:
        return file
    reason = f"same bytes as {os.fsdecode(original)}".encode("utf-8", "backslashreplace").decode()
    return replace(file, state=FileState.DUPLICATE, reason=reason)


_Sources = dict[bytes, list[tuple[bytes, Stamp]]]


def _sources(config: Config) -> _Sources:
    """Return the files of the inbox by their bytes, where sorting leaves them there."""
    found: _Sources = {}
    if config.op is Op.MOVE:
        return found
    inbox = Inbox(
        config.inbox, config.recursive, config.ignore, config.extensions, config.companions
    )
    with fsops.Folders(config.inbox) as folders:
        for name, stamp in inbox.scan():
            sha256 = _sha256(folders, name)
            if sha256 is not None:
                found.setdefault(sha256, []).append((name, stamp))
    return found


def _with_source(file: Adopted, sources: _Sources) -> Adopted:
    candidates = sources.get(file.sha256)
    if not candidates:
        return file
    # The one of the same name, where several have these bytes.
    at = next((n for n, (name, _) in enumerate(candidates) if base_name(name) == file.src), 0)
    name, stamp = candidates.pop(at)
    return replace(file, src=name, inbox_stamp=stamp)
