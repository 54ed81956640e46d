"""The two ends of a batch of moves: sources, folders, names, and how a move is told of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from imgsortd.moves import staging
from imgsortd.names import free_name
from imgsortd.records import Move, MovePhase, MoveResult
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

NAME_TAKEN = "its old name in the inbox is taken"


class MidMoveJournal(Protocol):
    """What a move must commit while it runs."""

    def rename(self, move_id: int, dst: bytes) -> None:
        """Commit another destination name."""

    def mark_copied(self, move_id: int) -> None:
        """Commit that the copy is whole and synced."""


def failed(move: Move, error: OSError) -> MoveResult:
    """Describe a move that could not be made now; its row stays open."""
    text = f"{error.strerror or error} ({os.fsdecode(move.dst)})"
    return MoveResult(move, move.phase, move.dst, text, error.errno in filesystem.NO_SPACE)


def ended(move: Move, phase: MovePhase, why: str = "") -> MoveResult:
    """Describe a move that needs no more work, and why where it was not made."""
    return MoveResult(move, phase, move.dst, why)


class Ends:
    """The two ends of the moves of one batch.

    Parameters
    ----------
    folders
        The roots of its moves, open, by their rows.
    inboxes
        The paths of every inbox ever used: links that lead into them are ours.
    promised
        Destinations of all moves of the batch: no name for another of them.
    """

    def __init__(
        self,
        folders: dict[int, filesystem.Folders],
        journal: MidMoveJournal,
        again: bool,
        promised: set[bytes],
        inboxes: Sequence[bytes],
        after_each: Callable[[], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.folders, self.journal, self.again = folders, journal, again
        self.inboxes = inboxes
        self.after_each, self.stopping = after_each, stopping
        self._promised = promised

    def on_chunk(self) -> None:
        """Tell that a copy goes on, or give it up.

        Raises
        ------
        GivenUpError
            The process is to end.
        """
        self.after_each()
        if self.stopping():
            raise staging.GivenUpError

    def dst_root(self, move: Move) -> filesystem.Folders:
        """Return the root that a move's destination is below."""
        return self.folders[move.dst_id]

    def src_root(self, move: Move) -> filesystem.Folders:
        """Return the root that a move's source is below."""
        return self.folders[move.src_id]

    def source_fd(self, move: Move) -> int:
        """Return the descriptor of the folder that a move's source stands in."""
        return self.src_root(move).fd(filesystem.split(move.src)[0])

    def open_source(self, move: Move) -> int | None:
        """Open the source; None where it is gone, or no longer a regular file."""
        try:
            return filesystem.open_regular(self.source_fd(move), filesystem.split(move.src)[1])
        except OSError as error:
            if error.errno in filesystem.NO_FILE:
                return None
            raise

    def destination(self, move: Move) -> tuple[int, bytes]:
        """Make the destination's folder where it is new; return its descriptor and the name."""
        folder, name = filesystem.split(move.dst)
        fd = self.dst_root(move).make(folder)
        fault_point("folder_made")
        self.dst_root(move).touched(folder)
        return fd, name

    def another_name(self, move: Move) -> Move:
        """Commit the next free name: a stranger has taken the planned one."""
        folder, _ = filesystem.split(move.dst)
        fd = self.dst_root(move).fd(folder)

        def is_taken(path: bytes) -> bool:
            there = filesystem.inode_at(fd, filesystem.split(path)[1]) is not None
            return there or path in self._promised

        dst = free_name(folder, filesystem.split(move.src)[1], is_taken)
        self._promised.add(dst)
        self.journal.rename(move.move_id, dst)
        return replace(move, dst=dst)

    def arrived(self, move: Move) -> bool:
        """Tell whether an earlier try brought the bytes to their destination."""
        root, size_bytes = self.dst_root(move), move.stamp.size_bytes
        if not (self.again and filesystem.holds_bytes(root, move.dst, size_bytes, move.sha256)):
            return False
        folder, _ = filesystem.split(move.dst)
        filesystem.unlink_if_there(root.fd(folder), staging.part_of(move))
        root.touched(folder)
        return True
