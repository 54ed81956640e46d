"""Copies and links into target, how they are taken back, and how links of ours move on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from imgsortd.moves import staging
from imgsortd.moves.crossing import CLAIM_FOLDER, claim_of, drop_claim_folder
from imgsortd.moves.ends import Ends, ended, failed
from imgsortd.records import Move, MovePhase, MoveResult, Op, Root
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

CHANGED = "it is no longer what was put there"
SOURCE_GONE = "its source in the inbox is gone or changed"


def take_back(ends: Ends, move: Move) -> MoveResult:
    """Remove a copy or link that was made of a file in the inbox, which has the same bytes.

    It is claimed by a rename first, so that a stranger under its name is never removed.
    """
    folder, name = filesystem.split(move.src)
    try:
        root, folder_fd = ends.src_root(move), ends.source_fd(move)
    except (FileNotFoundError, NotADirectoryError):  # its owner has removed the folder
        return ended(move, MovePhase.DONE if ends.again else MovePhase.GONE)
    in_claims, claim = claim_of(move)
    filesystem.make_folder(folder_fd, CLAIM_FOLDER)
    claim_fd = root.fd(in_claims)
    try:
        _claim(folder_fd, name, claim_fd, claim, move)
    except FileNotFoundError:
        drop_claim_folder(root, folder)
        return ended(move, MovePhase.DONE if ends.again else MovePhase.GONE)
    fault_point("claimed")
    has_source = filesystem.holds_bytes(
        ends.dst_root(move), move.dst, move.stamp.size_bytes, move.sha256
    )
    if has_source and _is_our_copy(ends, claim_fd, claim, move):
        _sync_file(ends, move)
        os.unlink(claim, dir_fd=claim_fd)
        root.touched(folder)
        fault_point("claim_dropped")
        result = ended(move, MovePhase.DONE)
    else:
        filesystem.return_to(claim_fd, claim, folder_fd, name)
        result = ended(move, MovePhase.CHANGED, CHANGED if has_source else SOURCE_GONE)
    drop_claim_folder(root, folder)
    return result


def _claim(folder_fd: int, name: bytes, claim_fd: int, claim: bytes, move: Move) -> None:
    """Rename a copy into the claim folder, unless it is there; FileNotFoundError for none."""
    if filesystem.inode_at(claim_fd, claim) is not None:
        if filesystem.is_same_file(folder_fd, name, claim_fd, claim):
            os.unlink(name, dir_fd=folder_fd)  # linked, not unlinked before a crash
        return  # claimed before a crash; whatever has the name now is another file
    former = staging.part_of(move)  # an older imgsortd claimed it under this name
    is_former = filesystem.inode_at(folder_fd, former) is not None
    filesystem.rename(folder_fd, former if is_former else name, claim_fd, claim)


def _sync_file(ends: Ends, move: Move) -> None:
    """Fsync the source, which is the only one from now on: it may have been written just now."""
    folder, name = filesystem.split(move.dst)
    folder_fd = ends.dst_root(move).fd(folder)
    with filesystem.closing(filesystem.open_regular(folder_fd, name)) as fd:
        os.fsync(fd)
    filesystem.sync_folder(folder_fd)


def _is_our_copy(ends: Ends, folder_fd: int, claim: bytes, move: Move) -> bool:
    if move.op is Op.SYMLINK:
        return _reads_link(folder_fd, claim) == _points_to(ends.dst_root(move), move.dst)
    try:
        fd = filesystem.open_regular(folder_fd, claim)
    except OSError:
        return False
    with filesystem.closing(fd):
        return filesystem.sha256_of(fd) == move.sha256


def _points_to(inbox: filesystem.Folders, name: bytes) -> bytes:
    """Return what a symlink to a file in the inbox holds."""
    return os.path.join(os.fsencode(inbox.root.resolve()), name)


def copy_all(ends: Ends, moves: Sequence[Move]) -> list[MoveResult]:
    """Stage every copy, sync them side by side, then publish each."""
    results: list[MoveResult] = []
    staged: list[tuple[Move, staging.Staged]] = []
    with ExitStack() as stack:
        for move in moves:
            outcome = _stage(ends, move)
            if isinstance(outcome, MoveResult):
                results.append(outcome)
            else:
                stack.callback(staging.discard, outcome)
                staged.append((move, outcome))
            ends.after_each()
        fault_point("staged")
        errors = staging.sync([copy for _, copy in staged])
        fault_point("staged_synced")
        for (move, copy), error in zip(staged, errors, strict=True):
            try:
                results.append(failed(move, error) if error else _publish(ends, move, copy))
            except OSError as publish_error:
                results.append(failed(move, publish_error))
    return results


def _stage(ends: Ends, move: Move) -> staging.Staged | MoveResult:
    try:
        if ends.stopping():
            return ended(move, move.phase)
        if ends.arrived(move):
            return ended(move, MovePhase.DONE)
        fd = ends.open_source(move)
        if fd is None:
            return ended(move, MovePhase.GONE)
        with filesystem.closing(fd):
            folder_fd, _ = ends.destination(move)
            part = staging.part_of(move)
            return staging.stage(fd, folder_fd, part, move.sha256, ends.on_chunk)
    except staging.BytesChangedError:
        return ended(move, MovePhase.CHANGED)
    except staging.GivenUpError:
        return ended(move, move.phase)
    except OSError as error:
        return failed(move, error)


def _publish(ends: Ends, move: Move, copy: staging.Staged) -> MoveResult:
    while True:
        try:
            staging.publish(copy, filesystem.split(move.dst)[1])
            break
        except FileExistsError:
            move = ends.another_name(move)
    fault_point("published")
    return ended(move, MovePhase.DONE)


@contextmanager
def _source(ends: Ends, move: Move) -> Iterator[int | MoveResult]:
    """Open the source; where it is gone or changed, it is the move's end that comes."""
    fd = ends.open_source(move)
    if fd is None:
        yield ended(move, MovePhase.GONE)
        return
    with filesystem.closing(fd):
        yield fd if filesystem.same_content(fd, move) else ended(move, MovePhase.CHANGED)


def hardlink(ends: Ends, move: Move) -> MoveResult:
    """Give the source a second name under target; EXDEV comes with what to do about it."""
    if ends.arrived(move):
        return ended(move, MovePhase.DONE)
    with _source(ends, move) as fd:
        if isinstance(fd, MoveResult):
            return fd
        dst_fd, name = ends.destination(move)
        try:
            filesystem.link(ends.source_fd(move), filesystem.split(move.src)[1], dst_fd, name)
        except FileExistsError:
            return hardlink(ends, ends.another_name(move))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            hint = "op: hardlink needs inbox and target on one filesystem; use copy"
            raise OSError(error.errno, hint) from error
        fault_point("linked")
        if filesystem.inode_at(dst_fd, name) != os.fstat(fd).st_ino:
            os.unlink(name, dir_fd=dst_fd)  # a link to a file swapped in; ours to remove
            return ended(move, MovePhase.CHANGED)
    return ended(move, MovePhase.DONE)


def symlink(ends: Ends, move: Move) -> MoveResult:
    """Let a name under target point to the source."""
    points_to = _points_to(ends.src_root(move), move.src)
    with _source(ends, move) as fd:
        if isinstance(fd, MoveResult):
            return fd
    dst_fd, name = ends.destination(move)
    try:
        os.symlink(points_to, name, dir_fd=dst_fd)
    except FileExistsError:
        if ends.again and _reads_link(dst_fd, name) == points_to:
            return ended(move, MovePhase.DONE)
        if _give_way(ends, move):
            return symlink(ends, move)
        return symlink(ends, ends.another_name(move))
    fault_point("linked")
    return ended(move, MovePhase.DONE)


def _give_way(ends: Ends, move: Move) -> bool:
    """Remove a symlink of ours that leads nowhere from where a new one is to stand.

    It is claimed by a rename first, so that nothing else under its name is removed.
    """
    folder, name = filesystem.split(move.dst)
    root, dst_fd = ends.dst_root(move), ends.destination(move)[0]
    if not _leads_nowhere(ends, dst_fd, name):
        return False
    filesystem.make_folder(dst_fd, CLAIM_FOLDER)
    claim_fd = root.fd(os.path.join(folder, CLAIM_FOLDER))
    claim = move.mark.encode() + b"-" + name[-200:]
    filesystem.rename(dst_fd, name, claim_fd, claim)
    is_ours = _leads_nowhere(ends, claim_fd, claim)
    if is_ours:
        os.unlink(claim, dir_fd=claim_fd)
    else:
        filesystem.return_to(claim_fd, claim, dst_fd, name)
    drop_claim_folder(root, folder)
    return is_ours


def _leads_nowhere(ends: Ends, folder_fd: int, name: bytes) -> bool:
    leads_to = _leads_in(ends, folder_fd, name)
    return leads_to is not None and not os.path.lexists(leads_to)


def _leads_in(ends: Ends, folder_fd: int, name: bytes) -> bytes | None:
    """Return what a symlink holds that leads into an inbox; None where it is none."""
    leads_to = _reads_link(folder_fd, name)
    is_ours = leads_to is not None and any(leads_to.startswith(i + b"/") for i in ends.inboxes)
    return leads_to if is_ours else None


def is_link_of_ours(ends: Ends, move: Move) -> bool:
    """Tell whether a move within target is of a symlink into the inbox, or has brought one."""
    if move.src_root is not Root.TARGET or move.dst_root is not Root.TARGET:
        return False
    return _is_link(ends, move, move.src) or (ends.again and _is_link(ends, move, move.dst))


def _is_link(ends: Ends, move: Move, name: bytes) -> bool:
    """Tell whether a name is the very link, as far as its time and length can say."""
    folder, base = filesystem.split(name)
    try:
        folder_fd = ends.dst_root(move).fd(folder)
        status = os.stat(base, dir_fd=folder_fd, follow_symlinks=False)
    except OSError:
        return False
    stamp = replace(move.stamp, inode=status.st_ino)
    is_ours = _leads_in(ends, folder_fd, base) is not None
    return is_ours and filesystem.stamp_of(status).same_content(stamp)


def move_link(ends: Ends, move: Move) -> MoveResult:
    """Take a symlink of ours to another folder of target; it is the link that is renamed."""
    if not _is_link(ends, move, move.src):
        return ended(move, MovePhase.DONE)
    folder, base = filesystem.split(move.src)
    src_fd = ends.source_fd(move)
    dst_fd, name = ends.destination(move)
    try:
        if ends.again and filesystem.is_same_file(src_fd, base, dst_fd, name):
            os.unlink(base, dir_fd=src_fd)  # linked, not unlinked before a crash
        else:
            filesystem.rename(src_fd, base, dst_fd, name)
    except FileExistsError:
        return move_link(ends, ends.another_name(move))
    ends.dst_root(move).touched(folder)
    fault_point("renamed")
    return ended(move, MovePhase.DONE)


def _reads_link(folder_fd: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=folder_fd)
    except OSError:
        return None
