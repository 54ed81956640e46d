"""Carry out journalled moves. Nothing is ever overwritten, and the bytes never have no name.

Each move is a function of the disk and its journal row, so that applying a row
again after a crash finishes what was begun: same mount in :meth:`Mover._move`,
another mount in :mod:`imgsortd.adapters.crossing`, copies and links in
:meth:`Mover._copy_all` and :meth:`Mover._link`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from imgsortd.adapters import copying, fsops
from imgsortd.adapters.crossing import Crossing
from imgsortd.adapters.faults import fault_point
from imgsortd.core.records import Move, MovePhase, MoveResult, Op, Root
from imgsortd.core.routing import free_name

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class MidMoveJournal(Protocol):
    """What a move must commit while it runs."""

    def rename(self, move_id: int, dst: bytes) -> None:
        """Commit another destination name."""

    def mark_copied(self, move_id: int) -> None:
        """Commit that the copy is whole and synced."""


def failed(move: Move, error: OSError) -> MoveResult:
    """Describe a move that could not be made now; its row stays open."""
    text = f"{error.strerror or error} ({os.fsdecode(move.dst)})"
    return MoveResult(move, move.phase, move.dst, text, error.errno in _NO_SPACE)


def ended(move: Move, phase: MovePhase) -> MoveResult:
    """Describe a move that needs no more work."""
    return MoveResult(move, phase, move.dst)


class Mover:
    """Moves, copies or links files from the inbox (or within target) into target.

    Parameters
    ----------
    inbox, target
        The two roots; each is opened anew for every batch, as both may be remounted.
    journal
        Where a changed name and the end of a copy are committed.
    """

    def __init__(self, inbox: Path, target: Path, journal: MidMoveJournal) -> None:
        self._roots = {Root.INBOX: inbox, Root.TARGET: target}
        self._journal = journal

    def exists(self, dst: bytes) -> bool:
        """Tell whether something has this name under target."""
        return os.path.lexists(os.path.join(os.fsencode(self._roots[Root.TARGET]), dst))

    def holds_bytes(self, dst: bytes, size_bytes: int, sha256: bytes) -> bool:
        """Tell whether the file under target is a regular one with exactly these bytes."""
        with fsops.Folders(self._roots[Root.TARGET]) as target:
            return fsops.holds_bytes(target, dst, size_bytes, sha256)

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
            results = _Batch(roots, self._journal, again).run(moves)
            fault_point("moves_synced")
        return results


class _Batch:
    """One call of :meth:`Mover.apply`, with its open folders."""

    def __init__(
        self, roots: dict[Root, fsops.Folders], journal: MidMoveJournal, again: bool
    ) -> None:
        self._roots = roots
        self._target = roots[Root.TARGET]
        self._journal = journal
        self._again = again

    def run(self, moves: Sequence[Move]) -> list[MoveResult]:
        copies = [move for move in moves if move.op is Op.COPY]
        results = {result.move.move_id: result for result in self._copy_all(copies)}
        one_by_one = {Op.MOVE: self._move, Op.HARDLINK: self._link, Op.SYMLINK: self._symlink}
        for move in moves:
            if move.op is not Op.COPY:
                results[move.move_id] = self._guard(one_by_one[move.op], move)
        try:
            for folders in self._roots.values():
                folders.sync()
        except OSError as error:  # nothing is known to be on disk: every row stays open
            return [failed(move, error) for move in moves]
        return [results[move.move_id] for move in moves]

    def _guard(self, step: Callable[[Move], MoveResult], move: Move) -> MoveResult:
        try:
            return step(move)
        except OSError as error:
            return failed(move, error)

    def _open(self, move: Move) -> int | None:
        """Open the source; None where it is gone, or no longer a regular file."""
        folder, base = fsops.split(move.src)
        try:
            return fsops.open_regular(self._roots[move.src_root].fd(folder), base)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
                return None
            raise

    def _destination(self, move: Move) -> tuple[int, bytes]:
        folder, name = fsops.split(move.dst)
        fd = self._target.make(folder)
        fault_point("folder_made")
        self._target.touched(folder)
        return fd, name

    def _another_name(self, move: Move) -> Move:
        """Commit the next free name: a stranger has taken the planned one."""
        folder, _ = fsops.split(move.dst)
        fd = self._target.fd(folder)
        dst = free_name(
            folder,
            fsops.split(move.src)[1],
            lambda path: fsops.inode_at(fd, fsops.split(path)[1]) is not None,
        )
        self._journal.rename(move.move_id, dst)
        return replace(move, dst=dst)

    def _move(self, move: Move) -> MoveResult:
        crossing = Crossing(self._roots[move.src_root], self._target, self._journal)
        if crossing.is_begun(move):
            return self._cross(crossing, move)
        fd = self._open(move)
        if fd is None:
            return ended(move, MovePhase.DONE if self._arrived(move) else MovePhase.GONE)
        with fsops.closing(fd):
            fault_point("opened")
            if not _same_content(fd, move):
                return ended(move, MovePhase.CHANGED)
            return self._rename(fd, move, crossing)

    def _arrived(self, move: Move) -> bool:
        """Tell whether an earlier try brought the file to its destination."""
        arrived = self._again and fsops.holds_bytes(
            self._target, move.dst, move.stamp.size_bytes, move.sha256
        )
        if arrived:
            self._target.touched(fsops.split(move.dst)[0])
        return arrived

    def _rename(self, fd: int, move: Move, crossing: Crossing) -> MoveResult:
        folder, base = fsops.split(move.src)
        src_fd = self._roots[move.src_root].fd(folder)
        dst_fd, name = self._destination(move)
        self._roots[move.src_root].touched(folder)
        try:
            if not fsops.rename_noreplace(src_fd, base, dst_fd, name):
                self._link_and_unlink(fd, src_fd, base, dst_fd, name)
        except FileExistsError:
            if self._again and fsops.inode_at(dst_fd, name) == os.fstat(fd).st_ino:
                fsops.unlink_if_there(src_fd, base)  # our own link from before a crash
                return ended(move, MovePhase.DONE)
            return self._rename(fd, self._another_name(move), crossing)
        except FileNotFoundError:
            return ended(move, MovePhase.GONE)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return self._cross(crossing, move)
        fault_point("renamed")
        if fsops.inode_at(dst_fd, name) != os.fstat(fd).st_ino:
            # Somebody put another file under the name in the last instant: give it back.
            fsops.rename_noreplace(dst_fd, name, src_fd, base)
            return ended(move, MovePhase.CHANGED)
        fault_point("verified")
        return ended(move, MovePhase.DONE)

    def _link_and_unlink(self, fd: int, src_fd: int, base: bytes, dst_fd: int, name: bytes) -> None:
        fsops.link(src_fd, base, dst_fd, name)
        fault_point("linked")
        if fsops.inode_at(dst_fd, name) == os.fstat(fd).st_ino == fsops.inode_at(src_fd, base):
            os.fsync(dst_fd)
            os.unlink(base, dir_fd=src_fd)

    def _cross(self, crossing: Crossing, move: Move) -> MoveResult:
        self._destination(move)
        while True:
            try:
                return crossing.run(move)
            except FileExistsError:
                if self._again and self._arrived(move):
                    return crossing.finish(move)
                move = self._another_name(move)

    def _copy_all(self, moves: Sequence[Move]) -> list[MoveResult]:
        """Stage every copy, sync them side by side, then publish each."""
        results: list[MoveResult] = []
        staged: list[tuple[Move, copying.Staged]] = []
        for move in moves:
            outcome = self._stage(move)
            if isinstance(outcome, MoveResult):
                results.append(outcome)
            else:
                staged.append((move, outcome))
        fault_point("staged")
        errors = copying.sync([copy for _, copy in staged])
        fault_point("staged_synced")
        for (move, copy), error in zip(staged, errors, strict=True):
            try:
                results.append(failed(move, error) if error else self._publish(move, copy))
            except OSError as publish_error:
                results.append(failed(move, publish_error))
            finally:
                copying.discard(copy)
        return results

    def _stage(self, move: Move) -> copying.Staged | MoveResult:
        try:
            if self._arrived(move):
                return ended(move, MovePhase.DONE)
            fd = self._open(move)
            if fd is None:
                return ended(move, MovePhase.GONE)
            with fsops.closing(fd):
                folder_fd, _ = self._destination(move)
                part = b".imgsortd-%d.part" % move.move_id
                return copying.stage(fd, folder_fd, part, move.sha256)
        except copying.BytesChangedError:
            return ended(move, MovePhase.CHANGED)
        except OSError as error:
            return failed(move, error)

    def _publish(self, move: Move, copy: copying.Staged) -> MoveResult:
        while True:
            try:
                copying.publish(copy, fsops.split(move.dst)[1])
            except FileExistsError:
                move = self._another_name(move)
                continue
            fault_point("published")
            return ended(move, MovePhase.DONE)

    def _link(self, move: Move) -> MoveResult:
        if self._arrived(move):
            return ended(move, MovePhase.DONE)
        fd = self._open(move)
        if fd is None:
            return ended(move, MovePhase.GONE)
        with fsops.closing(fd):
            if not _same_content(fd, move):
                return ended(move, MovePhase.CHANGED)
            folder, base = fsops.split(move.src)
            dst_fd, name = self._destination(move)
            try:
                fsops.link(self._roots[move.src_root].fd(folder), base, dst_fd, name)
            except FileExistsError:
                return self._link(self._another_name(move))
            except OSError as error:
                if error.errno == errno.EXDEV:
                    hint = "op: hardlink needs inbox and target on one filesystem; use copy"
                    raise OSError(error.errno, hint) from error
                raise
            fault_point("linked")
            if fsops.inode_at(dst_fd, name) != os.fstat(fd).st_ino:
                os.unlink(name, dir_fd=dst_fd)  # a link to a file swapped in; ours to remove
                return ended(move, MovePhase.CHANGED)
        return ended(move, MovePhase.DONE)

    def _symlink(self, move: Move) -> MoveResult:
        fd = self._open(move)
        if fd is None:
            return ended(move, MovePhase.GONE)
        with fsops.closing(fd):
            if not _same_content(fd, move):
                return ended(move, MovePhase.CHANGED)
        points_to = os.path.join(os.fsencode(self._roots[move.src_root].root.resolve()), move.src)
        dst_fd, name = self._destination(move)
        try:
            os.symlink(points_to, name, dir_fd=dst_fd)
        except FileExistsError:
            if self._again and _reads_link(dst_fd, name) == points_to:
                return ended(move, MovePhase.DONE)
            return self._symlink(self._another_name(move))
        fault_point("linked")
        return ended(move, MovePhase.DONE)


def _same_content(fd: int, move: Move) -> bool:
    """Compare by stamp; where that differs (a touch, a share's new inodes), by bytes."""
    return fsops.stamp_of(os.fstat(fd)).same_content(move.stamp) or (
        os.fstat(fd).st_size == move.stamp.size_bytes and fsops.sha256_of(fd) == move.sha256
    )


def _reads_link(folder_fd: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=folder_fd)
    except OSError:
        return None
