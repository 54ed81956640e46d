"""Carry out journalled moves. Nothing is ever overwritten, and the bytes never have no name.

Each move is a function of the disk and its journal row, so that applying a row
again after a crash finishes what was begun: same mount in :func:`_move`, another
mount in :mod:`imgsortd.moves.crossing`, copies and links in
:mod:`imgsortd.moves.copies`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from imgsortd.moves import staging
from imgsortd.moves.copies import copy_all, hardlink, is_link_of_ours, move_link, symlink, take_back
from imgsortd.moves.crossing import Crossing, claim_of
from imgsortd.moves.ends import NAME_TAKEN, Ends, MidMoveJournal, ended, failed
from imgsortd.moves.roots import Roots
from imgsortd.records import Move, MovePhase, MoveResult, Op, Root
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

FORMER = "it was planned for a folder that is no longer in use"
_NOT_BY_RENAME = (errno.EXDEV, *filesystem.NO_LINKS)


class Mover:
    """Moves, copies or links files from an inbox (or within a target) into a target.

    They are opened anew for every batch, as they may be remounted; ``roots`` tells whether what
    stands there is the folder that a move was planned in.

    Parameters
    ----------
    after_each
        Called after each move and each megabyte copied: across slow mounts a batch, or one
        film, may take minutes.
    stopping
        Asked before each move and each megabyte of a copy whether to end: what is not begun
        by then, or not whole, is left to the next start.
    """

    def __init__(
        self,
        inbox: Path,
        target: Path,
        journal: MidMoveJournal,
        roots: Roots,
        *,
        after_each: Callable[[], None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._in_use = {Root.INBOX: inbox, Root.TARGET: target}
        self._journal, self.roots = journal, roots
        self.after_each, self.stopping = after_each, stopping

    def exists(self, dst: bytes) -> bool:
        """Tell whether something has this name under target."""
        return os.path.lexists(os.path.join(os.fsencode(self._in_use[Root.TARGET]), dst))

    def holds_bytes(self, dst: bytes, size_bytes: int, sha256: bytes) -> bool:
        """Tell whether a file under target, or what a link of ours leads to, has these bytes.

        One that cannot be read is taken for another: a double is better than a loss.
        """
        leads_to = self._leads_to(dst)
        try:
            for inbox in self.roots.inboxes() if leads_to else ():
                if leads_to and leads_to.startswith(inbox + b"/"):
                    with filesystem.Folders(Path(os.fsdecode(inbox))) as source:
                        name = leads_to[len(inbox) + 1 :]
                        return filesystem.holds_bytes(source, name, size_bytes, sha256)
            with filesystem.Folders(self._in_use[Root.TARGET]) as target:
                return filesystem.holds_bytes(target, dst, size_bytes, sha256)
        except OSError:
            return False

    def is_link_to(self, dst: bytes, path: bytes) -> bool:
        """Tell whether a name under target is a hard link or symlink to this very file."""
        try:
            there = os.path.join(os.fsencode(self._in_use[Root.TARGET]), dst)
            return os.path.samestat(os.stat(there), os.lstat(path))
        except OSError:
            return False

    def leads_nowhere(self, dst: bytes) -> bool:
        """Tell whether a name under target is a symlink to what is not there."""
        there = os.path.join(os.fsencode(self._in_use[Root.TARGET]), dst)
        return os.path.islink(there) and not os.path.exists(there)

    def _leads_to(self, dst: bytes) -> bytes | None:
        try:
            return os.readlink(os.path.join(os.fsencode(self._in_use[Root.TARGET]), dst))
        except OSError:
            return None

    def obstacle(self, roots: Iterable[Root]) -> str:
        """Return why one of these folders takes no files now; empty when all do."""
        for root in roots:
            try:
                staging.try_folder(self._in_use[root])
            except OSError as error:
                return f"{root} {self._in_use[root]} takes no files: {error.strerror}"
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
            folders: dict[int, filesystem.Folders] = {}
            away: dict[int, OSError] = {}  # a folder that is away does not make its files gone
            for root_id in {end for move in moves for end in (move.src_id, move.dst_id)}:
                try:
                    folders[root_id] = stack.enter_context(self._open(root_id))
                except OSError as why:
                    away[root_id] = why
            promised = {move.dst for move in moves}
            ways = (self._journal, again, promised, self.roots.inboxes())
            ends = Ends(folders, *ways, self.after_each, self.stopping)
            results = {result.move.move_id: result for result in self._ended(ends, moves)}
            now = [
                move
                for move in moves
                if move.move_id not in results and move.src_id in folders and move.dst_id in folders
            ]
            results |= {result.move.move_id: result for result in self._run(ends, now)}
            fault_point("moves_synced")
        for move in moves:
            error = away.get(move.src_id) or away.get(move.dst_id)
            if error and move.move_id not in results:
                results[move.move_id] = failed(move, error)
        return [results[move.move_id] for move in moves]

    def _open(self, root_id: int) -> filesystem.Folders:
        """Open a root; an OSError tells that it, or what stands there, is not to work with."""
        folders = filesystem.Folders(self.roots.path(root_id))
        try:
            folders.open()
        except OSError as error:
            text = f"{folders.root} is not there: {error.strerror}"
            raise OSError(error.errno, text) from error
        if refusal := self.roots.refusal(root_id, folders.root_fd):
            folders.__exit__()
            raise OSError(errno.ESTALE, refusal)
        return folders

    def _run(self, ends: Ends, moves: Sequence[Move]) -> list[MoveResult]:
        copies = [m for m in moves if m.op is Op.COPY and m.dst_root is Root.TARGET]
        results = {r.move.move_id: r for r in copy_all(ends, copies)}
        for move in moves:
            if move not in copies:
                results[move.move_id] = _guard(ends, move)
                ends.after_each()
        try:
            for folders in ends.folders.values():
                folders.sync()
        except OSError as error:  # nothing is known to be on disk: every row stays open
            return [failed(move, error) for move in moves]
        return [results[move.move_id] for move in moves]

    def _ended(self, ends: Ends, moves: Sequence[Move]) -> Iterator[MoveResult]:
        """Yield moves out of an inbox that end without being made, or were made and not closed.

        They are from, or to, a folder that is no longer in use and were not begun; or their
        source's folder is away and what they moved stands where it was to go.
        """
        for move in moves:
            if move.src_root is not Root.INBOX:
                continue
            is_other = self.roots.is_former(move.src_id) or not self.roots.is_in_use(move.dst_id)
            if is_other and not _is_begun(ends, move):
                yield ended(move, MovePhase.CHANGED, FORMER)
            elif ends.again and not self.roots.is_there(move.src_id) and _was_made(ends, move):
                yield ended(move, MovePhase.DONE)


def _is_begun(ends: Ends, move: Move) -> bool:
    """Tell whether something was done for a move, or nobody can say."""
    source = ends.folders.get(move.src_id)
    if source is None or move.phase is MovePhase.COPIED:
        return True
    if move.dst_id in ends.folders:
        return Crossing(ends, move).is_begun or ends.arrived(move)
    folder, claim = claim_of(move)
    names = (os.path.join(folder, claim), move.src)
    there = [filesystem.look(source.root, name) is not None for name in names]
    return there != [False, True]


def _was_made(ends: Ends, move: Move) -> bool:
    """Tell whether the very file that was to be moved, by a rename, is in target."""
    if move.dst_id not in ends.folders or not ends.arrived(move):
        return False
    there = filesystem.look(ends.dst_root(move).root, move.dst)
    return there is not None and there.inode == move.stamp.inode


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
        ends.src_root(move).touched(filesystem.split(move.src)[0])
        return True
    return filesystem.inode_at(dst_fd, name) == move.stamp.inode


def _rename(ends: Ends, fd: int, move: Move) -> MoveResult:
    folder, base = filesystem.split(move.src)
    src_fd = ends.source_fd(move)
    dst_fd, name = ends.destination(move)
    ends.src_root(move).touched(folder)
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
