"""A move between two mounts: claim, copy, sync, publish, sync, and only then unlink.

The source is first renamed into ``.imgsortd-claim/`` beside it, a private folder,
under ``<move id>-<name>``. What is unlinked at the end is that claim: a second
upload under the old name is a stranger and is never touched.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from imgsortd.adapters import copying, fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.core.records import Move, MovePhase, MoveResult
from imgsortd.core.routing import NAME_MAX_BYTES, free_name

CLAIM_FOLDER = b".imgsortd-claim"


class _CopyJournal(Protocol):
    def mark_copied(self, move_id: int) -> None: ...


class Crossing:
    """Moves from one root to another, across mounts."""

    def __init__(self, source: fsops.Folders, target: fsops.Folders, journal: _CopyJournal) -> None:
        self._source = source
        self._target = target
        self._journal = journal

    def is_begun(self, move: Move) -> bool:
        """Tell whether this move holds a claim, or got as far as its copy."""
        if move.phase is MovePhase.COPIED:
            return True
        folder, claim = _claim_of(move)
        try:
            return fsops.inode_at(self._source.fd(folder), claim) is not None
        except OSError:
            return False

    def run(self, move: Move) -> MoveResult:
        """Carry the move out from wherever it stands.

        Raises
        ------
        FileExistsError
            The destination's name is taken; the claim is kept for another try.
        OSError
            It cannot be done now; the bytes are in the claim or in the inbox.
        """
        folder, claim = _claim_of(move)
        if move.phase is MovePhase.COPIED:
            if fsops.holds_bytes(self._target, move.dst, move.stamp.size_bytes, move.sha256):
                return self.finish(move)
            return self._give_back(move, MovePhase.CHANGED)
        if not self.is_begun(move):
            self._claim(move, folder, claim)
        claim_fd = self._source.fd(folder)
        fd = fsops.open_regular(claim_fd, claim)
        with fsops.closing(fd):
            os.fsync(claim_fd)
            os.fsync(self._source.fd(fsops.split(move.src)[0]))
            fault_point("claim_synced")
            before = fsops.stamp_of(os.fstat(fd))
            if fsops.has_writer(fd) or not self._copy_or_give_back(fd, move):
                return self._give_back(move, MovePhase.CHANGED)
            self._journal.mark_copied(move.move_id)
            fault_point("copied")
            if not fsops.stamp_of(os.fstat(fd)).same_content(before):
                # It grew while it was copied: what was hashed is in its folder, and
                # the longer file goes back to the inbox as a new one.
                return self._give_back(move, MovePhase.DONE)
        return self.finish(move)

    def _claim(self, move: Move, folder: bytes, claim: bytes) -> None:
        parent, base = fsops.split(move.src)
        parent_fd = self._source.fd(parent)
        with suppress(FileExistsError):
            os.mkdir(CLAIM_FOLDER, 0o700, dir_fd=parent_fd)
        claim_fd = self._source.fd(folder)
        if not fsops.rename_noreplace(parent_fd, base, claim_fd, claim):
            fsops.link(parent_fd, base, claim_fd, claim)
            os.unlink(base, dir_fd=parent_fd)
        fault_point("claimed")

    def _copy_or_give_back(self, fd: int, move: Move) -> bool:
        """Copy; where that fails (a full disk) the file stands in the inbox again."""
        try:
            return self._copy(fd, move)
        except FileExistsError:
            raise
        except OSError:
            self._give_back(move, MovePhase.PLANNED)
            raise

    def _copy(self, fd: int, move: Move) -> bool:
        """Copy the claim to its destination; False when its bytes are not the hashed ones."""
        folder, name = fsops.split(move.dst)
        folder_fd = self._target.fd(folder)
        try:
            staged = copying.stage(fd, folder_fd, b".imgsortd-%d.part" % move.move_id, move.sha256)
        except copying.BytesChangedError:
            return False
        try:
            fault_point("staged")
            for error in copying.sync((staged,)):
                if error:
                    raise error
            fault_point("staged_synced")
            copying.publish(staged, name)
        finally:
            copying.discard(staged)
        fault_point("published")
        os.fsync(folder_fd)
        fault_point("published_synced")
        return True

    def finish(self, move: Move) -> MoveResult:
        """Drop the claim: all its bytes are under the destination's name, and synced."""
        folder, claim = _claim_of(move)
        try:
            claim_fd = self._source.fd(folder)
        except OSError:
            return MoveResult(move, MovePhase.DONE, move.dst)
        if fsops.inode_at(claim_fd, claim) is not None:
            os.fsync(self._target.fd(fsops.split(move.dst)[0]))
            fsops.unlink_if_there(claim_fd, claim)
            fault_point("claim_dropped")
            os.fsync(claim_fd)
        self._drop_folder(move)
        return MoveResult(move, MovePhase.DONE, move.dst)

    def _give_back(self, move: Move, phase: MovePhase) -> MoveResult:
        folder, claim = _claim_of(move)
        parent, base = fsops.split(move.src)
        try:
            give_back(self._source, folder, claim, parent, base)
        except FileNotFoundError:  # recovery found neither copy nor claim: its owner took it
            return MoveResult(move, MovePhase.GONE, move.dst)
        self._drop_folder(move)
        return MoveResult(move, phase, move.dst)

    def _drop_folder(self, move: Move) -> None:
        with suppress(OSError):  # other claims are still in it
            os.rmdir(CLAIM_FOLDER, dir_fd=self._source.fd(fsops.split(move.src)[0]))
            # A later move must not find the descriptor of the removed folder.
            self._source.close(_claim_of(move)[0])


def _claim_of(move: Move) -> tuple[bytes, bytes]:
    parent, base = fsops.split(move.src)
    folder = parent + b"/" + CLAIM_FOLDER if parent else CLAIM_FOLDER
    number = b"%d-" % move.move_id
    return folder, number + base[-(NAME_MAX_BYTES - len(number)) :]


def give_back(
    source: fsops.Folders, folder: bytes, claim: bytes, parent: bytes, base: bytes
) -> bytes:
    """Rename a claim back to its old name, or to the next free one; return that name."""
    parent_fd, claim_fd = source.fd(parent), source.fd(folder)
    while True:
        path = free_name(b"", base, lambda p: fsops.inode_at(parent_fd, p[1:]) is not None)
        try:
            if not fsops.rename_noreplace(claim_fd, claim, parent_fd, path[1:]):
                fsops.link(claim_fd, claim, parent_fd, path[1:])
                os.unlink(claim, dir_fd=claim_fd)
        except FileExistsError:
            continue
        os.fsync(parent_fd)
        os.fsync(claim_fd)
        return path[1:]


def return_orphans(inbox: Path, open_moves: set[int]) -> list[bytes]:
    """Give files in claim folders back whose move nobody knows: the database was lost.

    Parameters
    ----------
    open_moves
        Ids of unfinished moves; their claims are left to recovery.

    Returns
    -------
    list of bytes
        Names, relative to the inbox, under which the files stand again.
    """
    returned = []
    root = os.fsencode(inbox)
    for path, folders, files in os.walk(root):
        if os.path.basename(path) != CLAIM_FOLDER:
            folders[:] = [
                name for name in folders if not name.startswith(b".") or name == CLAIM_FOLDER
            ]
            continue
        parent = os.path.relpath(os.path.dirname(path), root)
        parent = b"" if parent == b"." else parent
        with fsops.Folders(inbox) as source:
            for claim in files:
                number, _, base = claim.partition(b"-")
                if not number.isdigit() or int(number) in open_moves:
                    continue
                folder = os.path.join(parent, CLAIM_FOLDER)
                returned.append(
                    os.path.join(parent, give_back(source, folder, claim, parent, base or claim))
                )
            with suppress(OSError):
                os.rmdir(CLAIM_FOLDER, dir_fd=source.fd(parent))
    return returned
