"""Carry out journalled moves. Nothing is ever overwritten, and the bytes never have no name.

Each move is a function of the disk and its journal row, so that applying a row
again after a crash finishes what was begun: same mount in :func:`_move`, another
mount in :mod:`imgsortd.adapters.crossing`, copies and links in
:mod:`imgsortd.adapters.placing`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from imgsortd.adapters import copying, fsops, placing, renaming
from imgsortd.adapters.crossing import Crossing
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.places import MidMoveJournal, Places, ended, failed
from imgsortd.adapters.whereabouts import Whereabouts
from imgsortd.core.records import Move, MovePhase, MoveResult, Op, Root

NAME_TAKEN = "its old name in the inbox is taken"
_NOT_BY_RENAME = (errno.EXDEV, *renaming.NO_LINKS)


class Mover:
    """Moves, copies or links files from the inbox (or within target) into target.

    Parameters
    ----------
    inbox, target
        The two roots; each is opened anew for every batch, as both may be remounted.
    journal
        Where a changed name and the end of a copy are committed.

    Attributes
    ----------
    after_each
        Called after each move and each megabyte copied: across slow mounts a batch, or one
        film, may take minutes.
    stopping
        Asked before each move and each megabyte of a copy whether to end: what is not begun
        by then, or not whole, is left to the next start.
    whereabouts
        Where it is known which folder the inbox is: then no file of another one is gone.
    """

    def __init__(self, inbox: Path, target: Path, journal: MidMoveJournal) -> None:
        self._roots = {Root.INBOX: inbox, Root.TARGET: target}
        self._journal = journal
        self.after_each: Callable[[], None] = lambda: None
        self.stopping: Callable[[], bool] = lambda: False
        self.whereabouts: Whereabouts | None = None

    def exists(self, dst: bytes) -> bool:
        """Tell whether something has this name under target."""
        return os.path.lexists(os.path.join(os.fsencode(self._roots[Root.TARGET]), dst))

    def holds_bytes(self, dst: bytes, size_bytes: int, sha256: bytes) -> bool:
        """Tell whether the file under target is a regular one with exactly these bytes.

        One that cannot be read is taken for another: a double is better than a loss.
        """
        try:
            with fsops.Folders(self._roots[Root.TARGET]) as target:
                return fsops.holds_bytes(target, dst, size_bytes, sha256)
        except OSError:
            return False

    def obstacle(self, roots: Iterable[Root]) -> str:
        """Return why one of these folders takes no files now; empty when all do."""
        for root in roots:
            try:
                copying.try_folder(self._roots[root])
            except OSError as error:
                return f"{root} {self._roots[root]} takes no files: {error.strerror}"
        return ""

    def apply(self, moves: Sequence[Move], *, again: bool = False) -> list[MoveResult]:
        """Carry out moves and sync the folders they touched, each once.

        Parameters
        ----------
        again
            The rows may have been begun before (recovery, or another try): what is
            found at a destination may be our own.

        Returns
        -------
        list of MoveResult
            In the order of ``moves``. DONE, GONE and CHANGED are ends; PLANNED and
            COPIED carry an ``error`` and are to be tried again.
        """
        with ExitStack() as stack:
            roots = {
                root: stack.enter_context(fsops.Folders(path)) for root, path in self._roots.items()
            }
            try:
                for move in moves:
                    roots[move.src_root].open()
                    roots[move.dst_root].open()
                self._check_inbox(roots[Root.INBOX])
            except OSError as error:  # an inbox that is away does not make its files gone
                return [failed(move, error) for move in moves]
            promised = {move.dst for move in moves}
            places = Places(roots, self._journal, again, promised, self.after_each, self.stopping)
            results = self._run(places, moves)
            fault_point("moves_synced")
        away = self.whereabouts
        return results if away is None else [away.kept_open(result) for result in results]

    def _check_inbox(self, inbox: fsops.Folders) -> None:
        if self.whereabouts is not None and inbox.is_open:
            refusal = self.whereabouts.refusal(inbox.root_fd)
            if refusal:
                raise OSError(errno.ESTALE, refusal)

    def _run(self, places: Places, moves: Sequence[Move]) -> list[MoveResult]:
        copies = [m for m in moves if m.op is Op.COPY and m.dst_root is Root.TARGET]
        results = {r.move.move_id: r for r in placing.copy_all(places, copies)}
        for move in moves:
            if move not in copies:
                results[move.move_id] = _guard(places, move)
                places.after_each()
        try:
            for folders in places.roots.values():
                folders.sync()
        except OSError as error:  # nothing is known to be on disk: every row stays open
            return [failed(move, error) for move in moves]
        return [results[move.move_id] for move in moves]


def _guard(places: Places, move: Move) -> MoveResult:
    if places.stopping():
        return ended(move, move.phase)
    steps = {Op.MOVE: _move, Op.HARDLINK: placing.hardlink, Op.SYMLINK: placing.symlink}
    is_taken_back = move.dst_root is Root.INBOX and move.op is not Op.MOVE
    try:
        return (placing.take_back if is_taken_back else steps[move.op])(places, move)
    except copying.StoppedError:
        return ended(move, MovePhase.PLANNED)
    except OSError as error:
        return failed(move, error)


def _move(places: Places, move: Move) -> MoveResult:
    source, end = places.roots[move.src_root], places.end(move)
    crossing = Crossing(source, end, places.journal, places.on_chunk)
    if crossing.is_begun(move):
        return _cross(places, crossing, move)
    if _is_there(places, move):
        return ended(move, MovePhase.DONE)
    fd = places.open_source(move)
    if fd is None and placing.is_link_of_ours(places, move):
        return placing.move_link(places, move)
    if fd is None:
        return ended(move, MovePhase.DONE if places.arrived(move) else MovePhase.GONE)
    with fsops.closing(fd):
        fault_point("opened")
        if not fsops.same_content(fd, move):
            return ended(move, MovePhase.CHANGED)
        return _rename(places, fd, move, crossing)


def _is_there(places: Places, move: Move) -> bool:
    """Tell whether the very file, not another of equal bytes, has arrived; drop its old name."""
    if not places.arrived(move):
        return False
    folder, name = fsops.split(move.dst)
    dst_fd = places.end(move).fd(folder)
    try:
        src_fd = places.source_fd(move)
    except OSError:
        return True  # the folder it came from has been removed since
    base = fsops.split(move.src)[1]
    if fsops.is_same_file(src_fd, base, dst_fd, name):  # linked, not unlinked before a crash
        fsops.sync_folder(dst_fd)
        os.unlink(base, dir_fd=src_fd)
        places.roots[move.src_root].touched(fsops.split(move.src)[0])
        return True
    return fsops.inode_at(dst_fd, name) == move.stamp.inode


def _rename(places: Places, fd: int, move: Move, crossing: Crossing) -> MoveResult:
    folder, base = fsops.split(move.src)
    src_fd = places.source_fd(move)
    dst_fd, name = places.destination(move)
    places.roots[move.src_root].touched(folder)
    try:
        if not renaming.rename_noreplace(src_fd, base, dst_fd, name):
            _link_and_unlink(fd, src_fd, base, dst_fd, name)
    except FileExistsError:
        if move.dst_root is Root.INBOX:
            return ended(move, MovePhase.CHANGED, NAME_TAKEN)
        return _rename(places, fd, places.another_name(move), crossing)
    except FileNotFoundError:
        if fsops.inode_at(src_fd, base) is not None:
            raise  # it is the destination's folder that was taken away
        return ended(move, MovePhase.GONE)
    except OSError as error:
        if error.errno not in _NOT_BY_RENAME:
            raise
        return _cross(places, crossing, move)
    fault_point("renamed")
    if fsops.inode_at(dst_fd, name) != os.fstat(fd).st_ino:
        # Somebody put another file under the name in the last instant: give it back.
        renaming.return_to(dst_fd, name, src_fd, base)
        return ended(move, MovePhase.CHANGED)
    fault_point("verified")
    return ended(move, MovePhase.DONE)


def _link_and_unlink(fd: int, src_fd: int, base: bytes, dst_fd: int, name: bytes) -> None:
    renaming.link(src_fd, base, dst_fd, name)
    fault_point("linked")
    if fsops.is_same_file(src_fd, base, dst_fd, name):
        fsops.sync_folder(dst_fd)
        os.unlink(base, dir_fd=src_fd)


def _cross(places: Places, crossing: Crossing, move: Move) -> MoveResult:
    places.destination(move)
    while True:
        try:
            return crossing.run(move)
        except FileExistsError:
            if places.again and crossing.is_ours(move) and places.arrived(move):
                return crossing.finish(move)
            if move.dst_root is Root.INBOX:
                return replace(crossing.give_back(move, MovePhase.CHANGED), error=NAME_TAKEN)
            move = places.another_name(move)
