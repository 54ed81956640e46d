"""Copies and links into target, and what every move needs: its source, its folder, its name."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from imgsortd.adapters import copying, fsops, renaming
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.places import Places, ended, failed
from imgsortd.core.records import Move, MovePhase, MoveResult, Op, Root

CHANGED = "it is no longer what was put there"


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


def is_link_of_ours(places: Places, move: Move) -> bool:
    """Tell whether a move within target is of a symlink into the inbox, or has brought one."""
    if move.src_root is not Root.TARGET or move.dst_root is not Root.TARGET:
        return False
    return _is_link(places, move, move.src) or (places.again and _is_link(places, move, move.dst))


def _is_link(places: Places, move: Move, name: bytes) -> bool:
    """Tell whether a name is the very link, as far as its time and length can say."""
    folder, base = fsops.split(name)
    try:
        folder_fd = places.roots[Root.TARGET].fd(folder)
        status = os.stat(base, dir_fd=folder_fd, follow_symlinks=False)
    except OSError:
        return False
    inbox = os.fsencode(places.roots[Root.INBOX].root.resolve())
    stamp = replace(move.stamp, inode=status.st_ino)
    leads_to = _reads_link(folder_fd, base)
    leads_in = leads_to is not None and leads_to.startswith(inbox + b"/")
    return leads_in and fsops.stamp_of(status).same_content(stamp)


def move_link(places: Places, move: Move) -> MoveResult:
    """Take a symlink of ours to another folder of target; it is the link that is renamed."""
    if not _is_link(places, move, move.src):
        return ended(move, MovePhase.DONE)
    folder, base = fsops.split(move.src)
    src_fd = places.source_fd(move)
    dst_fd, name = places.destination(move)
    try:
        if places.again and fsops.is_same_file(src_fd, base, dst_fd, name):
            os.unlink(base, dir_fd=src_fd)  # linked, not unlinked before a crash
        else:
            renaming.rename(src_fd, base, dst_fd, name)
    except FileExistsError:
        return move_link(places, places.another_name(move))
    places.end(move).touched(folder)
    fault_point("renamed")
    return ended(move, MovePhase.DONE)


def _reads_link(folder_fd: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=folder_fd)
    except OSError:
        return None
