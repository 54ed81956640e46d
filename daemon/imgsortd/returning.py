"""The way back into the inbox: a move, or, where the source stands there, its copy is removed."""

from __future__ import annotations

from dataclasses import replace

from imgsortd.adapters import fsops
from imgsortd.adapters.mover import NAME_TAKEN
from imgsortd.config import Config
from imgsortd.core.records import Move, Op, Root

NOT_THERE = "it is no longer there"
MOVED_BY_HAND = "its owner has moved it since"
NOT_YET = "not yet: it is tried again"
UNDER_WAY = "a move of it is under way; try again when it is done"


def reversed_ends(move: Move) -> Move:
    """Return a move with its ends exchanged."""
    return replace(move, src_root=move.dst_root, src=move.dst, dst_root=move.src_root, dst=move.src)


def back_to_inbox(config: Config, came: Move) -> Move | str:
    """Return the move that takes back one from the inbox, or why there is none.

    Parameters
    ----------
    came
        The move that has brought the file to where it is, ``came.dst`` below target.
    """
    back = reversed_ends(came)
    if came.op is not Op.MOVE:
        if _has_source(config, came):
            return back
        if came.op is Op.SYMLINK:
            return "its source in the inbox is gone or changed"
        back = replace(back, op=Op.MOVE)
    if fsops.look(config.inbox, back.dst) is not None:
        return NAME_TAKEN
    return back


def is_there(config: Config, root: Root, name: bytes) -> bool:
    """Tell whether something has a name below inbox or target."""
    return fsops.look(config.inbox if root is Root.INBOX else config.target, name) is not None


def _has_source(config: Config, move: Move) -> bool:
    try:
        with fsops.Folders(config.inbox) as inbox:
            return fsops.holds_bytes(inbox, move.src, move.stamp.size_bytes, move.sha256)
    except OSError:  # not to be read: then the copy is kept
        return False
