"""``imgsortd doctor``: is all as it should be, and where not, what is to be done?"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.config.values import Polling
from imgsortd.errors import ImgsortdError, LostError, OwnedError, StoreDamagedError
from imgsortd.inbox.listing import Inbox
from imgsortd.moves import staging
from imgsortd.moves.crossing import (
    CLAIM_FOLDER,
    Known,
    claim_of,
    find_claims_of_others,
    find_orphans,
)
from imgsortd.moves.making import open_moves
from imgsortd.moves.roots import Roots, own_target
from imgsortd.pictures.decoder import Decoder, NoDecoderError, decode_limits
from imgsortd.records import REBUILT, Backbone, Op, Root
from imgsortd.store import backups
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.library import LibraryFile
from imgsortd.store.roots import FolderId
from imgsortd.system import filesystem
from imgsortd.system.locks import Locks, running_pid
from imgsortd.target.audit import Audit, audit
from imgsortd.target.rebuild import open_or_restore, take_in
from imgsortd.words import counted

_NAMES_SHOWN = 3
_MOST_WAITING = 1000

_MIN_FREE_BYTES = 1 << 30
_MIN_FREE_SHARE = 0.05
_CLOCK_S = 2.0
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_INOTIFY = Path("/proc/sys/fs/inotify")


def examine(
    config: Config,
    *,
    deep: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
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
    away = [name for name in ("inbox", "target") if not getattr(config, name).is_dir()]
    for name in away:
        text = f"{getattr(config, name)} is not there; mount it, or make it, and sorting goes on"
        yield Finding(name, Verdict.BAD, text)
    if away:
        return
    yield from check_rights(config)
    yield from check_room(config)
    yield from check_mounts(config)
    yield from check_inotify(config)
    yield from check_decoder(config)
    yield from check_inbox(config)
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
        yield from _check_whose(config)
        yield from check_clock(config, None)
        yield from check_model(config, None)
        return
    try:
        with open_for_reading(config.database, any_schema=True) as store:
            yield _check_pages(store)
            yield from check_clock(config, _newest_at(store))
            yield from check_model(config, _stored_digest(store))
            if not store.is_of_this_version():
                text = (
                    "made by an older imgsortd; start the daemon once, which brings it up to date"
                )
                yield Finding("database", Verdict.NOTE, text)
                return
            wrong = list(check_owner(config, store))
            yield from wrong
            yield from _check_moves(store)
            yield from _check_claims(store, config)
            yield from _check_waiting(store)
            if not any(finding.what == "target" for finding in wrong):
                yield from _check_target(look(store))
    except ImgsortdError as error:
        yield Finding("database", Verdict.BAD, f"{error}")
    except OSError as error:
        text = f"{error.filename}: cannot be listed ({error.strerror})"
        yield Finding("target", Verdict.BAD, text)


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


def check_owner(config: Config, store: Store) -> Iterator[Finding]:
    """Look whether inbox and target are the folders that are in use, and this library's."""
    inbox, target = store.roots.current(Root.INBOX), store.roots.current(Root.TARGET)
    yield from _check_whose(config)
    for name, row, path in (("inbox", inbox, config.inbox), ("target", target, config.target)):
        is_same = row.folder in (None, FolderId.of(path)) or row.path != path.resolve()
        if not is_same:
            text = f"{path} is another folder than was used last; if a disk is not mounted mount "
            text += "it, else start the daemon, which tells what to do"
            yield Finding(name, Verdict.BAD, text)


def _check_whose(config: Config) -> Iterator[Finding]:
    try:
        own_target(config, LibraryFile(config.state_dir), dry_run=True)
    except (OwnedError, LostError) as error:
        yield Finding("target", Verdict.BAD, str(error))


def _check_claims(store: Store, config: Config) -> Iterator[Finding]:
    """Look for files that a move has left hidden beside where they stood, in every inbox."""
    before = _orphans(store, config)
    # What a running daemon claims is known now, or has gone its way.
    found = [name for name in _orphans(store, config) if name in before]
    closed = [name for name in found if os.path.basename(name) == os.fsdecode(CLAIM_FOLDER)]
    hidden = [name for name in found if name not in closed]
    if hidden:
        text = f"{counted(len(hidden), 'file')} hidden by a move that nobody knows: "
        text += f"{_names(hidden)}; the daemon's next start gives them back (or --repair)"
        yield Finding("claims", Verdict.BAD, text)
    if waiting := _claims_elsewhere(store, config):
        text = f"{counted(len(waiting), 'file')} hidden by unfinished moves in a folder that is no "
        text += f"longer the inbox: {_names(waiting)}; the daemon's next start finishes them"
        yield Finding("claims", Verdict.BAD, f"{text} (or --repair)")
    if others := [os.fsdecode(n) for n in find_claims_of_others(config.inbox, _known(store))]:
        text = f"{counted(len(others), 'file')} hidden by moves of another library, which gives "
        text += (
            f"them back when it is used again: {_names(others)}; if it is no more, move them out"
        )
        yield Finding("claims", Verdict.NOTE, text)
    if closed:
        text = f"{_names(closed)} cannot be read; if it is nobody's, remove it"
        yield Finding("claims", Verdict.NOTE, text)


def _known(store: Store) -> Known:
    return Known(store.journal.unfinished(), store.library.is_ours)


def _orphans(store: Store, config: Config) -> list[str]:
    known = _known(store)
    names = find_orphans(config.inbox, known) + find_orphans(config.target, known, deep=False)
    found = [os.fsdecode(name) for name in names]
    for _, inbox in _roots(store, config).former_inboxes():
        found += [os.path.join(inbox, os.fsdecode(name)) for name in find_orphans(inbox, known)]
    return found


def _claims_elsewhere(store: Store, config: Config) -> list[str]:
    """Return the files that open moves have claimed in inboxes that are no longer in use."""
    former = dict(_roots(store, config).former_inboxes())
    claims = [
        os.path.join(former[move.src_id], *map(os.fsdecode, claim_of(move)))
        for move in store.journal.unfinished()
        if move.src_id in former
    ]
    return [claim for claim in claims if os.path.lexists(claim)]


def _roots(store: Store, config: Config) -> Roots:
    return Roots(config, store, lambda: None)


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
    groups = {
        "known but not there, moved or deleted by someone; --repair forgets": [
            row.dst for row in found.missing
        ],
        "in its folders but not known; --repair takes in as it stands": [
            file.dst for file in found.foreign
        ],
        "changed since it was sorted; --repair takes as it is now": [
            file.found.dst for file, _ in found.changed
        ],
        "that cannot be read; give the right to, or look after the disk": [
            file.found.dst for file in found.unreadable
        ],
        "that is a link and leads nowhere, for its source was moved or deleted": found.dangling,
    }
    for text, names in groups.items():
        if names:
            shown = _names([os.fsdecode(name) for name in names])
            yield Finding("target", Verdict.BAD, f"{counted(len(names), 'file')} {text}: {shown}")
    if found.unknown:
        text = f"{counted(found.unknown, 'file')} in folders that are no cluster's, and not known"
        yield Finding("target", Verdict.NOTE, text)
    elif not any(groups.values()):
        yield Finding("target", Verdict.FINE, "every file is known, and every known file is there")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def repair(
    config: Config,
    *,
    deep: bool = False,
    adopt: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[str]:
    """Mend what can be mended without touching a picture; return what was done, in words.

    Parameters
    ----------
    adopt
        Take the target over, whosoever it was.

    Raises
    ------
    LockedError
        The daemon runs; it must be stopped first.
    StoreError
        The database cannot be opened, for a reason other than damage.
    WatchError, LostError, OwnedError
        Inbox or target is not there, or another folder than before: nothing is forgotten then.
    """
    done: list[str] = []
    own_target(config, LibraryFile(config.state_dir), adopt=adopt, dry_run=True)
    with Locks(config.state_dir, config.inbox, target=config.target):
        own_target(config, LibraryFile(config.state_dir), adopt=adopt)
        for path, _, wanted in loose_rights(config):
            path.chmod(wanted)
            done.append(f"mode of {path} is {wanted:o} now")
        with _open_whole(config, done, adopt=adopt) as store:
            roots = _roots(store, config)
            roots.insist(adopt=adopt)
            done.extend(_finish_moves(store, config, roots))
            found = audit(store, config, deep=deep, progress=progress)
            done.extend(take_in(store, config, found).told())
    return done


def _open_whole(config: Config, done: list[str], *, adopt: bool) -> Store:
    """Open the store; where its pages do not fit together, have it restored."""
    before = _inode(config.database)
    store = open_or_restore(config, adopt=adopt)
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


def _finish_moves(store: Store, config: Config, roots: Roots) -> list[str]:
    """Finish open moves, and give back what is hidden in any inbox there was."""
    before, moves = len(store.journal.unfinished()), open_moves(config, store, roots)
    moves.recover()
    returned = list(moves.returned)
    for _, inbox in roots.former_inboxes():
        returned += moves.give_back_orphans(Root.INBOX, inbox)
    finished = before - len(store.journal.unfinished())
    done = [f"{finished:,} unfinished moves were finished"] if finished > 0 else []
    if returned:
        done.append(f"{counted(len(returned), 'file')} hidden by a move given back")
    return done


class Verdict(StrEnum):
    """How a finding is meant."""

    FINE = "fine"
    NOTE = "note"  # works, but a person should know
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, and what is to be done where it is bad."""

    what: str
    verdict: Verdict
    text: str


def check_rights(config: Config) -> Iterator[Finding]:
    """Look whether the folders can be used, and the state is for its owner alone."""
    what = "permissions"
    wrong = list(loose_rights(config))
    for path, mode, wanted in wrong:
        text = f"{path} has mode {mode:04o}; do: chmod {wanted:o} '{path}' (or --repair)"
        yield Finding(what, Verdict.BAD, text)
    foreign = [p for p in _state_files(config) if p.lstat().st_uid != os.geteuid()]
    if foreign and os.geteuid() != 0:
        yield Finding(
            what,
            Verdict.BAD,
            f"{foreign[0]} belongs to uid {foreign[0].lstat().st_uid}, you are uid "
            f"{os.geteuid()}; run doctor as the service's user",
        )
    written = [config.target, *([config.inbox] if config.op is Op.MOVE else [])]
    for folder in written:
        try:
            staging.try_folder(folder)
        except OSError as error:
            text = f"{folder} takes no files ({error.strerror}); give uid {os.geteuid()} the right"
            yield Finding(what, Verdict.BAD, text)
            wrong.append((folder, 0, 0))
    if config.op is Op.MOVE and _is_sticky_of_another(config.inbox):
        yield Finding(
            what,
            Verdict.BAD,
            f"{config.inbox} has the sticky bit and another owner, so files of others cannot be "
            f"moved out of it; do: chmod -t '{config.inbox}'",
        )
    elif not wrong:
        yield Finding(what, Verdict.FINE, "folders can be written, the state is private")


def check_inbox(config: Config) -> Iterator[Finding]:
    """Look whether every folder of the inbox can be listed, and every file read and taken."""
    what = "inbox"
    inbox = Inbox(config.inbox, config.recursive, config.ignore, config.extensions)
    needed = os.R_OK | os.W_OK | os.X_OK if config.op is Op.MOVE else os.R_OK | os.X_OK
    wrong: list[str] = []
    folders: set[bytes] = set()
    try:
        for name, _ in inbox.scan():
            folders.add(os.path.dirname(name))
            if not _may(config.inbox, name, os.R_OK):
                wrong.append(os.fsdecode(name))
    except ImgsortdError as error:
        yield Finding(what, Verdict.BAD, str(error))
        return
    unlisted = {name for name, reason in inbox.left_alone.items() if "cannot be listed" in reason}
    unusable = unlisted | {name for name in folders if not _may(config.inbox, name, needed)}
    wrong += [os.fsdecode(name) + "/" for name in sorted(unusable - {b""})]
    if wrong:
        text = f"not to be read or emptied by uid {os.geteuid()}: {_names(wrong)}"
        yield Finding(what, Verdict.BAD, f"{text}; give it the right to")
    else:
        yield Finding(what, Verdict.FINE, "every folder and file in it can be read")


def _may(inbox: Path, name: bytes, mode: int) -> bool:
    path = os.path.join(os.fsencode(inbox), name)
    return os.access(path, mode, effective_ids=True) or not os.path.lexists(path)


def _state_files(config: Config) -> list[Path]:
    return [path for path in (config.state_dir, config.database) if path.exists()]


def loose_rights(config: Config) -> Iterator[tuple[Path, int, int]]:
    """Yield (path, mode, mode wanted) of what of the state others could read."""
    for path in _state_files(config):
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = _PRIVATE_FOLDER if path.is_dir() else _PRIVATE_FILE
        if mode & 0o077:
            yield path, mode, wanted


def _is_sticky_of_another(folder: Path) -> bool:
    status = folder.stat()
    return bool(status.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, status.st_uid)


def check_room(config: Config) -> Iterator[Finding]:
    """Look at the free space of each disk in use."""
    seen: set[int] = set()
    for name in ("target", "state_dir", "inbox"):
        folder: Path = getattr(config, name)
        if not folder.exists() or folder.stat().st_dev in seen:
            continue
        seen.add(folder.stat().st_dev)
        disk = os.statvfs(folder)
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        text = f"{free / 1e9:,.1f} GB free of {total / 1e9:,.1f} on the disk of {name} {folder}"
        low = free < _MIN_FREE_BYTES and free < _MIN_FREE_SHARE * total
        if low or free < _MIN_FREE_BYTES // 16:
            yield Finding("free space", Verdict.BAD, f"{text}; free some, sorting will pause")
        elif disk.f_files and disk.f_favail == 0:
            yield Finding("free space", Verdict.BAD, f"no inode is free on the disk of {folder}")
        else:
            yield Finding("free space", Verdict.FINE, text)


def check_inotify(config: Config) -> Iterator[Finding]:
    """Look whether the inbox can be watched under this user's limits."""
    what = "inotify"
    if config.polling is Polling.ON:
        yield Finding(what, Verdict.FINE, "not used: polling is on")
        return
    try:
        watches, queued = (
            int((_INOTIFY / name).read_text()) for name in ("max_user_watches", "max_queued_events")
        )
    except OSError:
        yield Finding(what, Verdict.NOTE, f"{_INOTIFY} cannot be seen from here; limits unknown")
        return
    folders = sum(1 for _ in filesystem.walk(config.inbox, deep=True)) if config.recursive else 1
    text = f"{counted(folders, 'folder')} to watch, {watches:,} allowed, "
    text += f"{queued:,} events queued at most"
    if folders > watches:
        text = f"{text}; do: sysctl fs.inotify.max_user_watches={2 * folders} (until then: polling)"
        yield Finding(what, Verdict.BAD, text)
    else:
        yield Finding(what, Verdict.FINE, text)


def check_clock(config: Config, newest_at: float | None) -> Iterator[Finding]:
    """Compare this machine's clock with those of the disks, and with what was stored."""
    what, now = "clock", time.time()
    if newest_at is not None and newest_at > now + _CLOCK_S:
        ahead_s = newest_at - now
        text = f"the store knows of times {ahead_s:,.0f} s in the future: the clock was set back"
        yield Finding(what, Verdict.NOTE, f"{text}; files are sorted all the same")
    for folder in (config.state_dir, config.target):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                off_s = os.fstat(file.fileno()).st_mtime - time.time()
        except OSError:
            continue  # told by the permissions
        if abs(off_s) > _CLOCK_S:
            text = f"the disk of {folder} is {off_s:+.0f} s off this machine's clock; set both"
            yield Finding(what, Verdict.NOTE, f"{text} by NTP")
            return
    yield Finding(what, Verdict.FINE, "the disks agree with this machine")


def check_mounts(config: Config) -> Iterator[Finding]:
    """Tell whether a move is a rename or a copy."""
    if config.op is not Op.MOVE:
        return
    try:
        with tempfile.NamedTemporaryFile(dir=config.inbox, prefix=".imgsortd-try.") as file:
            end = config.target / Path(file.name).name
            os.link(file.name, end)
            end.unlink()
    except OSError as error:
        text = f"inbox and target are two mounts ({error.strerror}): each move is a checked copy"
        yield Finding("mounts", Verdict.NOTE, text)
    else:
        yield Finding("mounts", Verdict.FINE, "a move is one rename")


def check_model(config: Config, stored_digest: str | None) -> Iterator[Finding]:
    """Load the weights and compare their digest with that of the stored features."""
    what, model = "weights", config.model
    try:
        if model.backbone is Backbone.EFFICIENTNET_LITE0:
            from imgsortd.networks.efficientnet import efficientnet_lite0_network

            digest = efficientnet_lite0_network(model.weights).id.weights_digest
        else:
            from imgsortd.networks.weights import load_weights

            digest = load_weights(model.weights, model.layer, allow_download=False).digest
    except ImgsortdError as error:
        yield Finding(what, Verdict.BAD, str(error))
        return
    if stored_digest not in (None, digest):
        text = f"digest {digest[:12]}, but the clusters were fitted with {stored_digest[:12]}"
        yield Finding(what, Verdict.BAD, f"{text}; set model.weights back")
    else:
        text = f"{model.backbone.product_name} whole, digest {digest[:12]}"
        yield Finding(what, Verdict.FINE, text)


def check_decoder(config: Config) -> Iterator[Finding]:
    """Start a decoding process and tell how it is confined."""
    decoder = Decoder(decode_limits(config.pictures))
    try:
        measures = decoder.start()
    except NoDecoderError as error:
        yield Finding("decoder", Verdict.BAD, str(error))
        return
    finally:
        decoder.close()
    walled = "landlock" in measures
    text = f"{config.pictures.max_decode_memory_mb:,} MB and {config.pictures.max_decode_s:g} s a "
    text += f"picture, confined by {measures.replace(',', ', ')}"
    if not walled:
        text += "; this kernel has no Landlock, so the unit alone keeps it from files"
    yield Finding("decoder", Verdict.FINE if walled else Verdict.NOTE, text)
