"""A move between two mounts: claim, copy, sync, publish, sync, and only then unlink.

The source is first renamed into ``.imgsortd-claim/`` beside it, a private folder,
under ``<move id>-<name>``. What is unlinked at the end is that claim: a second
upload under the old name is a stranger and is never touched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imgsortd.moves import staging
from imgsortd.moves.ends import NAME_TAKEN, Ends, ended
from imgsortd.names import NAME_MAX_BYTES
from imgsortd.records import Move, MovePhase, MoveResult, Root
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

log = logging.getLogger(__name__)

CLAIM_FOLDER = b".imgsortd-claim"


class Crossing:
    """One move from one root to another, across mounts."""

    def __init__(self, ends: Ends, move: Move) -> None:
        self._ends = ends
        self._source, self._target = ends.roots[move.src_root], ends.dst_root(move)
        self._parent, self._base = filesystem.split(move.src)
        self._folder, self._claim = _claim_of(move)
        self.move = move

    @property
    def is_begun(self) -> bool:
        """Whether this move holds a claim, or got as far as its copy."""
        if self.move.phase is MovePhase.COPIED:
            return True
        try:
            return filesystem.inode_at(self._source.fd(self._folder), self._claim) is not None
        except OSError:
            return False

    def run(self) -> MoveResult:
        """Carry the move out from wherever it stands, under the next name where one is taken.

        Raises
        ------
        OSError
            It cannot be done now; the bytes are in the claim or in the inbox.
        """
        ends = self._ends
        ends.destination(self.move)
        while True:
            try:
                return self._run()
            except FileExistsError:
                if ends.again and self._is_ours() and ends.arrived(self.move):
                    return self._finish()
                if self.move.dst_root is Root.INBOX:
                    return replace(self._give_back(MovePhase.CHANGED), error=NAME_TAKEN)
                self.move = ends.another_name(self.move)

    def _run(self) -> MoveResult:
        """Go on; where the name is taken, the claim is kept for another try."""
        move = self.move
        if move.phase is MovePhase.COPIED:
            if filesystem.holds_bytes(self._target, move.dst, move.stamp.size_bytes, move.sha256):
                return self._finish()
            return self._give_back(MovePhase.CHANGED)
        fd = self._open_claim()
        if fd is None:
            return self._give_back(MovePhase.CHANGED)
        with filesystem.closing(fd):
            is_written = filesystem.writer_of(fd) is filesystem.Writer.SOME
            if is_written or not self._copy_or_give_back(fd):
                return self._give_back(MovePhase.CHANGED)
        self._ends.journal.mark_copied(move.move_id)
        fault_point("copied")
        return self._finish()

    def _open_claim(self) -> int | None:
        """Claim the source and open the claim; None where it is gone, or not even a file."""
        parent_fd = self._source.fd(self._parent)
        if not self._rename_to_claim(parent_fd):
            return None
        fault_point("claimed")
        claim_fd = self._source.fd(self._folder)
        filesystem.sync_folder(claim_fd)
        filesystem.sync_folder(parent_fd)
        fault_point("claim_synced")
        try:
            return filesystem.open_regular(claim_fd, self._claim)
        except OSError as error:
            if error.errno not in filesystem.NO_FILE:
                raise
            return None

    def _rename_to_claim(self, parent_fd: int) -> bool:
        if self.is_begun:
            claim_fd = self._source.fd(self._folder)
            if filesystem.is_same_file(parent_fd, self._base, claim_fd, self._claim):
                os.unlink(self._base, dir_fd=parent_fd)  # linked, not unlinked before a crash
            return True
        with suppress(FileExistsError):
            os.mkdir(CLAIM_FOLDER, 0o700, dir_fd=parent_fd)
        try:
            claim_fd = self._source.fd(self._folder)
            filesystem.rename(parent_fd, self._base, claim_fd, self._claim)
        except FileNotFoundError:
            if filesystem.inode_at(parent_fd, self._base) is not None:
                raise
            return False
        return True

    def _copy_or_give_back(self, fd: int) -> bool:
        """Copy; where that fails (a full disk) the file stands in the inbox again."""
        try:
            return self._copy(fd)
        except FileExistsError:
            raise
        except (OSError, staging.GivenUpError):
            self._give_back(MovePhase.PLANNED)
            raise

    def _copy(self, fd: int) -> bool:
        """Copy the claim to its destination; False when its bytes are not the hashed ones."""
        folder, name = filesystem.split(self.move.dst)
        folder_fd = self._target.fd(folder)
        try:
            part = staging.part_of(self.move.move_id)
            staged = staging.stage(fd, folder_fd, part, self.move.sha256, self._ends.on_chunk)
        except staging.BytesChangedError:
            return False
        try:
            fault_point("staged")
            for error in staging.sync((staged,)):
                if error:
                    raise error
            fault_point("staged_synced")
            staging.publish(staged, name)
        finally:
            staging.discard(staged)
        fault_point("published")
        filesystem.sync_folder(folder_fd)
        fault_point("published_synced")
        return True

    def _finish(self) -> MoveResult:
        """Drop the claim: what was hashed is under the destination's name, and synced.

        A claim that has grown since goes back to the inbox, as a file of its own.
        """
        try:
            claim_fd = self._source.fd(self._folder)
            fd = filesystem.open_regular(claim_fd, self._claim)
        except FileNotFoundError:
            return ended(self.move, MovePhase.DONE)
        with filesystem.closing(fd):
            if not filesystem.same_content(fd, self.move):
                return self._give_back(MovePhase.DONE)
            filesystem.sync_folder(self._target.fd(filesystem.split(self.move.dst)[0]))
            filesystem.unlink_if_there(claim_fd, self._claim)
        fault_point("claim_dropped")
        filesystem.sync_folder(claim_fd)
        self._drop_folder()
        return ended(self.move, MovePhase.DONE)

    def _is_ours(self) -> bool:
        """Tell whether the destination may be the copy that was published before a crash.

        A copy has the time of its source; a file of the same bytes that somebody else has
        put there has its own. Where times are not kept, the claim becomes a file beside
        it: rather twice than not at all.
        """
        to, name = filesystem.split(self.move.dst)
        try:
            source_fd = self._source.fd(self._folder)
            source = os.stat(self._claim, dir_fd=source_fd, follow_symlinks=False)
            copy = os.stat(name, dir_fd=self._target.fd(to), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return source.st_mtime_ns == copy.st_mtime_ns

    def _give_back(self, phase: MovePhase) -> MoveResult:
        """Rename the claim to where the file stood."""
        try:
            claim_fd, parent_fd = self._source.fd(self._folder), self._source.fd(self._parent)
            filesystem.return_to(claim_fd, self._claim, parent_fd, self._base)
        except FileNotFoundError:  # neither copy nor claim: its owner took it
            phase = MovePhase.GONE
        self._drop_folder()
        return ended(self.move, phase)

    def _drop_folder(self) -> None:
        with suppress(OSError):  # other claims are still in it
            os.rmdir(CLAIM_FOLDER, dir_fd=self._source.fd(self._parent))
            # A later move must not find the descriptor of the removed folder.
            self._source.close(self._folder)


def _claim_of(move: Move) -> tuple[bytes, bytes]:
    parent, base = filesystem.split(move.src)
    number = b"%d-" % move.move_id
    return os.path.join(parent, CLAIM_FOLDER), number + base[-(NAME_MAX_BYTES - len(number)) :]


def return_orphans(root: Path, unfinished: Iterable[Move], *, deep: bool = True) -> list[bytes]:
    """Give files in claim folders back whose move nobody knows: the database was lost.

    Returns the names, relative to the root, under which they stand again.

    Parameters
    ----------
    unfinished
        Open moves; their claims are left to recovery.
    deep
        Look into all folders below ``root``, or only into those directly in it.
    """
    returned: list[bytes] = []
    for parent, orphans in _orphans(root, unfinished, deep=deep):
        if isinstance(orphans, OSError):  # a stranger's folder
            name, reason = os.fsdecode(os.path.join(parent, CLAIM_FOLDER)), orphans.strerror
            log.warning("claim folder not read name=%r reason=%s", name, reason)
        else:
            returned += _return_from(root, parent, orphans)
    return returned


def find_orphans(root: Path, unfinished: Iterable[Move], *, deep: bool = True) -> list[bytes]:
    """Return the names, relative to the root, of what :func:`return_orphans` would give back.

    Of a claim folder that cannot be read, its own name is among them.
    """
    found = []
    for parent, orphans in _orphans(root, unfinished, deep=deep):
        folder = os.path.join(parent, CLAIM_FOLDER)
        if isinstance(orphans, OSError):
            found.append(folder)
        else:
            found.extend(os.path.join(folder, claim) for claim in orphans)
    return found


def _orphans(
    root: Path, unfinished: Iterable[Move], *, deep: bool
) -> Iterator[tuple[bytes, list[bytes] | OSError]]:
    """Yield each folder, relative to the root, with the claims in it that nobody knows."""
    known = {b"/".join(_claim_of(move)) for move in unfinished}
    for parent, below in filesystem.walk(root, deep=deep):
        if CLAIM_FOLDER not in below:
            continue
        below.remove(CLAIM_FOLDER)
        folder = os.path.join(parent, CLAIM_FOLDER)
        try:
            claims = os.listdir(os.path.join(os.fsencode(root), folder))
        except OSError as error:
            yield parent, error
            continue
        unknown = (claim for claim in claims if os.path.join(folder, claim) not in known)
        yield parent, sorted(filter(_base_of, unknown))


def _base_of(claim: bytes) -> bytes:
    """Return the name a claimed file had; empty where this is no claim."""
    number, _, base = claim.partition(b"-")
    return base if number.isdigit() else b""


def _return_from(inbox: Path, parent: bytes, orphans: Iterable[bytes]) -> Iterator[bytes]:
    with filesystem.Folders(inbox) as source:
        for claim in orphans:
            try:
                claim_fd = source.fd(os.path.join(parent, CLAIM_FOLDER))
                name = filesystem.return_to(claim_fd, claim, source.fd(parent), _base_of(claim))
            except OSError as error:
                log.error("claim not given back name=%r reason=%s", os.fsdecode(claim), error)
                continue
            yield os.path.join(parent, name)
        with suppress(OSError):
            os.rmdir(CLAIM_FOLDER, dir_fd=source.fd(parent))
