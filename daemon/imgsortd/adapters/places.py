"""The two ends of a batch of moves: sources, folders, names, and how a move is told of."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from imgsortd.adapters import copying, fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.core.records import Move, MovePhase, MoveResult, Root
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
