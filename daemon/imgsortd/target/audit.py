"""Compare the folders of target with the store, in both directions, and take in what is there.

The file system is the truth: nothing here moves, changes or removes a picture.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from imgsortd.config.model import Config
from imgsortd.inbox.companions import CompanionRule
from imgsortd.inbox.listing import Inbox
from imgsortd.moves.folders import kept_names
from imgsortd.names import REVIEW_FOLDER, SET_ASIDE_FOLDER, base_name, cluster_of
from imgsortd.pictures.reading import is_picture_by_content
from imgsortd.records import FileState, Op, Stamp
from imgsortd.store.audit import AdoptedFile, Differing, Listed
from imgsortd.store.database import Store
from imgsortd.system import filesystem

log = logging.getLogger(__name__)

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
    foreign: Sequence[Listed]
    changed: Sequence[tuple[Differing, bytes]]
    unreadable: Sequence[Differing]


def audit(
    store: Store,
    config: Config,
    *,
    deep: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Audit:
    """Compare; files are read where size or a time differ, or all of them in a deep look.

    Raises
    ------
    OSError
        Target cannot be listed.
    """
    rows = store.audit
    named = known_folders(store, config)
    folders = _our_folders(config, named)
    rows.take_listing(_listing(config, folders))
    suspects = rows.differing(all_of_them=deep)
    changed, unreadable = [], []
    with filesystem.Folders(config.target) as target:
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
        if filesystem.split(dst)[0] in folders
        or not os.path.lexists(os.path.join(os.fsencode(config.target), dst))
    ]
    return Audit(missing, rows.foreign(), changed, unreadable)


def known_folders(store: Store, config: Config) -> dict[int, bytes]:
    """Return the folders of named clusters; from the file beside a database that is lost."""
    if store.hands.cluster_folders():
        return store.records.named_folders()
    return kept_names(config.state_dir)


def _listing(config: Config, folders: Iterable[bytes]) -> Iterator[Listed]:
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
                    yield Listed(folder + b"/" + entry.name, filesystem.stamp_of(status))


def _our_folders(config: Config, named: Mapping[int, bytes]) -> set[bytes]:
    ours = (SET_ASIDE_FOLDER, REVIEW_FOLDER)
    with os.scandir(os.fsencode(config.target)) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return {name for name in names if name in ours or cluster_of(name, named) is not None}


def cluster_numbers(store: Store, config: Config) -> list[int]:
    """Return the numbers of the clusters whose folders stand in target, empty ones too."""
    named = known_folders(store, config)
    numbers = {cluster_of(folder, named) for folder in _our_folders(config, named)}
    return sorted(number for number in numbers if number is not None)


def holds_sorted_files(config: Config) -> bool:
    """Tell whether target has a cluster folder with a file in it."""
    named = kept_names(config.state_dir)
    own = [f for f in _our_folders(config, named) if cluster_of(f, named) is not None]
    return any(True for _ in _listing(config, own))


def _sha256(folders: filesystem.Folders, name: bytes) -> bytes | None:
    """Return the hash of a file, or None where it cannot be read now."""
    folder, base = filesystem.split(name)
    try:
        with filesystem.closing(filesystem.open_regular(folders.fd(folder), base)) as fd:
            return filesystem.sha256_of(fd)
    except OSError as error:
        log.warning("file not read name=%r reason=%s", os.fsdecode(name), error.strerror)
        return None


def adopt(
    store: Store,
    config: Config,
    foreign: Sequence[Listed],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Take files in that stand in target and that no row knows; return how many.

    A file in ``cluster_7`` counts as sorted into cluster 7. Where files are copied or
    linked rather than moved, the file in the inbox with the same bytes is its source, so
    that it is not copied again. A raw file, sidecar or film beside a picture of its name
    counts as its companion.
    """
    adopted = 0
    with filesystem.Folders(config.target) as target, filesystem.Folders(config.inbox) as inbox:
        adoption = _Adoption(store, config, target, inbox)
        foreign = sorted(foreign, key=lambda found: adoption.rank(found.dst))
        for start in range(0, len(foreign), _AT_ONCE):
            with store.atomic():
                adopted += sum(map(adoption.adopt, foreign[start : start + _AT_ONCE]))
            progress(min(start + _AT_ONCE, len(foreign)), len(foreign))
    return adopted


class _Adoption:
    """Takes files of target into the store where they stand; its folders and inbox's are open."""

    def __init__(
        self, store: Store, config: Config, target: filesystem.Folders, inbox: filesystem.Folders
    ) -> None:
        self._store, self._config = store, config
        self._target, self._inbox = target, inbox
        self._named = known_folders(store, config)
        self._rule = CompanionRule.of(config.companions)
        self._sources = _sources(config, inbox)

    def rank(self, dst: bytes) -> int:
        """Tell what comes first: pictures do, so that companions find theirs in the store."""
        if not self._rule.is_companion(dst):
            return 0
        return 1 if is_picture_by_content(self._target, dst) else 2

    def adopt(self, found: Listed) -> bool:
        """Take a file in; return whether it could be read."""
        file = self._as_sorted(found)
        if file is not None:
            file = self._as_duplicate(self._as_companion(file))
            self._store.audit.adopt([self._with_source(file)])
        return file is not None

    def _as_sorted(self, found: Listed) -> AdoptedFile | None:
        folder, base = filesystem.split(found.dst)
        if self._config.op is Op.SYMLINK and folder != SET_ASIDE_FOLDER:
            name = self._linked_name(found.dst)
            sha256 = None if name is None else _sha256(self._inbox, name)
        else:
            sha256 = _sha256(self._target, found.dst)
        if sha256 is None:
            return None
        number = cluster_of(folder, self._named)
        if number is not None:
            return AdoptedFile(found, base, sha256, FileState.SORTED, number)
        if folder == REVIEW_FOLDER:
            return AdoptedFile(found, base, sha256, FileState.REVIEW, None)
        reason = "was in _set_aside when the database was rebuilt"
        return AdoptedFile(found, base, sha256, FileState.SET_ASIDE, None, reason)

    def _linked_name(self, dst: bytes) -> bytes | None:
        """Return the name in the inbox that a symlink of ours leads to."""
        inbox = os.path.realpath(os.fsencode(self._config.inbox)) + b"/"
        leads_to = os.path.realpath(os.path.join(os.fsencode(self._config.target), dst))
        return leads_to.removeprefix(inbox) if leads_to.startswith(inbox) else None

    def _as_companion(self, file: AdoptedFile) -> AdoptedFile:
        """Make a file the companion of the picture beside it; as it is where there is none."""
        dst = file.found.dst
        if not self._rule.is_companion(dst):
            return file
        rows = {
            row.dst: row.file_id
            for row in self._store.companions.placed_pictures(self._rule.stems(dst))
            if row.dst is not None
        }
        first = self._rule.first(rows, dst)
        is_raw_beside_raw = (
            first is not None and self._rule.is_companion(first) and self.rank(dst) == 1
        )
        if first is None or is_raw_beside_raw:
            return file
        state, picture = FileState.COMPANION, rows[first]
        return replace(file, state=state, cluster_id=None, reason="", companion_of=picture)

    def _as_duplicate(self, file: AdoptedFile) -> AdoptedFile:
        is_sorted = file.state is FileState.SORTED
        original = self._store.audit.original_of(file.sha256) if is_sorted else None
        if original is None:
            return file
        text = f"same bytes as {os.fsdecode(original)}"
        reason = text.encode("utf-8", "backslashreplace").decode()
        return replace(file, state=FileState.DUPLICATE, reason=reason)

    def _with_source(self, file: AdoptedFile) -> AdoptedFile:
        candidates = self._sources.get(file.sha256)
        if not candidates:
            return file
        # The one of the same name, where several have these bytes.
        at = next((n for n, (name, _) in enumerate(candidates) if base_name(name) == file.src), 0)
        name, stamp = candidates.pop(at)
        return replace(file, src=name, inbox_stamp=stamp)


def _sources(config: Config, folders: filesystem.Folders) -> dict[bytes, list[tuple[bytes, Stamp]]]:
    """Return the files of the inbox by their bytes, where sorting leaves them there."""
    found: dict[bytes, list[tuple[bytes, Stamp]]] = defaultdict(list)
    if config.op is Op.MOVE:
        return found
    inbox = Inbox(
        config.inbox, config.recursive, config.ignore, config.extensions, config.companions
    )
    for name, stamp in inbox.scan():
        if (sha256 := _sha256(folders, name)) is not None:
            found[sha256].append((name, stamp))
    return found
