"""Compare the folders of target with the store, in both directions, and take in what is there.

The file system is the truth: nothing here moves, changes or removes a picture.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.inbox.companions import CompanionRule
from imgsortd.inbox.listing import Inbox
from imgsortd.moves.folders import inodes_of, kept_names
from imgsortd.moves.roots import Roots, is_marked
from imgsortd.names import REVIEW_FOLDER, SET_ASIDE_FOLDER, base_name, cluster_of
from imgsortd.pictures.reading import is_picture_by_content
from imgsortd.records import FileState, Op, Stamp
from imgsortd.store.audit import AdoptedFile, Differing, Listed
from imgsortd.store.database import Store
from imgsortd.store.lookup import Standing
from imgsortd.system import filesystem
from imgsortd.target.corrections import Kind, Stranger, match_moves, state_in
from imgsortd.target.survey import Target
from imgsortd.words import counted

log = logging.getLogger(__name__)

_OURS = b".imgsortd"
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Audit:
    """What differs between target and the store.

    Attributes
    ----------
    missing
        Files that were placed and are not there: moved on or deleted by their owner.
    foreign
        Files in cluster folders, ``_set_aside`` or ``_review`` that no row knows.
    changed
        (row, new SHA-256) of files whose bytes are no longer those that were sorted.
    unreadable
        Files that would have to be read for that, and cannot be.
    dangling
        Symlinks that lead nowhere: their sources were moved or deleted in the inbox.
    unknown
        Files in other folders of target, which may be a person's own; no row knows them.
    """

    missing: Sequence[Standing]
    foreign: Sequence[Listed]
    changed: Sequence[tuple[Differing, bytes]]
    unreadable: Sequence[Differing]
    dangling: Sequence[bytes]
    unknown: int


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
    folders = _our_folders(config, known_folders(store, config))
    # Pictures that their owner has put into a folder of their own are known there by name.
    own = inodes_of(config.target).keys() & set(store.hands.folders())
    rows.take_listing(_listing(config, folders | own))
    suspects = rows.differing(all_of_them=deep)
    changed, unreadable, dangling = [], [], []
    with _Bytes(config, store) as reader:
        for number, file in enumerate(suspects, 1):
            dst = file.found.dst
            is_dangling = reader.is_dangling(dst)
            sha256 = None if is_dangling else reader.sha256(dst)
            if is_dangling:
                dangling.append(dst)
            elif sha256 is None:
                unreadable.append(file)
            elif sha256 != file.sha256:
                changed.append((file, sha256))
            progress(number, len(suspects))
        ours = [
            file
            for file in rows.foreign()
            if filesystem.split(file.dst)[0] in folders and reader.is_ours(file.dst)
        ]
        nowhere = {file.dst for file in ours if reader.is_dangling(file.dst)}
    foreign = [file for file in ours if file.dst not in nowhere]
    dangling += sorted(nowhere)
    missing = rows.missing()
    unknown = _count_unknown(store, config, folders)
    return Audit(missing, foreign, changed, unreadable, dangling, unknown)


class _Bytes:
    """Reads files of target, and what links in it lead to in any inbox there was."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._inboxes = Roots(config, store, lambda: None).inboxes()
        self._open: dict[bytes, filesystem.Folders] = {}

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        for folders in self._open.values():
            folders.__exit__()

    def sha256(self, dst: bytes) -> bytes | None:
        """Return the hash of a file, or of what a link of ours leads to; None where none is."""
        source = self._source(dst)
        root, name = (os.fsencode(self._config.target), dst) if source is None else source
        folders = self._open.setdefault(root, filesystem.Folders(Path(os.fsdecode(root))))
        folder, base = filesystem.split(name)
        try:
            with filesystem.closing(filesystem.open_regular(folders.fd(folder), base)) as fd:
                return filesystem.sha256_of(fd)
        except OSError as error:
            log.warning("file not read name=%r reason=%s", os.fsdecode(dst), error.strerror)
            return None

    def is_ours(self, dst: bytes) -> bool:
        """Tell whether a file counts: a symlink does where it leads into an inbox."""
        return self._read_link(dst) is None or self._source(dst) is not None

    def is_dangling(self, dst: bytes) -> bool:
        """Tell whether it is a symlink that leads nowhere."""
        path = os.path.join(os.fsencode(self._config.target), dst)
        return os.path.islink(path) and not os.path.exists(path)

    def source_here(self, dst: bytes) -> bytes | None:
        """Return the name in the inbox in use that a symlink leads to; None where it is none."""
        source = self._source(dst)
        return source[1] if source is not None and source[0] == self._inboxes[0] else None

    def _source(self, dst: bytes) -> tuple[bytes, bytes] | None:
        leads_to = self._read_link(dst)
        if leads_to is None:
            return None
        leads_to = os.path.normpath(leads_to)
        inbox = next((i for i in self._inboxes if leads_to.startswith(i + b"/")), None)
        return None if inbox is None else (inbox, leads_to[len(inbox) + 1 :])

    def _read_link(self, dst: bytes) -> bytes | None:
        try:
            return os.readlink(os.path.join(os.fsencode(self._config.target), dst))
        except OSError:
            return None


def known_folders(store: Store, config: Config) -> dict[int, bytes]:
    """Return the folders of named clusters; as target has them where the database is lost."""
    known = {row.cluster_id for row in store.hands.cluster_folders()}
    lost = {n: name for n, name in kept_names(config).items() if n not in known}
    return {**store.records.named_folders(), **lost}


def _listing(config: Config, folders: Iterable[bytes]) -> Iterator[Listed]:
    """Yield the files and symlinks directly in these folders, a link with its source's stamp."""
    target = os.fsencode(config.target)
    for folder in sorted(folders):
        with os.scandir(os.path.join(target, folder)) as entries:
            for entry in entries:
                is_link = entry.is_symlink()
                if entry.name.startswith(_OURS) or not (is_link or entry.is_file()):
                    continue
                try:
                    status = entry.stat()
                except OSError:  # it leads nowhere
                    status = entry.stat(follow_symlinks=False)
                yield Listed(folder + b"/" + entry.name, filesystem.stamp_of(status))


def _our_folders(config: Config, named: Mapping[int, bytes]) -> set[bytes]:
    ours = (SET_ASIDE_FOLDER, REVIEW_FOLDER)
    names = inodes_of(config.target)
    return {name for name in names if name in ours or cluster_of(name, named) is not None}


def _count_unknown(store: Store, config: Config, ours: set[bytes]) -> int:
    """Count the files in a person's folders of target that no row knows."""
    unknown = 0
    for folder in sorted(f for f in inodes_of(config.target) if Target.is_ours_to_see(f)):
        if folder not in ours:
            known = store.hands.names_in(folder)
            unknown += sum(file.dst not in known for file in _listing(config, [folder]))
    return unknown


def cluster_numbers(store: Store, config: Config) -> list[int]:
    """Return the numbers of the clusters whose folders stand in target, empty ones too."""
    named = known_folders(store, config)
    numbers = {cluster_of(folder, named) for folder in _our_folders(config, named)}
    return sorted(number for number in numbers if number is not None)


def holds_sorted_files(config: Config) -> bool:
    """Tell whether target has a cluster folder with a file in it; marked, any folder of ours."""
    named, is_ours = kept_names(config), is_marked(config.target)
    folders = _our_folders(config, named)
    own = [f for f in folders if is_ours or cluster_of(f, named) is not None]
    return any(True for _ in _listing(config, own))


@dataclass(frozen=True, slots=True)
class Reconciled:
    """How many files the books were corrected for, and how.

    ``moved`` stand elsewhere, ``changed`` have other bytes, ``gone`` are not there any more,
    ``adopted`` were not known, ``unreadable`` cannot be told of.
    """

    moved: int
    changed: int
    gone: int
    adopted: int
    unreadable: int

    def told(self) -> list[str]:
        """Return it in words, without what there was none of."""
        counts = (
            (self.moved, "known where it stands now", "known where they stand now"),
            (self.gone, "no longer in target and forgotten", "no longer in target and forgotten"),
            (self.changed, "changed and known as it is now", "changed and known as they are now"),
            (self.adopted, "of target taken in", "of target taken in"),
            (self.unreadable, "that cannot be read", "that cannot be read"),
        )
        return [f"{counted(n, 'file')} {one if n == 1 else many}" for n, one, many in counts if n]


def reconcile(
    store: Store, config: Config, found: Audit, progress: Callable[[int, int], None]
) -> Reconciled:
    """Let the books say what stands in target: bytes decide, not names.

    A file whose bytes stand under another name was moved, by whomever: its row follows, and is
    pinned by nobody. What then stands under its old name is another file.
    """
    foreign = {file.dst: file for file in found.foreign}
    unreadable = len(found.unreadable)
    strangers: list[Stranger] = []
    with _Bytes(config, store) as reader:
        for number, dst in enumerate(sorted(foreign), 1):
            sha256 = reader.sha256(dst)
            if sha256 is None:
                unreadable += 1
            else:
                strangers.append(Stranger(dst, sha256))
            progress(number, len(foreign))
    strangers += [Stranger(file.found.dst, sha256) for file, sha256 in found.changed]
    changed = {file.file_id: (file, sha256) for file, sha256 in found.changed}
    rows = {row.file_id: row for row in found.missing}
    rows |= {n: one for n in changed if (one := store.hands.file(n)) is not None}
    pairs = match_moves((row.absent for row in rows.values()), strangers)
    taken, moved = {file.dst for _, file in pairs}, {row.file_id for row, _ in pairs}
    missing = {row.file_id for row in found.missing}
    gone = {n for n, row in rows.items() if n in missing or row.dst in taken} - moved
    named = known_folders(store, config)
    with store.atomic():
        for absent, stranger in pairs:
            _follow(store, rows[absent.file_id], stranger.dst, named)
        as_it_is = changed.keys() - moved - gone
        for n in sorted(as_it_is):
            store.audit.changed(*changed[n])
        store.hands.taken_away(sorted(gone), "no longer in target")
    # What stands where a row has left from is no file that any row knows.
    foreign |= {file.found.dst: file.found for n, (file, _) in changed.items() if n not in as_it_is}
    new = [
        (foreign[file.dst], file.sha256)
        for file in strangers
        if file.dst in foreign and file.dst not in taken
    ]
    adopt(store, config, new, progress)
    return Reconciled(len(moved), len(as_it_is), len(gone), len(new), unreadable)


def _follow(store: Store, row: Standing, dst: bytes, named: Mapping[int, bytes]) -> None:
    """Keep where a file stands; its folder says what it is."""
    folder = filesystem.split(dst)[0]
    number = cluster_of(folder, named)
    state, cluster_id = row.state, row.cluster_id
    if row.companion_of is None and row.state is not FileState.COMPANION:
        kinds = {REVIEW_FOLDER: Kind.REVIEW, SET_ASIDE_FOLDER: Kind.SET_ASIDE}
        kind = kinds.get(folder, Kind.OWN if number is None else Kind.CLUSTER)
        is_picture = row.state is not FileState.SET_ASIDE or store.hands.has_features(row.sha256)
        if is_picture:
            state, cluster_id = state_in(kind, row.state), number
    store.hands.correct(row.file_id, dst, state, cluster_id, row.reason)


def adopt(
    store: Store,
    config: Config,
    foreign: Sequence[tuple[Listed, bytes]],
    progress: Callable[[int, int], None],
) -> None:
    """Take files in, each with its SHA-256, that stand in target and that no row knows.

    A file in ``cluster_7`` counts as sorted into cluster 7. Where files are copied or
    linked rather than moved, the file in the inbox with the same bytes is its source, so
    that it is not copied again. A raw file, sidecar or film beside a picture of its name
    counts as its companion.
    """
    if not foreign:
        return
    with _Bytes(config, store) as reader:
        adoption = _Adoption(store, config, reader)
        foreign = sorted(foreign, key=lambda found: adoption.rank(found[0].dst))
        for start in range(0, len(foreign), _AT_ONCE):
            with store.atomic():
                for found, sha256 in foreign[start : start + _AT_ONCE]:
                    adoption.adopt(found, sha256)
            progress(min(start + _AT_ONCE, len(foreign)), len(foreign))


class _Adoption:
    """Takes files of target into the store where they stand."""

    def __init__(self, store: Store, config: Config, reader: _Bytes) -> None:
        self._store, self._config, self._reader = store, config, reader
        self._named = known_folders(store, config)
        self._rule = CompanionRule.of(config.companions)
        self._sources = _sources(config)

    def rank(self, dst: bytes) -> int:
        """Tell what comes first: pictures do, so that companions find theirs in the store."""
        if not self._rule.is_companion(dst):
            return 0
        with filesystem.Folders(self._config.target) as target:
            return 1 if is_picture_by_content(target, dst) else 2

    def adopt(self, found: Listed, sha256: bytes) -> None:
        """Take a file in."""
        file = self._as_duplicate(self._as_companion(self._as_sorted(found, sha256)))
        self._store.audit.adopt([self._with_source(file)])

    def _as_sorted(self, found: Listed, sha256: bytes) -> AdoptedFile:
        folder, base = filesystem.split(found.dst)
        number = cluster_of(folder, self._named)
        if number is not None:
            return AdoptedFile(found, base, sha256, FileState.SORTED, number)
        if folder == REVIEW_FOLDER:
            return AdoptedFile(found, base, sha256, FileState.REVIEW, None)
        reason = "was in _set_aside when the database was rebuilt"
        return AdoptedFile(found, base, sha256, FileState.SET_ASIDE, None, reason)

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
        """Find the file in the inbox that it is a link to, or a copy of."""
        linked, candidates = self._reader.source_here(file.found.dst), self._sources[file.sha256]
        if linked is not None:
            stamp = filesystem.look(self._config.inbox, linked)
            return replace(file, src=linked, inbox_stamp=stamp, op=Op.SYMLINK, is_source_known=True)
        if not candidates:
            return self._as_moved(file)
        # The one of the same name, where several have these bytes.
        at = next((n for n, (name, _) in enumerate(candidates) if base_name(name) == file.src), 0)
        name, stamp = candidates.pop(at)
        is_link = stamp.inode == file.found.stamp.inode
        op = Op.HARDLINK if is_link and self._config.op is Op.HARDLINK else Op.COPY
        return replace(file, src=name, inbox_stamp=stamp, op=op, is_source_known=True)

    def _as_moved(self, file: AdoptedFile) -> AdoptedFile:
        """Take the name of a file that waited in the inbox and is no longer there: it is this."""
        for file_id, src in self._store.audit.waiting_with(file.sha256):
            if filesystem.look(self._config.inbox, src) is None:
                self._store.files.end(file_id, "moved, as was found in target")
                return replace(file, src=src, op=Op.MOVE, is_source_known=True)
        return file


def _sources(config: Config) -> dict[bytes, list[tuple[bytes, Stamp]]]:
    """Return the files of the inbox by their bytes, where sorting leaves them there."""
    found: dict[bytes, list[tuple[bytes, Stamp]]] = defaultdict(list)
    if config.op is Op.MOVE:
        return found
    inbox = Inbox(
        config.inbox, config.recursive, config.ignore, config.extensions, config.companions
    )
    with filesystem.Folders(config.inbox) as folders:
        for name, stamp in inbox.scan():
            folder, base = filesystem.split(name)
            with (
                suppress(OSError),
                filesystem.closing(filesystem.open_regular(folders.fd(folder), base)) as fd,
            ):
                found[filesystem.sha256_of(fd)].append((name, stamp))
    return found
