"""A move between two mounts: claim, copy, sync, publish, sync, and only then unlink.

The source is first renamed into ``.imgsortd-claim/`` beside it, a private folder,
under ``<move id>-<name>``. What is unlinked at the end is that claim: a second
upload under the old name is a stranger and is never touched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from imgsortd.adapters import copying, fsops, leases, renaming
from imgsortd.adapters.faults import fault_point
from imgsortd.core.records import Move, MovePhase, MoveResult
from imgsortd.core.routing import NAME_MAX_BYTES

log = logging.getLogger(__name__)

CLAIM_FOLDER = b".imgsortd-claim"


class _CopyJournal(Protocol):
    def mark_copied(self, move_id: int) -> None: ...


class Crossing:
    """Moves from one root to another, across mounts."""

    def __init__(
        self,
        source: fsops.Folders,
        target: fsops.Folders,
        journal: _CopyJournal,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_chunk = on_chunk
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
        if move.phase is MovePhase.COPIED:
            if fsops.holds_bytes(self._target, move.dst, move.stamp.size_bytes, move.sha256):
                return self.finish(move)
            return self.give_back(move, MovePhase.CHANGED)
        fd = self._claim(move)
        if fd is None:
            return self.give_back(move, MovePhase.CHANGED)
        with fsops.closing(fd):
            is_written = leases.writer_of(fd) is leases.Writer.SOME
            if is_written or not self._copy_or_give_back(fd, move):
                return self.give_back(move, MovePhase.CHANGED)
        self._journal.mark_copied(move.move_id)
        fault_point("copied")
        return self.finish(move)

    def _claim(self, move: Move) -> int | None:
        """Claim the source and open the claim; None where it is gone, or not even a file."""
        folder, claim = _claim_of(move)
        parent_fd = self._source.fd(fsops.split(move.src)[0])
        if not self._rename_to_claim(move, parent_fd):
            return None
        fault_point("claimed")
        claim_fd = self._source.fd(folder)
        fsops.sync_folder(claim_fd)
        fsops.sync_folder(parent_fd)
        fault_point("claim_synced")
        try:
            return fsops.open_regular(claim_fd, claim)
        except OSError as error:
            if error.errno not in fsops.NO_FILE:
                raise
            return None

    def _rename_to_claim(self, move: Move, parent_fd: int) -> bool:
        folder, claim = _claim_of(move)
        base = fsops.split(move.src)[1]
        if self.is_begun(move):
            if fsops.is_same_file(parent_fd, base, self._source.fd(folder), claim):
                os.unlink(base, dir_fd=parent_fd)  # linked, but not unlinked before a crash
            return True
        with suppress(FileExistsError):
            os.mkdir(CLAIM_FOLDER, 0o700, dir_fd=parent_fd)
        try:
            renaming.rename(parent_fd, base, self._source.fd(folder), claim)
        except FileNotFoundError:
            if fsops.inode_at(parent_fd, base) is not None:
                raise
            return False
        return True

    def _copy_or_give_back(self, fd: int, move: Move) -> bool:
        """Copy; where that fails (a full disk) the file stands in the inbox again."""
        try:
            return self._copy(fd, move)
        except FileExistsError:
            raise
        except (OSError, copying.StoppedError):
            self.give_back(move, MovePhase.PLANNED)
            raise

    def _copy(self, fd: int, move: Move) -> bool:
        """Copy the claim to its destination; False when its bytes are not the hashed ones."""
        folder, name = fsops.split(move.dst)
        folder_fd = self._target.fd(folder)
        try:
            part = copying.part_of(move.move_id)
            staged = copying.stage(fd, folder_fd, part, move.sha256, self._on_chunk)
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
        fsops.sync_folder(folder_fd)
        fault_point("published_synced")
        return True

    def finish(self, move: Move) -> MoveResult:
        """Drop the claim: what was hashed is under the destination's name, and synced.

        A claim that has grown since goes back to the inbox, as a file of its own.
        """
        folder, claim = _claim_of(move)
        try:
            claim_fd = self._source.fd(folder)
            fd = fsops.open_regular(claim_fd, claim)
        except FileNotFoundError:
            return MoveResult(move, MovePhase.DONE, move.dst)
        with fsops.closing(fd):
            if not fsops.same_content(fd, move):
                return self.give_back(move, MovePhase.DONE)
            fsops.sync_folder(self._target.fd(fsops.split(move.dst)[0]))
            fsops.unlink_if_there(claim_fd, claim)
        fault_point("claim_dropped")
        fsops.sync_folder(claim_fd)
        self._drop_folder(move)
        return MoveResult(move, MovePhase.DONE, move.dst)

    def is_ours(self, move: Move) -> bool:
        """Tell whether the destination may be the copy that was published before a crash.

        A copy has the time of its source; a file of the same bytes that somebody else has
        put there has its own. Where times are not kept, the claim becomes a file beside
        it: rather twice than not at all.
        """
        (folder, claim), (to, name) = _claim_of(move), fsops.split(move.dst)
        try:
            source = os.stat(claim, dir_fd=self._source.fd(folder), follow_symlinks=False)
            copy = os.stat(name, dir_fd=self._target.fd(to), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return source.st_mtime_ns == copy.st_mtime_ns

    def give_back(self, move: Move, phase: MovePhase) -> MoveResult:
        """Rename the claim to where the file stood."""
        folder, claim = _claim_of(move)
        parent, base = fsops.split(move.src)
        try:
            renaming.return_to(self._source.fd(folder), claim, self._source.fd(parent), base)
        except FileNotFoundError:  # neither copy nor claim: its owner took it
            phase = MovePhase.GONE
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


def return_orphans(root: Path, unfinished: Iterable[Move], *, deep: bool = True) -> list[bytes]:
    """Give files in claim folders back whose move nobody knows: the database was lost.

    Parameters
    ----------
    unfinished
        Open moves; their claims are left to recovery.
    deep
        Look into all folders below ``root``, or only into those directly in it.

    Returns
    -------
    list of bytes
        Names, relative to the root, under which the files stand again.
    """
    returned: list[bytes] = []
    for parent, orphans in _orphans(root, unfinished, deep=deep):
        if isinstance(orphans, OSError):  # a stranger's folder
            name, reason = os.fsdecode(os.path.join(parent, CLAIM_FOLDER)), orphans.strerror
            log.warning("claim folder not read name=%r reason=%s", name, reason)
        else:
            returned.extend(_return_from(root, parent, orphans))
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
    for parent in _parents(root, deep=deep):
        folder = os.path.join(parent, CLAIM_FOLDER)
        try:
            claims = os.listdir(os.path.join(os.fsencode(root), folder))
        except OSError as error:
            yield parent, error
            continue
        unknown = [claim for claim in claims if os.path.join(folder, claim) not in known]
        yield parent, sorted(claim for claim in unknown if _base_of(claim))


def _base_of(claim: bytes) -> bytes:
    """Return the name a claimed file had; empty where this is no claim."""
    number, _, base = claim.partition(b"-")
    return base if number.isdigit() else b""


def _parents(root: Path, *, deep: bool) -> Iterator[bytes]:
    """Yield the folders, relative to the root, that a claim folder stands in."""
    for folder, below in fsops.walk(root, deep=deep):
        if CLAIM_FOLDER in below:
            below.remove(CLAIM_FOLDER)
            yield folder


def _return_from(inbox: Path, parent: bytes, orphans: Iterable[bytes]) -> Iterator[bytes]:
    with fsops.Folders(inbox) as source:
        for claim in orphans:
            try:
                claim_fd = source.fd(os.path.join(parent, CLAIM_FOLDER))
                name = renaming.return_to(claim_fd, claim, source.fd(parent), _base_of(claim))
            except OSError as error:
                log.error("claim not given back name=%r reason=%s", os.fsdecode(claim), error)
                continue
            yield os.path.join(parent, name)
        with suppress(OSError):
            os.rmdir(CLAIM_FOLDER, dir_fd=source.fd(parent))
