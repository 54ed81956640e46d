"""Copies and links into target, and what every move needs: its source, its folder, its name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from imgsortd.adapters import copying, fsops, renaming
from imgsortd.adapters.faults import fault_point
from imgsortd.core.records import Move, MovePhase, MoveResult, Op, Root
from imgsortd.core.routing import free_name

CHANGED = "it is no longer what was put there"


class MidMoveJournal(Protocol):
    """What a move must commit while it runs."""

    def rename(self, move_id: int, dst: bytes) -> None:
        """Commit another destination name."""

    def mark_copied(self, move_id: int) -> None:
        """Commit that the copy is whole and synced."""


def failed(move: Move, error: OSError) -> MoveResult:
    """Describe a move that could not be made now; its row stays open."""
    text = f"{error.strerror or error} ({os.fsdecode(move.dst)})"
    return MoveResult(move, move.phase, move.dst, text, error.errno in fsops.NO_SPACE)


def ended(move: Move, phase: MovePhase, why: str = "") -> MoveResult:
    """Describe a move that needs no more work, and why where it was not made."""
    return MoveResult(move, phase, move.dst, why)


class Places:
    """The two ends of the moves of one batch.

    Parameters
    ----------
    roots
        Inbox and target, for as long as their descriptors are open.
    journal
        Where another name is committed.
    again
        The rows may have been begun before: what is found may be our own.
    promised
        Destinations of all moves of the batch: no name for another of them.
    after_each
        Called after each move.
    stopping
        Asked whether to leave the rest to the next start.
    """

    def __init__(
        self,
        roots: dict[Root, fsops.Folders],
        journal: MidMoveJournal,
        again: bool,
        promised: set[bytes],
        after_each: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.roots = roots
        self.journal = journal
        self.again = again
        self.after_each = after_each
        self.stopping = stopping
        self._promised = promised

    def on_chunk(self) -> None:
        """Tell that a copy goes on, or give it up.

        Raises
        ------
        StoppedError
            The process is to end.
        """
        self.after_each()
        if self.stopping():
            raise copying.StoppedError

    def end(self, move: Move) -> fsops.Folders:
        """Return the root that a move's destination is below."""
        return self.roots[move.dst_root]

    def source_fd(self, move: Move) -> int:
        """Return the descriptor of the folder that a move's source stands in."""
        return self.roots[move.src_root].fd(fsops.split(move.src)[0])

    def open_source(self, move: Move) -> int | None:
        """Open the source; None where it is gone, or no longer a regular file."""
        try:
            return fsops.open_regular(self.source_fd(move), fsops.split(move.src)[1])
        except OSError as error:
            if error.errno in fsops.NO_FILE:
                return None
            raise

    def destination(self, move: Move) -> tuple[int, bytes]:
        """Make the destination's folder where it is new; return its descriptor and the name."""
        folder, name = fsops.split(move.dst)
        fd = self.end(move).make(folder)
        fault_point("folder_made")
        self.end(move).touched(folder)
        return fd, name

    def another_name(self, move: Move) -> Move:
        """Commit the next free name: a stranger has taken the planned one."""
        folder, _ = fsops.split(move.dst)
        fd = self.end(move).fd(folder)

        def is_taken(path: bytes) -> bool:
            there = fsops.inode_at(fd, fsops.split(path)[1]) is not None
            return there or path in self._promised

        dst = free_name(folder, fsops.split(move.src)[1], is_taken)
        self._promised.add(dst)
        self.journal.rename(move.move_id, dst)
        return replace(move, dst=dst)

    def arrived(self, move: Move) -> bool:
        """Tell whether an earlier try brought the bytes to their destination."""
        arrived = self.again and fsops.holds_bytes(
            self.end(move), move.dst, move.stamp.size_bytes, move.sha256
        )
        if arrived:
            folder, _ = fsops.split(move.dst)
            fsops.unlink_if_there(self.end(move).fd(folder), copying.part_of(move.move_id))
            self.end(move).touched(folder)
        return arrived


def take_back(places: Places, move: Move) -> MoveResult:
    """Remove a copy or link that was made of a file in the inbox, which has the same bytes.

    It is claimed by a rename first, so that a stranger under its name is never removed.
    """
    folder, name = fsops.split(move.src)
    folder_fd, claim = places.source_fd(move), copying.part_of(move.move_id)
    try:
        renaming.rename(folder_fd, name, folder_fd, claim)
    except FileNotFoundError:
        if fsops.inode_at(folder_fd, claim) is None:
            return ended(move, MovePhase.DONE if places.again else MovePhase.GONE)
    except FileExistsError:
        pass  # claimed before a crash; whatever has the name now is another file
    fault_point("claimed")
    has_source = fsops.holds_bytes(places.end(move), move.dst, move.stamp.size_bytes, move.sha256)
    if not (has_source and _is_our_copy(places, folder_fd, claim, move)):
        renaming.return_to(folder_fd, claim, folder_fd, name)
        what = CHANGED if has_source else "its source in the inbox is gone or changed"
        return ended(move, MovePhase.CHANGED, what)
    _sync_file(places, move)
    os.unlink(claim, dir_fd=folder_fd)
    places.roots[move.src_root].touched(folder)
    fault_point("claim_dropped")
    return ended(move, MovePhase.DONE)


def _sync_file(places: Places, move: Move) -> None:
    """Fsync the source, which is the only one from now on: it may have been written just now."""
    folder, name = fsops.split(move.dst)
    folder_fd = places.end(move).fd(folder)
    with fsops.closing(fsops.open_regular(folder_fd, name)) as fd:
        os.fsync(fd)
    fsops.sync_folder(folder_fd)


def _is_our_copy(places: Places, folder_fd: int, claim: bytes, move: Move) -> bool:
    if move.op is Op.SYMLINK:
        return _reads_link(folder_fd, claim) == _points_to(places, move.dst)
    try:
        fd = fsops.open_regular(folder_fd, claim)
    except OSError:
        return False
    with fsops.closing(fd):
        return fsops.sha256_of(fd) == move.sha256


def _points_to(places: Places, name: bytes) -> bytes:
    """Return what a symlink to a file in the inbox holds."""
    return os.path.join(os.fsencode(places.roots[Root.INBOX].root.resolve()), name)


def copy_all(places: Places, moves: Sequence[Move]) -> list[MoveResult]:
    """Stage every copy, sync them side by side, then publish each."""
    results: list[MoveResult] = []
    staged: list[tuple[Move, copying.Staged]] = []
    with ExitStack() as stack:
        for move in moves:
            outcome = _stage(places, move)
            if isinstance(outcome, MoveResult):
                results.append(outcome)
            else:
                stack.callback(copying.discard, outcome)
                staged.append((move, outcome))
            places.after_each()
        fault_point("staged")
        errors = copying.sync([copy for _, copy in staged])
        fault_point("staged_synced")
        for (move, copy), error in zip(staged, errors, strict=True):
            try:
                results.append(failed(move, error) if error else _publish(places, move, copy))
            except OSError as publish_error:
                results.append(failed(move, publish_error))
    return results


def _stage(places: Places, move: Move) -> copying.Staged | MoveResult:
    try:
        if places.stopping():
            return ended(move, move.phase)
        if places.arrived(move):
            return ended(move, MovePhase.DONE)
        fd = places.open_source(move)
        if fd is None:
            return ended(move, MovePhase.GONE)
        with fsops.closing(fd):
            folder_fd, _ = places.destination(move)
            part = copying.part_of(move.move_id)
            return copying.stage(fd, folder_fd, part, move.sha256, places.on_chunk)
    except copying.BytesChangedError:
        return ended(move, MovePhase.CHANGED)
    except copying.StoppedError:
        return ended(move, move.phase)
    except OSError as error:
        return failed(move, error)


def _publish(places: Places, move: Move, copy: copying.Staged) -> MoveResult:
    while True:
        try:
            copying.publish(copy, fsops.split(move.dst)[1])
        except FileExistsError:
            move = places.another_name(move)
            continue
        fault_point("published")
        return ended(move, MovePhase.DONE)


def hardlink(places: Places, move: Move) -> MoveResult:
    """Give the source a second name under target.

    Raises
    ------
    OSError
        EXDEV, with what to do, where inbox and target are two mounts; and others.
    """
    if places.arrived(move):
        return ended(move, MovePhase.DONE)
    fd = places.open_source(move)
    if fd is None:
        return ended(move, MovePhase.GONE)
    with fsops.closing(fd):
        if not fsops.same_content(fd, move):
            return ended(move, MovePhase.CHANGED)
        dst_fd, name = places.destination(move)
        try:
            renaming.link(places.source_fd(move), fsops.split(move.src)[1], dst_fd, name)
        except FileExistsError:
            return hardlink(places, places.another_name(move))
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


def symlink(places: Places, move: Move) -> MoveResult:
    """Let a name under target point to the source."""
    points_to = _points_to(places, move.src)
    fd = places.open_source(move)
    if fd is None:
        return ended(move, MovePhase.GONE)
    with fsops.closing(fd):
        if not fsops.same_content(fd, move):
            return ended(move, MovePhase.CHANGED)
    dst_fd, name = places.destination(move)
    try:
        os.symlink(points_to, name, dir_fd=dst_fd)
    except FileExistsError:
        if places.again and _reads_link(dst_fd, name) == points_to:
            return ended(move, MovePhase.DONE)
        return symlink(places, places.another_name(move))
    fault_point("linked")
    return ended(move, MovePhase.DONE)


def _reads_link(folder_fd: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=folder_fd)
    except OSError:
        return None
