"""Which folders are inbox and target, and whose is the target?

Both are known by more than their paths: by filesystem and inode, and a target by what is
written in it, a small file that also names the library it belongs to. So no file of a disk
that is not mounted is gone, and no two libraries sort into one folder.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from imgsortd.config.model import Config
from imgsortd.errors import LockedError, LostError, OwnedError, WatchError
from imgsortd.moves.crossing import claim_of
from imgsortd.records import Root
from imgsortd.store.database import Store
from imgsortd.store.library import LibraryFile
from imgsortd.store.roots import FolderId, RootRow
from imgsortd.system import filesystem
from imgsortd.system.locks import sorting_pid

log = logging.getLogger(__name__)

MARKER = ".imgsortd-library"
_FORMER_NOTE = "inbox.json"
_LOOKED_AT = 200

_AWAY = "{} {} is another folder than when this was planned; mount the former one again"
_ANOTHER = "another folder is there than before (unmounted, mounted over, or made anew)"


class Roots:
    """Knows the folders of one library, from one start to the next.

    ``hold`` takes the locks of the folders that stand there now; it may raise LockedError.
    """

    def __init__(self, config: Config, store: Store, hold: Callable[[], object]) -> None:
        self._config, self._store, self._rows = config, store, store.roots
        self._hold, self._is_unmarked = hold, False
        self._held: FolderId | None = None

    def path(self, root_id: int) -> Path:
        """Return where a folder is, or was when it was last used.

        Raises
        ------
        OSError
            Nobody has noted where.
        """
        row = self._rows.by_id(root_id)
        if row.is_current:
            return self._configured(row.kind)
        if row.path is None:
            raise FileNotFoundError(0, f"nobody knows where the former {row.kind} is")
        return row.path

    def inboxes(self) -> list[bytes]:
        """Return where every inbox ever used is or was, symlinks resolved."""
        here = os.fsencode(self._config.inbox.resolve())
        rows = self._rows.all(Root.INBOX)
        return [here, *(os.fsencode(row.path) for row in rows if row.path and not row.is_current)]

    def refusal(self, root_id: int, fd: int) -> str:
        """Return why an open folder is not the one to work with; empty where it is.

        An inbox of former days is held while it is open.
        """
        row = self._rows.by_id(root_id)
        if row.folder not in (None, FolderId.of(fd)):
            return _AWAY.format(row.kind, row.path or self._configured(row.kind))
        if row.kind is Root.TARGET and not row.is_current:
            return self._refusal_of_former(row)
        if row.kind is Root.INBOX and not row.is_current:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"another imgsortd is at work in the former inbox {row.path}"
            except OSError:
                pass  # a share without locks
        return ""

    def _refusal_of_former(self, target: RootRow) -> str:
        """Return why a former target is not to be touched: it may be another library's by now."""
        assert target.path is not None
        try:
            marker = read_marker(target.path)
        except (OwnedError, LostError) as error:
            return str(error)
        if marker is not None and marker.library not in self._store.library.ids:
            return f"the former target {target.path} belongs to another library now"
        if pid := sorting_pid(target.path):
            return f"another imgsortd (pid {pid}) sorts into the former target {target.path}"
        return ""

    def is_there(self, root_id: int) -> bool:
        """Tell whether the very folder stands where it was last."""
        row = self._rows.by_id(root_id)
        path = self._configured(row.kind) if row.is_current else row.path
        found = None if path is None else _folder_at(path)
        return found is not None and row.folder in (None, found)

    def now(self, root_id: int) -> int:
        """Return the inbox in use where it has replaced this one under its path; else this one."""
        row, current = self._rows.by_id(root_id), self._rows.current(Root.INBOX)
        is_replaced = row.kind is Root.INBOX and row.path == current.path
        return current.root_id if is_replaced and not self.is_there(root_id) else root_id

    def is_in_use(self, root_id: int) -> bool:
        """Tell whether a folder is the one that is in use."""
        return self._rows.by_id(root_id).is_current

    def is_former(self, root_id: int) -> bool:
        """Tell whether a folder is no longer in use, and another one has another path."""
        row = self._rows.by_id(root_id)
        return not row.is_current and row.path != self._configured(row.kind).resolve()

    def _configured(self, kind: Root) -> Path:
        return self._config.inbox if kind is Root.INBOX else self._config.target

    def former_inboxes(self) -> list[tuple[int, Path]]:
        """Return those that are there under their old path, which is no longer the inbox's."""
        here = self._config.inbox.resolve()
        return [
            (row.root_id, row.path)
            for row in self._rows.all(Root.INBOX)
            if row.path not in (None, here) and _folder_at(row.path) == row.folder
        ]

    # --- the inbox --------------------------------------------------------------------

    @property
    def is_home(self) -> bool:
        """Whether the inbox is the folder that was put in use, or configured anew.

        Else no file of it is gone.
        """
        row = self._rows.current(Root.INBOX)
        folder = row.folder or self._noted_inbox()
        if folder in (None, _folder_at(self._config.inbox)):
            return True
        return row.path not in (None, self._config.inbox.resolve())

    def _noted_inbox(self) -> FolderId | None:
        """Return what an older imgsortd has noted of the inbox, in a file of its own."""
        try:
            noted = json.loads((self._config.state_dir / _FORMER_NOTE).read_bytes())
            if noted["path"] == os.fspath(self._config.inbox):
                filesystem_id, inode = noted["home"]
                return FolderId(str(filesystem_id), int(inode))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def enter_inbox(self, *, replaces_removed: bool = False) -> None:
        """Put the folder that stands under the inbox's path in use.

        Parameters
        ----------
        replaces_removed
            The one before is known to be deleted: what is not in this one is gone.
        """
        folder = _folder_at(self._config.inbox)
        former = self._rows.current(Root.INBOX)
        if folder is None:
            return
        for former_id, path in self.former_inboxes():
            self._end_missing(former_id, path)
        if former.folder == folder and former.path == self._config.inbox.resolve():
            return
        with self._store.atomic():
            if former.folder is None and (noted := self._noted_inbox()) is not None:
                self._rows.use(Root.INBOX, former.root_id, self._config.inbox, noted)
            rows = self._rows.all(Root.INBOX)
            known = next((row for row in rows if row.folder in (None, folder)), None)
            root_id = None if known is None else known.root_id
            self._rows.use(Root.INBOX, root_id, self._config.inbox, folder)
            if replaces_removed and root_id != former.root_id:
                self._rows.give_up(former.root_id)
            self._rows.bring_home(self._claimed_here())

    def _end_missing(self, root_id: int, former: Path) -> None:
        """End files that waited in a former inbox and were taken away: to this one, perhaps."""
        missing = []
        for file_id, src in self._rows.kept(root_id):
            path = os.path.join(os.fsencode(former), src)
            try:
                os.lstat(path)
            except FileNotFoundError:
                missing += [file_id] if os.path.isdir(os.path.dirname(path)) else []
            except OSError:
                continue  # not to be seen: it may be there
        if missing:
            with self._store.atomic():
                for file_id in missing:
                    self._store.files.end(file_id, "taken away from a former inbox")

    def _claimed_here(self) -> list[int]:
        """Return files of former inboxes whose claims stand in this one: the folder was copied."""
        inbox = os.fsencode(self._config.inbox)
        return [
            move.file_id
            for move in self._store.journal.unfinished()
            if move.src_root is Root.INBOX
            and not self._rows.by_id(move.src_id).is_current
            and os.path.lexists(os.path.join(inbox, *claim_of(move)))
        ]

    def bring_home(self, src: bytes, sha256: bytes) -> None:
        """Keep what is known of a file from an inbox that is no more: it stands in this one."""
        same = self._rows.same_files(src, sha256)
        self._rows.bring_home(n for n, root_id in same if not self.is_there(root_id))

    def insist(self, *, adopt: bool = False) -> None:
        """Refuse to work with other folders than the last daemon did, or ``adopt`` the target.

        Raises
        ------
        WatchError, LostError, OwnedError
            One of them is another, or not there.
        """
        if not self.is_home:
            what = "mount the former one, or start the daemon on this one"
            raise WatchError(f"inbox {self._config.inbox}: {_ANOTHER}; {what}")
        self.enter_inbox()
        self.claim_target(adopt=adopt)

    # --- the target -------------------------------------------------------------------

    def look_at_target(self) -> str:
        """Return why nothing may be sorted into the target now; empty where it may."""
        folder = _folder_at(self._config.target)
        is_same = folder is not None and folder == self._rows.current(Root.TARGET).folder
        if is_same and folder == self._held:
            if self._is_unmarked:
                self.mark()
            return ""
        try:
            self.claim_target()
        except (LostError, OwnedError, LockedError, WatchError) as error:
            self._held = None
            return str(error)
        self._held = folder
        return ""

    def claim_target(self, *, adopt: bool = False) -> None:
        """Put the configured target in use, and write in it whose it is.

        Parameters
        ----------
        adopt
            Take it over, whosoever it was.

        Raises
        ------
        OwnedError, LockedError
            It is another library's, or one is at work there.
        LostError
            It is not there, or not the folder that was sorted into: an unmounted disk, perhaps.
        """
        target = self._config.target
        own_target(self._config, self._store.library, adopt=adopt)
        folder = _folder_at(target)
        if folder is None:
            raise LostError(f"target {target} is not there; mount it, and sorting goes on")
        self._hold()
        own_target(self._config, self._store.library, adopt=adopt)  # nobody else writes it now
        marker = read_marker(target)
        row = self._find(folder, "" if marker is None else marker.target, adopt=adopt)
        mark = (marker and marker.target) or (row and row.mark) or secrets.token_hex(8)
        with self._store.atomic():
            self._rows.use(Root.TARGET, None if row is None else row.root_id, target, folder, mark)
        self.mark()

    def _find(self, folder: FolderId, mark: str, *, adopt: bool) -> RootRow | None:
        """Return the row of a target: by its mark, itself, or what stands in it; None for none."""
        rows = self._rows.all(Root.TARGET)
        if mark:
            marked = next((row for row in rows if row.mark == mark), None)
            if marked:
                return marked
        for row in rows:
            if row.folder == folder:
                return row
            if row.folder is None:
                placed = self._rows.placed(row.root_id, _LOOKED_AT)
                if adopt or mark or not placed or _share_there(self._config.target, placed) > 0:
                    return row
                raise LostError(f"target {self._config.target}: {_ANOTHER}; mount it")
        here = self._config.target.resolve()
        same_path = [row for row in rows if row.path == here]
        for row in [*same_path, *(row for row in rows if row.is_current)]:
            placed = self._rows.placed(row.root_id, _LOOKED_AT)
            if placed and _share_there(here, placed) > 0.5:
                return row  # brought here without what was written in it
            if row in same_path and (adopt or not placed):
                return row
        if same_path:
            raise LostError(
                f"target {self._config.target}: {_ANOTHER}, and what was sorted is not in it; "
                f"mount the former one and sorting goes on, or take this one by --adopt"
            )
        return None

    def mark(self) -> None:
        """Write whose the target is; a full or read-only one is marked when it can be.

        Names of clusters that the database does not know, for it was lost, stay written.
        """
        row, library = self._rows.current(Root.TARGET), self._store.library
        if row.folder != _folder_at(self._config.target):
            return  # another folder is there than is in use
        before: Marker | None = None
        with suppress(OwnedError, LostError):  # damaged since this library took it
            before = read_marker(self._config.target)
        known = {cluster.cluster_id for cluster in self._store.hands.cluster_folders()}
        kept = {} if before is None else before.names
        names = {number: name for number, name in kept.items() if number not in known}
        names |= self._store.records.named_folders()
        state_dir = _state_dir_text(self._store.path.parent.resolve(), self._config)
        marker = Marker(library.id, row.mark, os.uname().nodename, state_dir, names)
        try:
            if before != marker:
                write_marker(self._config.target, marker)
            self._is_unmarked = False
        except OSError as error:
            if not self._is_unmarked:
                log.warning("target not marked path=%s reason=%s", self._config.target, error)
            self._is_unmarked = True


@dataclass(frozen=True, slots=True)
class Marker:
    """What is written in a target: whose it is, which it is, and the clusters' names.

    ``state_dir`` is where its library's database is, on the machine ``host``; relative to target
    where it is in it.
    """

    library: str
    target: str
    host: str
    state_dir: str
    names: Mapping[int, bytes] = field(default_factory=dict)


def read_marker(target: Path) -> Marker | None:
    """Return what is written in a target; None where nothing is.

    Raises
    ------
    OwnedError, LostError
        It is damaged, or cannot be read, so that nobody can say whose it is.
    """
    try:
        with filesystem.closing(filesystem.open_root(target)) as folder_fd:
            fd = filesystem.open_regular(folder_fd, MARKER.encode())
        with filesystem.closing(fd):
            noted = json.loads(b"".join(filesystem.read_chunks(fd)))
        names = {int(number): os.fsencode(name) for number, name in noted["names"].items()}
        library, mark, host = (str(noted[key]) for key in ("library", "target", "host"))
        return Marker(library, mark, host, str(noted["state_dir"]), names)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LostError(
            f"target {target}: {MARKER} in it, which tells whose it is, cannot be read "
            f"({error.strerror}); give uid {os.geteuid()} the right to"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OwnedError(
            f"target {target}: {MARKER} in it, which tells whose it is, is damaged ({error!r}); "
            f"remove it if the target is no other library's"
        ) from error


def is_marked(target: Path) -> bool:
    """Tell whether a target has an owner, whosoever it is."""
    return os.path.lexists(target / MARKER)


def write_marker(target: Path, marker: Marker) -> None:
    """Write it whole, or not at all; others may read it."""
    noted = {
        "library": marker.library,
        "target": marker.target,
        "host": marker.host,
        "state_dir": marker.state_dir,
        "names": {str(number): os.fsdecode(name) for number, name in marker.names.items()},
    }
    text = json.dumps(noted, indent=1) + "\n"
    filesystem.write_atomically(target / MARKER, [text.encode()], mode=0o644)


def own_target(
    config: Config,
    library: LibraryFile,
    *,
    adopt: bool = False,
    dry_run: bool = False,
    before: LibraryFile | None = None,
) -> None:
    """See that a target is no other library's, or take it over (``adopt``).

    Where the own library was lost with its state folder, this is that one again; and where it
    gets another state folder, the one ``before``.

    Raises
    ------
    OwnedError
        It is another library's, and not to be taken over.
    """
    marker = read_marker(config.target)
    if marker is None or marker.library in library.ids:
        return
    state_dir = _state_dir_text(config.state_dir.resolve(), config)
    is_this_machine = marker.host == os.uname().nodename or not os.path.isabs(state_dir)
    is_own = library.is_new and (
        (is_this_machine and state_dir == marker.state_dir)
        or (before is not None and marker.library in before.ids)
    )
    if not (is_own or adopt):
        where = f"{config.target / marker.state_dir} on {marker.host}"
        if pid := sorting_pid(config.target):
            where += f" (pid {pid} is at work there)"
        raise OwnedError(
            f"target {config.target}: belongs to another library, whose state folder is {where}; "
            f"choose another target, or take it over by --adopt if that library is no more"
        )
    if dry_run:
        return
    if is_own:
        log.warning("library found again by its target path=%s", config.target)
        library.resume(marker.library)
    else:
        log.warning("target taken over path=%s from=%s", config.target, marker.state_dir)
        library.take_over(marker.library)


def _state_dir_text(state_dir: Path, config: Config) -> str:
    target = config.target.resolve()
    inside = state_dir.is_relative_to(target)
    return str(state_dir.relative_to(target) if inside else state_dir)


def _folder_at(path: Path) -> FolderId | None:
    try:
        return FolderId.of(path)
    except OSError:
        return None


def _share_there(target: Path, placed: list[tuple[bytes, int]]) -> float:
    """Return the share (0 to 1) of files that stand in a target, by name and size."""
    there = 0
    for name, size_bytes in placed:
        stamp, path = filesystem.look(target, name), os.path.join(os.fsencode(target), name)
        there += stamp is not None and (stamp.size_bytes == size_bytes or os.path.islink(path))
    return there / len(placed)
