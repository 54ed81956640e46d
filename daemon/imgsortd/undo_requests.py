"""The requests of ``imgsortd undo``, and to place single files, between two batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from imgsortd.adapters import fsops
from imgsortd.adoption import switch_to
from imgsortd.core.records import Candidate, MovePhase, MoveResult, Op, Root
from imgsortd.decision_requests import DECISIONS
from imgsortd.errors import ImgsortdError, UndoError
from imgsortd.hands import HAND_VERBS
from imgsortd.intake import Intake
from imgsortd.keeping import decide
from imgsortd.library import Library
from imgsortd.placing_requests import PLACING_VERBS, PlacingRequests
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

    def __init__(self, library: Library, intake: Intake) -> None:
        config, store = library.config, library.store
        self._library = library
        self._undo = Undo(config, store, library.mover, self._learn, self._progress)
        self._config, self._store, self._intake = config, store, intake
        self._placing = PlacingRequests(library, intake)
        self._request_id = 0
        self._answer: tuple[str, dict[str, Any]] | None = None

    def step(self, inbox_lost: str) -> bool:
        """Answer a request if one waits; return whether it left moves to be tried again.

        Parameters
        ----------
        inbox_lost
            Why there is no inbox now: then an undo waits, and what is within target does not.
        """
        is_left = self._placing.step(inbox_lost)
        return (not inbox_lost and self._undo_next()) or is_left

    def _undo_next(self) -> bool:
        control = self._store.control
        if self._answer is not None:  # it could not be stored: the disk was full
            with self._store.atomic():
                control.answer(self._request_id, *self._answer)
            self._answer = None
        verb = control.next_verb()
        if verb in (None, "refit", *DECISIONS, *HAND_VERBS, *PLACING_VERBS):
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
        finally:
            self._follow_fit()
        log.info(
            "undone batches=%s made=%s files=%d left=%d",
            report.batches,
            report.made,
            report.undone,
            len(report.left),
        )
        return "done", report.as_dict()

    def _follow_fit(self) -> None:
        """Route by the fit in force: an undo takes one back, also one that came not to its end."""
        current, model = self._store.proposals.current_id(), self._library.model
        if current is not None and model is not None and model.fit_id != current:
            switch_to(self._library, self._store.fits.model(current))

    def _progress(self, text: str) -> None:
        with self._store.atomic():
            self._store.control.progress(self._request_id, text)

    def _learn(self, results: Sequence[MoveResult]) -> None:
        done = [r.move for r in results if r.phase is MovePhase.DONE]
        back = [
            Candidate(move.file_id, move.dst, stamp)
            for move in done
            if move.dst_root is Root.INBOX
            and (stamp := fsops.look(self._config.inbox, move.dst)) is not None
        ]
        left = [m.src for m in done if m.src_root is Root.INBOX and m.op is Op.MOVE]
        self._intake.done(back, left, time.monotonic())
