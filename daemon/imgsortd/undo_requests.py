"""The requests of ``imgsortd undo``, answered in the daemon's loop between two batches."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from imgsortd.adapters import fsops
from imgsortd.adapters.mover import Mover
from imgsortd.adapters.store import Store
from imgsortd.config import Config
from imgsortd.core.records import Candidate, Move, MovePhase, MoveResult, Op, Root, Stamp
from imgsortd.decision_requests import DECISIONS
from imgsortd.errors import ImgsortdError, UndoError
from imgsortd.hands import HAND_VERBS
from imgsortd.intake import Intake
from imgsortd.keeping import decide
from imgsortd.reversing import Undo
from imgsortd.undo_job import UndoChoice

log = logging.getLogger(__name__)


class UndoRequests:
    """Takes the requests of ``imgsortd undo`` in the daemon's loop, between two batches.

    Parameters
    ----------
    intake
        Told of files that are back in the inbox, before an event speaks of them.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        mover: Mover,
        intake: Intake,
    ) -> None:
        self._undo = Undo(config, store, mover, self._learn, self._progress)
        self._config, self._store, self._intake = config, store, intake
        self._request_id = 0
        self._answer: tuple[str, dict[str, Any]] | None = None

    def step(self) -> bool:
        """Answer a request if one waits; return whether it left moves to be tried again."""
        control = self._store.control
        if self._answer is not None:  # it could not be stored: the disk was full
            with self._store.atomic():
                control.answer(self._request_id, *self._answer)
            self._answer = None
        verb = control.next_verb()
        if verb in (None, "refit", *DECISIONS, *HAND_VERBS):
            return False
        with self._store.atomic():
            request = control.take(str(verb))
        assert request is not None
        self._request_id = request.request_id
        self._answer = self._do(str(verb), request.params)
        with self._store.atomic():
            control.answer(self._request_id, *self._answer)
        self._answer = None
        return bool(self._store.journal.unfinished())

    def _do(self, verb: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        try:
            if verb == "keep":
                with self._store.atomic():
                    return "done", decide(self._store, params)
            if verb != "undo":
                raise UndoError(f"unknown verb {verb!r}")
            report = self._undo.run(UndoChoice(**params))
        except (ImgsortdError, TypeError) as error:
            log.error("%s failed reason=%s", verb, error)
            return "failed", {"error": str(error)}
        log.info(
            "undone batches=%s made=%s files=%d left=%d",
            report.batches,
            report.made,
            report.undone,
            len(report.left),
        )
        return "done", report.as_dict()

    def _progress(self, text: str) -> None:
        with self._store.atomic():
            self._store.control.progress(self._request_id, text)

    def _learn(self, results: Sequence[MoveResult]) -> None:
        done = [r.move for r in results if r.phase is MovePhase.DONE]
        back = [
            Candidate(move.file_id, move.dst, stamp)
            for move in done
            if move.dst_root is Root.INBOX and (stamp := _look(self._config, move)) is not None
        ]
        left = [m.src for m in done if m.src_root is Root.INBOX and m.op is Op.MOVE]
        self._intake.done(back, left, time.monotonic())


def _look(config: Config, move: Move) -> Stamp | None:
    try:
        return fsops.stamp_of(os.lstat(os.path.join(os.fsencode(config.inbox), move.dst)))
    except OSError:
        return None
