"""A move between two mounts: claim, copy, sync, publish, sync, and only then unlink.

The source is first renamed into ``.imgsortd-claim/`` beside it, a private folder,
under ``<mark>-<name>``. What is unlinked at the end is that claim: a second
upload under the old name is a stranger and is never touched. The mark tells the library
and the move: what another library has claimed is left to that.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from imgsortd.moves import staging
from imgsortd.moves.ends import NAME_TAKEN, Ends, ended
from imgsortd.names import NAME_MAX_BYTES
from imgsortd.records import Move, MovePhase, MoveResult, Root
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

log = logging.getLogger(__name__)

CLAIM_FOLDER = b".imgsortd-claim"
_CLAIM = re.compile(rb"(?:m([0-9a-f]{8})-[0-9a-f]{16}|[0-9]+)-(.+)", re.DOTALL)


class Crossing:
    """One move from one root to another, across mounts."""

    def __init__(self, ends: Ends, move: Move) -> None:
        self._ends = ends
        self._source, self._target = ends.src_root(move), ends.dst_root(move)
        self._parent, self._base = filesystem.split(move.src)
        self._folder, self._claim = claim_of(move)
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
            part = staging.part_of(self.move)
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
        drop_claim_folder(self._source, self._parent)


def drop_claim_folder(root: filesystem.Folders, parent: bytes) -> None:
    """Remove the claim folder of a folder, unless other claims are still in it."""
    with suppress(OSError):
        os.rmdir(CLAIM_FOLDER, dir_fd=root.fd(parent))
        # A later move must not find the descriptor of the removed folder.
        root.close(os.path.join(parent, CLAIM_FOLDER))


def claim_of(move: Move) -> tuple[bytes, bytes]:
    """Return the claim folder of a move, relative to its root, and the claim's name in it."""
    parent, base = filesystem.split(move.src)
    mark = move.mark.encode() + b"-"
    return os.path.join(parent, CLAIM_FOLDER), mark + base[-(NAME_MAX_BYTES - len(mark)) :]


@dataclass(frozen=True, slots=True)
class Known:
    """What tells a claim that nobody will come for.

    Parameters
    ----------
    unfinished
        Open moves; their claims are left to recovery.
    is_ours
        Tells of the first digits of a library's id whether it is this one, or one that it has
        taken over.
    """

    unfinished: Sequence[Move]
    is_ours: Callable[[bytes], bool]

    def names(self) -> set[bytes]:
        """Return the claims of the open moves, by the whole name."""
        return {b"/".join(claim_of(move)) for move in self.unfinished}


def return_orphans(root: Path, known: Known, *, deep: bool = True) -> list[bytes]:
    """Give files in claim folders back whose move nobody knows: the database was lost.

    Returns the names, relative to the root, under which they stand again.

    Parameters
    ----------
    deep
        Look into all folders below ``root``, or only into those directly in it.
    """
    returned: list[bytes] = []
    for parent, orphans in _orphans(root, known, deep=deep):
        if isinstance(orphans, OSError):  # a stranger's folder
            name, reason = os.fsdecode(os.path.join(parent, CLAIM_FOLDER)), orphans.strerror
            log.warning("claim folder not read name=%r reason=%s", name, reason)
        else:
            returned += _return_from(root, parent, orphans)
    return returned


def find_orphans(root: Path, known: Known, *, deep: bool = True) -> list[bytes]:
    """Return the names, relative to the root, of what :func:`return_orphans` would give back.

    Of a claim folder that cannot be read, its own name is among them.
    """
    found = []
    for parent, orphans in _orphans(root, known, deep=deep):
        folder = os.path.join(parent, CLAIM_FOLDER)
        if isinstance(orphans, OSError):
            found.append(folder)
        else:
            found.extend(os.path.join(folder, claim) for claim in orphans)
    return found


def find_claims_of_others(root: Path, known: Known) -> list[bytes]:
    """Return the names, relative to the root, of what moves of other libraries have hidden."""
    return [
        os.path.join(parent, CLAIM_FOLDER, claim)
        for parent, claims in _claims(root, deep=True)
        if not isinstance(claims, OSError)
        for claim in claims
        if (library := _parts_of(claim)[0]) and not known.is_ours(library)
    ]


def _orphans(
    root: Path, known: Known, *, deep: bool
) -> Iterator[tuple[bytes, list[bytes] | OSError]]:
    """Yield each folder, relative to the root, with the claims in it that nobody knows."""
    open_claims = known.names()

    def is_orphan(folder: bytes, claim: bytes) -> bool:
        library = _parts_of(claim)[0]
        is_ours = bool(_parts_of(claim)[1]) and (not library or known.is_ours(library))
        return is_ours and os.path.join(folder, claim) not in open_claims

    for parent, claims in _claims(root, deep=deep):
        if isinstance(claims, OSError):
            yield parent, claims
        else:
            folder = os.path.join(parent, CLAIM_FOLDER)
            yield parent, sorted(claim for claim in claims if is_orphan(folder, claim))


def _claims(root: Path, *, deep: bool) -> Iterator[tuple[bytes, list[bytes] | OSError]]:
    """Yield each folder, relative to the root, with all that is in its claim folder."""
    for parent, below in filesystem.walk(root, deep=deep):
        if CLAIM_FOLDER not in below:
            continue
        below.remove(CLAIM_FOLDER)
        try:
            claims = os.listdir(os.path.join(os.fsencode(root), parent, CLAIM_FOLDER))
        except OSError as error:
            yield parent, error
            continue
        yield parent, claims


def _parts_of(claim: bytes) -> tuple[bytes, bytes]:
    """Return the first digits of its library's id, and the name that a claimed file had.

    The first is empty for a claim of an older imgsortd, both where this is no claim.
    """
    match = _CLAIM.fullmatch(claim)
    return (b"", b"") if match is None else (match[1] or b"", match[2])


def _return_from(inbox: Path, parent: bytes, orphans: Iterable[bytes]) -> Iterator[bytes]:
    with filesystem.Folders(inbox) as source:
        for claim in orphans:
            try:
                claim_fd = source.fd(os.path.join(parent, CLAIM_FOLDER))
                name = filesystem.return_to(claim_fd, claim, source.fd(parent), _parts_of(claim)[1])
            except OSError as error:
                log.error("claim not given back name=%r reason=%s", os.fsdecode(claim), error)
                continue
            yield os.path.join(parent, name)
        with suppress(OSError):
            os.rmdir(CLAIM_FOLDER, dir_fd=source.fd(parent))
