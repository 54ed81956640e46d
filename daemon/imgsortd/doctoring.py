"""``imgsortd doctor``: is all as it should be, and where not, what is to be done?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from imgsortd import checkups
from imgsortd.adapters import backups
from imgsortd.adapters.crossing import CLAIM_FOLDER, find_orphans, return_orphans
from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.mover import Mover
from imgsortd.adapters.store import CommittedJournal, Store, open_read_only
from imgsortd.adapters.store_audit import StoreAudit
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.auditing import Audit, Progress, audit
from imgsortd.checkups import Finding, Verdict, counted
from imgsortd.cluster_folders import ClusterFolders
from imgsortd.config import Config
from imgsortd.core.records import REBUILT
from imgsortd.errors import ImgsortdError, StoreDamagedError
from imgsortd.restoring import note_clusters, open_or_restore, take_in

_NAMES_SHOWN = 3
_MOST_WAITING = 1000


def examine(
    config: Config, *, deep: bool = False, progress: Progress = lambda _done, _total: None
) -> Iterator[Finding]:
    """Look at everything; change nothing. The daemon may run meanwhile.

    Parameters
    ----------
    deep
        Read every sorted file, and compare its bytes with those that were sorted.
    progress
        Told of the files of target that are read.
    """
    pid = running_pid(config.state_dir)
    text = "not running" if pid is None else f"running, pid {pid or 'not to be seen from here'}"
    yield Finding("daemon", Verdict.FINE, text)
    yield from checkups.check_rights(config)
    yield from checkups.check_room(config)
    yield from checkups.check_mounts(config)
    yield from checkups.check_inotify(config)
    yield from checkups.check_decoder(config)
    yield from checkups.check_inbox(config)
    yield from _examine_store(
        config, lambda store: audit(store, config, deep=deep, progress=progress)
    )


def _examine_store(config: Config, look: Callable[[Store], Audit]) -> Iterator[Finding]:
    if not config.database.exists():
        text = "none yet; the first start makes it"
        has_lost = bool(backups.backups(config.state_dir, "9999-12-31"))
        if has_lost:
            text = "gone, though there are backups; the next start restores it (or --repair)"
        yield Finding("database", Verdict.BAD if has_lost else Verdict.NOTE, text)
        yield from checkups.check_clock(config, None)
        yield from checkups.check_model(config, None)
        return
    try:
        store = open_read_only(config.database)
    except ImgsortdError as error:
        yield Finding("database", Verdict.BAD, f"{error}")
        return
    try:
        with foreign_errors(config.database):
            yield _check_pages(store)
            yield from checkups.check_clock(config, _newest_at(store))
            yield from checkups.check_model(config, _stored_digest(store))
            yield from _check_moves(store)
            yield from _check_claims(store, config)
            yield from _check_waiting(store)
            yield from _check_target(look(store))
    except ImgsortdError as error:
        yield Finding("database", Verdict.BAD, f"{error}")
    except OSError as error:
        text = f"{error.filename}: cannot be listed ({error.strerror})"
        yield Finding("target", Verdict.BAD, text)
    finally:
        store.close()


def _check_pages(store: Store) -> Finding:
    result = store.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if result != "ok":
        text = f"{store.path}: damaged ({result}); the next start restores it (or --repair)"
        return Finding("database", Verdict.BAD, text)
    counts = store.files.counts()
    size_mb = store.path.stat().st_size / 1e6
    text = f"whole, {counted(counts.seen, 'file')} known, {size_mb:,.1f} MB"
    return Finding("database", Verdict.FINE, text)


def _newest_at(store: Store) -> float | None:
    (newest,) = store.connection.execute(
        "SELECT max((SELECT max(done_at) FROM files), (SELECT max(created_at) FROM fits))"
    ).fetchone()
    return None if newest is None else float(newest)


def _stored_digest(store: Store) -> str | None:
    row = store.connection.execute(
        "SELECT weights_digest FROM extractors JOIN fits ON extractor_id = extractors.id "
        "WHERE is_current = 1"
    ).fetchone()
    return None if row is None or row[0] == REBUILT else str(row[0])


def _check_moves(store: Store) -> Iterator[Finding]:
    moves, errors = store.journal.unfinished(), store.journal.open_errors()
    if errors:
        names = [os.fsdecode(src) for src, _ in errors]
        text = f"{len(errors):,} cannot be made: {_names(names)}: {errors[0][1]}"
        yield Finding("moves", Verdict.BAD, f"{text}; mend that, the daemon tries again")
    elif moves:
        text = f"{len(moves):,} unfinished; the daemon finishes them (or --repair)"
        yield Finding("moves", Verdict.NOTE, text)
    else:
        yield Finding("moves", Verdict.FINE, "none is unfinished")


def _check_claims(store: Store, config: Config) -> Iterator[Finding]:
    """Look for files that a lost move has left hidden beside where they stood."""
    before = _orphans(store, config)
    # What a running daemon claims is known now, or has gone its way.
    found = [os.fsdecode(name) for name in _orphans(store, config) if name in before]
    closed = [name for name in found if os.path.basename(name) == os.fsdecode(CLAIM_FOLDER)]
    hidden = [name for name in found if name not in closed]
    if hidden:
        text = f"{counted(len(hidden), 'file')} hidden by a move that nobody knows: "
        text += f"{_names(hidden)}; the daemon's next start gives them back (or --repair)"
        yield Finding("claims", Verdict.BAD, text)
    if closed:
        text = f"{_names(closed)} cannot be read; if it is nobody's, remove it"
        yield Finding("claims", Verdict.NOTE, text)


def _orphans(store: Store, config: Config) -> list[bytes]:
    moves = store.journal.unfinished()
    return find_orphans(config.inbox, moves) + find_orphans(config.target, moves, deep=False)


def _check_waiting(store: Store) -> Iterator[Finding]:
    waiting = store.files.unread(_MOST_WAITING)
    if waiting:
        names = _names([f"{os.fsdecode(src)} ({reason})" for src, reason in waiting])
        text = f"{counted(len(waiting), 'file')} not read yet: {names}"
        yield Finding("waiting", Verdict.NOTE, text)
    left = Counter(reason for _, reason in store.control.left_alone())
    if left:
        text = ", ".join(f"{count:,} {reason}" for reason, count in left.items())
        yield Finding(
            "left alone", Verdict.NOTE, f"in the inbox, named by `imgsortd status`: {text}"
        )


def _check_target(found: Audit) -> Iterator[Finding]:
    groups = (
        (
            [os.fsdecode(dst) for _, dst in found.missing],
            "known but not there, moved or deleted by someone; --repair forgets",
        ),
        (
            [os.fsdecode(file.dst) for file in found.foreign],
            "in its folders but not known; --repair takes in as it stands",
        ),
        (
            [os.fsdecode(file.found.dst) for file, _ in found.changed],
            "changed since it was sorted; --repair takes as it is now",
        ),
        (
            [os.fsdecode(file.found.dst) for file in found.unreadable],
            "that cannot be read; give the right to, or look after the disk",
        ),
    )
    for names, text in groups:
        if names:
            text = f"{counted(len(names), 'file')} {text}: {_names(names)}"
            yield Finding("target", Verdict.BAD, text)
    if not any(names for names, _ in groups):
        yield Finding("target", Verdict.FINE, "every file is known, and every known file is there")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def repair(
    config: Config, *, deep: bool = False, progress: Progress = lambda _done, _total: None
) -> list[str]:
    """Mend what can be mended without touching a picture; return what was done, in words.

    Raises
    ------
    LockedError
        The daemon runs; it must be stopped first.
    StoreError
        The database cannot be opened, for a reason other than damage.
    """
    done: list[str] = []
    with Locks(config.state_dir, config.inbox):
        for path, _, wanted in checkups.loose_rights(config):
            path.chmod(wanted)
            done.append(f"mode of {path} is {wanted:o} now")
        store = _open_whole(config, done)
        try:
            done.extend(_finish_moves(store, config))
            found = audit(store, config, deep=deep, progress=progress)
            done.extend(_take_over(store, config, found))
        finally:
            store.close()
    return done


def _open_whole(config: Config, done: list[str]) -> Store:
    """Open the store; where its pages do not fit together, have it restored."""
    before = _inode(config.database)
    store = open_or_restore(config)
    result = store.connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if result != "ok":  # a start looks for two seconds only
        store.close()
        raise StoreDamagedError(
            f"{config.database}: damaged ({result}); move it away, and repair again restores it"
        )
    if before is not None and before != _inode(config.database):
        done.append("the database was restored; the errors in `imgsortd status` say from what")
    return store


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _finish_moves(store: Store, config: Config) -> list[str]:
    ClusterFolders(store, config).follow()
    moves = store.journal.unfinished()
    returned = return_orphans(config.inbox, moves)
    returned += return_orphans(config.target, moves, deep=False)
    results = Mover(config.inbox, config.target, CommittedJournal(store)).apply(moves, again=True)
    with store.atomic():
        store.journal.close(results)
    left = len(store.journal.unfinished())
    done = [f"{len(moves) - left:,} unfinished moves were finished"] if len(moves) > left else []
    return done + [f"{len(returned):,} files without a move given back"] * bool(returned)


def _take_over(store: Store, config: Config, found: Audit) -> list[str]:
    with store.atomic():
        store.hands.taken_away((file_id for file_id, _ in found.missing), "no longer in target")
        for file, sha256 in found.changed:
            StoreAudit(store.connection).changed(file, sha256)
    taken = take_in(store, config)
    if found.changed and not taken:
        note_clusters(store, config)
    counts = (
        (len(found.missing), "no longer in target and forgotten"),
        (len(found.changed), "changed and known as it is now"),
        (taken, "of target taken in; the next start makes the features, and fits"),
    )
    return [f"{counted(count, 'file')} {text}" for count, text in counts if count]
