"""Put pictures where a person says: to a cluster, into a folder of one's own, or out of all.

The moves are the journal's; what is kept of them is what a picture gets that was dragged there
in a file manager: it is pinned, and a folder of one's own with enough of them is a cluster.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imgsortd.clusters.in_force import InForce
from imgsortd.config.model import Config
from imgsortd.errors import PlacingError
from imgsortd.moves.copies import CHANGED
from imgsortd.moves.folders import ClusterFolders, inodes_of
from imgsortd.moves.making import Moves
from imgsortd.moves.planning import Planner
from imgsortd.moves.undo import MOVED_BY_HAND, NOT_THERE, NOT_YET, UNDER_WAY
from imgsortd.names import REVIEW_FOLDER, SET_ASIDE_FOLDER, cluster_of, folder_of, folder_problem
from imgsortd.records import Candidate, FileState, Move, MovePhase, Route
from imgsortd.store.database import Store
from imgsortd.store.lookup import Standing
from imgsortd.store.pins import Pin
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point
from imgsortd.target.corrections import PUT_REASON, Corrections, Place, state_in

log = logging.getLogger(__name__)

_PLACEABLE = (FileState.SORTED, FileState.REVIEW, FileState.DUPLICATE)

_NO_CLUSTER = -1
_HOW = '"to" must be {"cluster": N}, {"folder": "NAME"} or {"review": true}'

MOST_FILES = 5_000
_HIGHEST_ID = 2**63 - 1
_ENDS = {MovePhase.GONE: NOT_THERE, MovePhase.CHANGED: CHANGED}


class Placing:
    """Moves pictures to where a person says, and pins them."""

    def __init__(
        self,
        config: Config,
        store: Store,
        in_force: InForce,
        folders: ClusterFolders,
        moves: Moves,
    ) -> None:
        self._config, self._store, self._in_force = config, store, in_force
        self._folders, self._moves = folders, moves
        self._corrections = Corrections(store, in_force, folders)

    def run(self, params: Any) -> dict[str, Any]:
        """Move pictures and pin them; return the answer to the request.

        Parameters
        ----------
        params
            ``files``: rows of files; those that cannot be placed are left, with a reason.
            ``to``: ``{"cluster": 7}``, ``{"folder": "Receipts"}`` or ``{"review": true}``.

        Raises
        ------
        PlacingError
            The request is not understood, or there is no such destination, or it cannot be had.
        """
        file_ids = check_request("place", params, "files", "to")
        self._folders.follow()
        goal = self._destination(params["to"])
        report = RequestReport()
        moves: list[Move] = []
        with self._store.atomic():
            planner = self._moves.planner(self._in_force.fit_id)
            for file_id in file_ids:
                row = self._store.hands.file(file_id)
                reason = self._obstacle(file_id, row)
                stamp = None if row is None else filesystem.look(self._config.target, row.dst)
                if row is None or reason:
                    report.leave(file_id, b"" if row is None else row.dst, reason)
                elif stamp is None:
                    report.leave(file_id, row.dst, MOVED_BY_HAND)
                elif filesystem.split(row.dst)[0] == goal.folder:
                    self._keep(row, goal, report)
                else:
                    candidate = Candidate(file_id, row.dst, stamp)
                    moves.append(self._plan(planner, candidate, row, goal))
                self._moves.mover.after_each()
        fault_point("planned")
        self._moves.make(moves)
        report.count(self._store, moves)
        batch, folder = planner.batch if moves else None, os.fsdecode(goal.folder)
        told = report.done, len(report.left), folder, goal.cluster_id, batch
        log.info("placed files=%d left=%d folder=%r cluster=%s batch=%s", *told)
        return {
            "placed": report.done,
            "batch": batch,
            "cluster": goal.cluster_id,
            "folder": folder,
            "left": report.left,
        }

    def _obstacle(self, file_id: int, row: Standing | None) -> str:
        """Say why a file is not to be moved there; empty where it is."""
        reason = out_of_reach(self._store, file_id, row, "in target")
        if row is None or reason:
            return reason
        if row.state is FileState.COMPANION or row.companion_of is not None:
            return "it goes with its picture"
        if row.state not in _PLACEABLE or filesystem.split(row.dst)[0] == SET_ASIDE_FOLDER:
            return "it is set aside"
        return ""

    def _keep(self, row: Standing, goal: Place, report: RequestReport) -> None:
        """Pin a picture where it stands: whoever says so means it to stay there."""
        pins = self._store.pins
        if pins.get(row.sha256) == Pin(goal.cluster_id):
            report.leave(row.file_id, row.dst, "it is there already")
            return
        pins.put(row.sha256, goal.cluster_id)
        report.done += 1

    def _plan(self, planner: Planner, candidate: Candidate, row: Standing, goal: Place) -> Move:
        state = state_in(goal.kind, row.state)
        route = Route(row.file_id, state, goal.folder, goal.cluster_id, reason=PUT_REASON)
        move = planner.within(candidate, row.sha256, route)
        self._store.pins.note_placing(move, Pin(goal.cluster_id))
        return move

    def _destination(self, to: object) -> Place:
        """Return the folder that a request means; it need not be there yet."""
        if not isinstance(to, dict) or len(to) != 1:
            raise PlacingError(f"{_HOW}, got {to!r}")
        ((key, value),) = to.items()
        if key == "cluster" and type(value) is int:
            folder = self._folder_of_cluster(value)
        elif key == "folder" and isinstance(value, str):
            folder = self._folder_of_name(value)
        elif key == "review" and value is True:
            folder = REVIEW_FOLDER
        else:
            raise PlacingError(f"{_HOW}, got {to!r}")
        _check_place(self._config.target, folder)
        return self._corrections.place(folder)

    def _folder_of_cluster(self, number: int) -> bytes:
        folder = folder_of(number, self._store.records.named_folders())
        if self._corrections.place(folder).number != number or not self._is_known(number):
            raise PlacingError(
                f"there is no cluster {number}; `imgsortd status` lists those there are"
            )
        return folder

    def _is_known(self, number: int) -> bool:
        """Tell whether a cluster is in force, or was and has had files: others are proposed."""
        if self._store.records.is_in_force(number):
            return True
        hands = self._store.hands
        is_known = any(row.cluster_id == number for row in hands.cluster_folders())
        return is_known and hands.is_free_number(number)

    def _folder_of_name(self, name: str) -> bytes:
        """Return the folder of a name: that of the cluster that has it, or a person's own."""
        try:
            folder = os.fsencode(name)
        except UnicodeEncodeError as error:
            raise PlacingError(
                f"the folder must have a name that can be written: {name!a}"
            ) from error
        target, named = self._config.target, self._store.records.named_folders()
        number = cluster_of(folder, named)
        if number is not None and self._is_known(number):
            in_force = self._store.records.is_in_force(number)
            return folder_of(number, named) if in_force else folder
        if problem := folder_problem(folder, _NO_CLUSTER, named):
            raise PlacingError(f"the name of a folder {problem}: {name!r}")
        return _as_spelled(target, folder)


def _as_spelled(target: Path, folder: bytes) -> bytes:
    """Return a folder's name as it stands, where upper and lower case are one to the target."""
    try:
        inode = os.lstat(os.path.join(os.fsencode(target), folder)).st_ino
        inodes = inodes_of(target)
    except OSError:
        return folder
    if folder in inodes:
        return folder
    return next((name for name, other in inodes.items() if other == inode), folder)


def _check_place(target: Path, folder: bytes) -> None:
    """Refuse what no move could be made into: its row would stay open for good."""
    if not target.is_dir():
        raise PlacingError(f"target {target} is not there; mount it, and ask again")
    try:
        mode = os.lstat(os.path.join(os.fsencode(target), folder)).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlacingError(f"{target / os.fsdecode(folder)}: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise PlacingError(
            f"{target / os.fsdecode(folder)}: is no folder, but a file or a link; choose another "
            f"name, or move that away first"
        )


def check_request(verb: str, params: Any, *wanted: str) -> list[int]:
    """Return the rows that a request names, each once; it has what is wanted, and no more.

    Raises
    ------
    PlacingError
        It has not, or ``files`` is no list of numbers, or one that is empty or too long.
    """
    if not isinstance(params, dict) or params.keys() != set(wanted):
        raise PlacingError(f"{verb} takes {' and '.join(wanted)}, got {params!r:.80}")
    files = params["files"]
    if not isinstance(files, list) or not all(map(_is_id, files)):
        text = repr(files)
        shown = text if len(text) <= 80 else f"{text[:80]}…"
        raise PlacingError(f"files must be a list of file numbers, got {shown}")
    if not 0 < len(files) <= MOST_FILES:
        raise PlacingError(f"files must name 1 to {MOST_FILES:,} files, got {len(files):,}")
    return list(dict.fromkeys(files))


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value <= _HIGHEST_ID


def out_of_reach(store: Store, file_id: int, row: Standing | None, where: str) -> str:
    """Say why nothing can be done with a file that should be there; empty where something can."""
    if store.journal.is_moving(file_id):
        return UNDER_WAY
    if row is not None:
        return ""
    state = store.files.state_of(file_id)
    return "there is no such file" if state is None else f"it is not {where} ({state})"


@dataclass(slots=True)
class RequestReport:
    """What has become of the files so far: how many were moved, and which stay where they are."""

    done: int = 0
    left: list[dict[str, Any]] = field(default_factory=list)  # ``id``, ``file``, ``reason``

    def leave(self, file_id: int, place: bytes, reason: str) -> None:
        """Note a file that is left, and why."""
        self.left.append({"id": file_id, "file": os.fsdecode(place), "reason": reason})

    def count(self, store: Store, moves: Sequence[Move]) -> None:
        """Note what has become of planned moves, as their rows say."""
        for move in moves:
            phase, error = store.journal.end_of(move.move_id)
            if phase is MovePhase.DONE:
                self.done += 1
                continue
            reason = f"{NOT_YET} ({error})" if error else NOT_YET
            if phase in _ENDS:
                reason = error or _ENDS[phase]
            self.leave(move.file_id, move.src, reason)
