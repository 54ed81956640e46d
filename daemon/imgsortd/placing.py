"""Put pictures where a person says: to a cluster, into a folder of one's own, or out of all.

The moves are the journal's; what is kept of them is what a picture gets that was dragged there
in a file manager: it is pinned, and a folder of one's own with enough of them is a cluster.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from imgsortd.adapters import fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.store_hands import Standing
from imgsortd.adapters.store_pins import Pin
from imgsortd.batch_report import BatchReport
from imgsortd.core.hands import PUT_REASON, state_in
from imgsortd.core.records import Candidate, FileState, Move, Route
from imgsortd.core.routing import SET_ASIDE_FOLDER
from imgsortd.destinations import Destination, find_destination
from imgsortd.hand_report import HandReport
from imgsortd.library import Library
from imgsortd.pipeline import make_moves, planner_of
from imgsortd.planning import Planner
from imgsortd.returning import MOVED_BY_HAND, UNDER_WAY

log = logging.getLogger(__name__)

_PLACEABLE = (FileState.SORTED, FileState.REVIEW, FileState.DUPLICATE)


def place_files(library: Library, file_ids: Sequence[int], to: object) -> dict[str, Any]:
    """Move pictures and pin them; return the answer to the request.

    Parameters
    ----------
    file_ids
        Rows of files; those that cannot be placed are left, with a reason.
    to
        ``{"cluster": 7}``, ``{"folder": "Receipts"}`` or ``{"review": true}``.

    Raises
    ------
    PlacingError
        There is no such destination, or it cannot be had.
    """
    library.folders.follow()
    goal, report = find_destination(library, to), HandReport()
    moves: list[Move] = []
    with library.store.atomic():
        planner = planner_of(library)
        for file_id in file_ids:
            row = library.store.hands.file(file_id)
            reason = _obstacle(library, file_id, row)
            stamp = None if row is None else fsops.look(library.config.target, row.dst)
            if row is None or reason:
                report.leave(file_id, b"" if row is None else row.dst, reason)
            elif stamp is None:
                report.leave(file_id, row.dst, MOVED_BY_HAND)
            elif fsops.split(row.dst)[0] == goal.folder:
                _keep(library, row, goal, report)
            else:
                candidate = Candidate(file_id, row.dst, stamp)
                moves.append(_plan(library, planner, candidate, row, goal))
            library.mover.after_each()
    fault_point("planned")
    make_moves(library, moves, BatchReport(batch=planner.batch, images=len(moves)))
    report.count(library.store, moves)
    batch, folder = planner.batch if moves else None, os.fsdecode(goal.folder)
    log.info(
        "placed files=%d left=%d folder=%r cluster=%s batch=%s",
        report.done,
        len(report.left),
        folder,
        goal.cluster_id,
        batch,
    )
    return {
        "placed": report.done,
        "batch": batch,
        "cluster": goal.cluster_id,
        "folder": folder,
        "left": report.left,
    }


def _obstacle(library: Library, file_id: int, row: Standing | None) -> str:
    """Say why a file is not to be moved there; empty where it is."""
    if library.store.journal.is_moving(file_id):
        return UNDER_WAY
    if row is None:
        state = library.store.placings.state_of(file_id)
        return "there is no such file" if state is None else f"it is not in target ({state})"
    folder = fsops.split(row.dst)[0]
    if row.state is FileState.COMPANION or row.companion_of is not None:
        return "it goes with its picture"
    if row.state not in _PLACEABLE or folder == SET_ASIDE_FOLDER:
        return "it is set aside"
    return ""


def _keep(library: Library, row: Standing, goal: Destination, report: HandReport) -> None:
    """Pin a picture where it stands: whoever says so means it to stay there."""
    pins = library.store.pins
    if pins.get(row.sha256) == Pin(goal.cluster_id):
        report.leave(row.file_id, row.dst, "it is there already")
        return
    pins.put(row.sha256, goal.cluster_id)
    report.done += 1


def _plan(
    library: Library, planner: Planner, candidate: Candidate, row: Standing, goal: Destination
) -> Move:
    state = state_in(goal.kind, row.state)
    route = Route(row.file_id, state, goal.folder, goal.cluster_id, reason=PUT_REASON)
    move = planner.within(candidate, row.sha256, route)
    library.store.placings.note(move, Pin(goal.cluster_id))
    return move
