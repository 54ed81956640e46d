"""The requests of ``imgsortd refits accept``, ``reject`` and ``rollback``, in the daemon's loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from imgsortd.adoption import OnMoved
from imgsortd.deciding import Decided, accept, reject, rollback
from imgsortd.errors import ImgsortdError
from imgsortd.library import Library

log = logging.getLogger(__name__)

DECISIONS = ("accept", "reject", "rollback")


class DecisionRequests:
    """Takes a person's word on a fit between two batches.

    Parameters
    ----------
    on_moved
        Told (event, report) of files moved by it.
    on_hold
        Says why no fit may be switched now; empty where one may.
    """

    def __init__(self, library: Library, on_moved: OnMoved, on_hold: Callable[[], str]) -> None:
        self._library, self._on_moved, self._on_hold = library, on_moved, on_hold
        self._answer: tuple[int, str, dict[str, Any]] | None = None

    def step(self) -> bool:
        """Do what is asked for; return whether another fit may be in force now."""
        store = self._library.store
        if self._answer is not None:  # it could not be stored: the disk was full
            self._give_answer()
        verb = store.control.next_verb()
        if verb not in DECISIONS:
            return False
        with store.atomic():
            request = store.control.take(verb)
            assert request is not None
            store.control.progress(request.request_id, f"{verb} under way")
        self._answer = (request.request_id, *self._do(verb, request.params))
        self._give_answer()
        return True

    def _give_answer(self) -> None:
        assert self._answer is not None
        with self._library.store.atomic():
            self._library.store.control.answer(*self._answer)
        self._answer = None

    def _do(self, verb: str, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        reason = self._on_hold()
        if reason:
            return "failed", {"error": f"{reason}; ask again when it is done"}
        try:
            decided = self._decide(verb, params)
        except ImgsortdError as error:
            log.error("decision failed verb=%s reason=%s", verb, error)
            return "failed", {"error": str(error)}
        log.info(
            "fit %s fit=%d in_force=%s moved=%d batch=%s",
            decided.decision,
            decided.fit_id,
            decided.in_force,
            decided.moved,
            decided.batch,
        )
        return "done", decided.as_dict()

    def _decide(self, verb: str, params: dict[str, Any]) -> Decided:
        fit_id, move = params.get("fit_id"), params.get("move")
        if verb == "accept":
            return accept(self._library, fit_id, move=move, on_moved=self._on_moved)
        if verb == "reject":
            return reject(self._library.store, fit_id)
        return rollback(self._library, move=move, on_moved=self._on_moved)
