"""Which folder the inbox is: an unmounted disk or another one in its place makes no file gone.

What is known of files in the inbox belongs to the folder that it was. Where another folder
has its path (a mount point without its disk, a disk mounted over it, a folder made anew)
the files of the first are *away*, until it stands there again or is known to be removed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from imgsortd.errors import LockedError, WatchError
from imgsortd.records import MovePhase, MoveResult, Root
from imgsortd.store.database import Store
from imgsortd.system.filesystem import write_atomically

log = logging.getLogger(__name__)

_FILE = "inbox.json"
_AWAY = "the inbox is another folder than when this was planned; mount the former one again"

_ANOTHER = "another folder is there than before (unmounted, mounted over, or made anew)"

Identity = tuple[int, int]
"""Device and inode: what tells two folders apart while this machine runs."""

HomeFolder = tuple[int, int]
"""Filesystem id and inode: what a folder keeps when its disk is mounted again."""


class Whereabouts:
    """Knows the inbox by more than its path, also from one start to the next.

    Parameters
    ----------
    on_arrival
        Called before a folder is worked with: at the first look, and where it is another one.
        It may raise LockedError or WatchError, and is called again at the next look.
    is_removed
        Tells of a folder that was the inbox whether it was deleted.
    """

    def __init__(
        self,
        inbox: Path,
        store: Store,
        on_arrival: Callable[[], None] = lambda: None,
        is_removed: Callable[[Identity], bool] = lambda _: False,
    ) -> None:
        self._inbox, self._store = inbox, store
        self._on_arrival, self._is_removed = on_arrival, is_removed
        self._file = store.path.with_name(_FILE)
        self._here: Identity | None = None
        self._met: Identity | None = None
        self._home, self._elsewhere = self._read()
        self.away = set().union(*self._elsewhere.values())  # rows known from another folder

    def meet(self, status: os.stat_result) -> None:
        """Learn which folder has the inbox's path now.

        A WatchError tells that it is another one than at the look before (sorting waits until
        it stays, as mounts come and go), or that another imgsortd is at work there.
        """
        identity = (status.st_dev, status.st_ino)
        if identity == self._here:
            self._met = identity
            return
        is_expected = self._here is None and self._is_home()
        if identity != self._met and not is_expected:
            self._met = identity
            log.warning("inbox replaced path=%s", self._inbox)
            raise WatchError(f"inbox {self._inbox}: {_ANOTHER}; sorting waits until it stays")
        self._met = identity
        removed = self._here is not None and self._is_removed(self._here)
        try:
            self._on_arrival()
        except LockedError as error:
            raise WatchError(str(error)) from error
        self._here = identity
        self._settle_in(removed=removed)

    def insist(self) -> None:
        """Refuse, by a WatchError, to work with another folder than the last daemon did."""
        if not self._is_home():
            what = "mount the former one, or start the daemon on this one"
            raise WatchError(f"inbox {self._inbox}: {_ANOTHER}; {what}")

    def accept(self) -> None:
        """Take the folder that is there now for the inbox at the first look, without waiting."""
        with suppress(OSError):  # told by whoever lists it
            status = os.stat(self._inbox)
            self._met = (status.st_dev, status.st_ino)

    def seen(self, file_ids: Iterable[int]) -> None:
        """Learn that files stand in the inbox, wherever they were before."""
        found = self.away.intersection(file_ids)
        if found:
            self.away -= found
            self._elsewhere = {home: ids - found for home, ids in self._elsewhere.items()}
            self._write()

    def is_away(self, file_id: int) -> bool:
        """Tell whether a file that is not there may be where the inbox was."""
        return file_id in self.away or not self._is_home()

    def refusal(self, inbox_fd: int) -> str:
        """Return why an open folder is not the inbox to work with; empty where it is."""
        return "" if self._home in (None, _home_of(inbox_fd)) else _AWAY

    def kept_open(self, result: MoveResult) -> MoveResult:
        """Keep a move open that would end because its file is not where it was."""
        move = result.move
        is_gone = result.phase is MovePhase.GONE and move.src_root is Root.INBOX
        if not (is_gone and self.is_away(move.file_id)):
            return result
        return replace(result, phase=move.phase, error=f"{_AWAY} ({os.fsdecode(move.src)})")

    def _is_home(self) -> bool:
        return self._home in (None, _home_of(self._inbox))

    def _settle_in(self, *, removed: bool) -> None:
        home = _home_of(self._inbox)
        if home is None or home == self._home:
            return
        if self._home is not None and not removed:
            known = self._known() - set().union(*self._elsewhere.values())
            self._elsewhere[self._home] = known
        self._elsewhere.pop(home, None)
        self._home = home
        self.away = set().union(*self._elsewhere.values())
        self._write()

    def _known(self) -> set[int]:
        """Return the rows of all files that should stand in the inbox."""
        files, moves = self._store.files, self._store.journal.unfinished()
        open_moves = {move.file_id for move in moves if move.src_root is Root.INBOX}
        return open_moves | {*files.pending_names().values(), *files.undone_names().values()}

    def _read(self) -> tuple[HomeFolder | None, dict[HomeFolder, set[int]]]:
        """Read what an earlier life has noted; nothing of a folder with another path."""
        try:
            noted: dict[str, Any] = json.loads(self._file.read_bytes())
            if noted["path"] != os.fspath(self._inbox):
                return None, {}
            elsewhere = {_as_home(home): set(files) for home, files in noted["elsewhere"]}
            return _as_home(noted["home"]), elsewhere
        except (OSError, ValueError, KeyError, TypeError):
            return None, {}

    def _write(self) -> None:
        elsewhere = [[home, sorted(ids)] for home, ids in self._elsewhere.items() if ids]
        noted = {"path": os.fspath(self._inbox), "home": self._home, "elsewhere": elsewhere}
        try:
            write_atomically(self._file, [json.dumps(noted).encode()], synced=False)
        except OSError as error:  # a full disk: then only this life knows
            log.warning("inbox not noted file=%s reason=%s", self._file, error.strerror)


def _as_home(noted: Any) -> HomeFolder:
    filesystem, inode = noted
    return int(filesystem), int(inode)


def _home_of(folder: Path | int) -> HomeFolder | None:
    try:
        return os.statvfs(folder).f_fsid, os.stat(folder).st_ino
    except OSError:
        return None
