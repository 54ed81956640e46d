"""Carry out journalled moves. Nothing is ever overwritten, and the bytes never have no name.

Each move is a function of the disk and its journal row, so that applying a row
again after a crash finishes what was begun: same mount in :func:`_move`, another
mount in :mod:`imgsortd.moves.crossing`, copies and links in
:mod:`imgsortd.moves.copies`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from imgsortd.moves import staging
from imgsortd.moves.copies import copy_all, hardlink, is_link_of_ours, move_link, symlink, take_back
from imgsortd.moves.crossing import Crossing
from imgsortd.moves.ends import NAME_TAKEN, Ends, MidMoveJournal, ended, failed
from imgsortd.records import Move, MovePhase, MoveResult, Op, Root
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

_NOT_BY_RENAME = (errno.EXDEV, *filesystem.NO_LINKS)


class Home(Protocol):
    """Knows which folder the inbox is: then no file of another one is gone."""

    def refusal(self, inbox_fd: int) -> str:
        """Return why an open folder is not the inbox to work with; empty where it is."""

    def kept_open(self, result: MoveResult) -> MoveResult:
        """Keep a move open that would end because its file is not where it was."""


class Mover:
    """Moves, copies or links files from the inbox (or within target) into target.

    Both are opened anew for every batch, as they may be remounted.

    Parameters
    ----------
    after_each
        Called after each move and each megabyte copied: across slow mounts a batch, or one
        film, may take minutes.
    stopping
        Asked before each move and each megabyte of a copy whether to end: what is not begun
        by then, or not whole, is left to the next start.
    home
        None where any folder with the inbox's path is the inbox.
    """

    def __init__(
        self,
        inbox: Path,
        target: Path,
        journal: MidMoveJournal,
        *,
        after_each: Callable[[], None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
        home: Home | None = None,
    ) -> None:
        self._roots = {Root.INBOX: inbox, Root.TARGET: target}
        self._journal = journal
        self.after_each, self.stopping = after_each, stopping
        self._home = home

    def exists(self, dst: bytes) -> bool:
        """Tell whether something has this name under target."""
        return os.path.lexists(os.path.join(os.fsencode(self._roots[Root.TARGET]), dst))

    def holds_bytes(self, dst: bytes, size_bytes: int, sha256: bytes) -> bool:
        """Tell whether the file under target is a regular one with exactly these bytes.

        One that cannot be read is taken for another: a double is better than a loss.
        """
        try:
            with filesystem.Folders(self._roots[Root.TARGET]) as target:
                return filesystem.holds_bytes(target, dst, size_bytes, sha256)
        except OSError:
            return False

    def obstacle(self, roots: Iterable[Root]) -> str:
        """Return why one of these folders takes no files now; empty when all do."""
        for root in roots:
            try:
                staging.try_folder(self._roots[root])
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
                root: stack.enter_context(filesystem.Folders(path))
                for root, path in self._roots.items()
            }
            try:
                for move in moves:
                    roots[move.src_root].open()
                    roots[move.dst_root].open()
                inbox, home = roots[Root.INBOX], self._home
                if home and inbox.is_open and (refusal := home.refusal(inbox.root_fd)):
                    raise OSError(errno.ESTALE, refusal)
            except OSError as error:  # an inbox that is away does not make its files gone
                return [failed(move, error) for move in moves]
            promised = {move.dst for move in moves}
            ends = Ends(roots, self._journal, again, promised, self.after_each, self.stopping)
            results = self._run(ends, moves)
            fault_point("moves_synced")
        return results if home is None else [home.kept_open(result) for result in results]

    def _run(self, ends: Ends, moves: Sequence[Move]) -> list[MoveResult]:
        copies = [m for m in moves if m.op is Op.COPY and m.dst_root is Root.TARGET]
        results = {r.move.move_id: r for r in copy_all(ends, copies)}
        for move in moves:
            if move not in copies:
                results[move.move_id] = _guard(ends, move)
                ends.after_each()
        try:
            for folders in ends.roots.values():
                folders.sync()
        except OSError as error:  # nothing is known to be on disk: every row stays open
            return [failed(move, error) for move in moves]
        return [results[move.move_id] for move in moves]


def _guard(ends: Ends, move: Move) -> MoveResult:
    if ends.stopping():
        return ended(move, move.phase)
    steps = {Op.MOVE: _move, Op.HARDLINK: hardlink, Op.SYMLINK: symlink}
    is_taken_back = move.dst_root is Root.INBOX and move.op is not Op.MOVE
    try:
        return (take_back if is_taken_back else steps[move.op])(ends, move)
    except staging.GivenUpError:
        return ended(move, MovePhase.PLANNED)
    except OSError as error:
        return failed(move, error)


def _move(ends: Ends, move: Move) -> MoveResult:
    crossing = Crossing(ends, move)
    if crossing.is_begun:
        return crossing.run()
    if _is_there(ends, move):
        return ended(move, MovePhase.DONE)
    fd = ends.open_source(move)
    if fd is None and is_link_of_ours(ends, move):
        return move_link(ends, move)
    if fd is None:
        return ended(move, MovePhase.DONE if ends.arrived(move) else MovePhase.GONE)
    with filesystem.closing(fd):
        fault_point("opened")
        if not filesystem.same_content(fd, move):
            return ended(move, MovePhase.CHANGED)
        return _rename(ends, fd, move)


def _is_there(ends: Ends, move: Move) -> bool:
    """Tell whether the very file, not another of equal bytes, has arrived; drop its old name."""
    if not ends.arrived(move):
        return False
    folder, name = filesystem.split(move.dst)
    dst_fd = ends.dst_root(move).fd(folder)
    try:
        src_fd = ends.source_fd(move)
    except OSError:
        return True  # the folder it came from has been removed since
    base = filesystem.split(move.src)[1]
    if filesystem.is_same_file(src_fd, base, dst_fd, name):  # linked, not unlinked before a crash
        filesystem.sync_folder(dst_fd)
        os.unlink(base, dir_fd=src_fd)
        ends.roots[move.src_root].touched(filesystem.split(move.src)[0])
        return True
    return filesystem.inode_at(dst_fd, name) == move.stamp.inode


def _rename(ends: Ends, fd: int, move: Move) -> MoveResult:
    folder, base = filesystem.split(move.src)
    src_fd = ends.source_fd(move)
    dst_fd, name = ends.destination(move)
    ends.roots[move.src_root].touched(folder)
    try:
        if not filesystem.rename_noreplace(src_fd, base, dst_fd, name):
            _link_and_unlink(fd, src_fd, base, dst_fd, name)
    except FileExistsError:
        if move.dst_root is Root.INBOX:
            return ended(move, MovePhase.CHANGED, NAME_TAKEN)
        return _rename(ends, fd, ends.another_name(move))
    except FileNotFoundError:
        if filesystem.inode_at(src_fd, base) is not None:
            raise  # it is the destination's folder that was taken away
        return ended(move, MovePhase.GONE)
    except OSError as error:
        if error.errno not in _NOT_BY_RENAME:
            raise
        return Crossing(ends, move).run()
    fault_point("renamed")
    if filesystem.inode_at(dst_fd, name) != os.fstat(fd).st_ino:
        # Somebody put another file under the name in the last instant: give it back.
        filesystem.return_to(dst_fd, name, src_fd, base)
        return ended(move, MovePhase.CHANGED)
    fault_point("verified")
    return ended(move, MovePhase.DONE)


def _link_and_unlink(fd: int, src_fd: int, base: bytes, dst_fd: int, name: bytes) -> None:
    filesystem.link(src_fd, base, dst_fd, name)
    fault_point("linked")
    if filesystem.is_same_file(src_fd, base, dst_fd, name):
        filesystem.sync_folder(dst_fd)
        os.unlink(base, dir_fd=src_fd)
