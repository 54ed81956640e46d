"""The requests ``place`` and ``retry``, answered in the daemon's loop."""

from __future__ import annotations

import logging
import time
from typing import Any

from imgsortd.batch_report import BatchReport
from imgsortd.errors import ImgsortdError, PlacingError
from imgsortd.hand_report import check_ids
from imgsortd.intake import Intake
from imgsortd.library import Library
from imgsortd.placing import place_files
from imgsortd.retrying import Retry

log = logging.getLogger(__name__)

PLACING_VERBS = ("place", "retry")
_AT_ONCE_S = 0.5


def do_placing(
    library: Library, verb: str, params: dict[str, Any]
) -> tuple[dict[str, Any], list[bytes]]:
    """Do what a request asks for; return the answer, and the names that are in the inbox again.

    Raises
    ------
    PlacingError
        The request is not understood, or there is no such destination.
    """
    wanted = {"files", "to"} if verb == "place" else {"files"}
    if not isinstance(params, dict) or params.keys() != wanted:
        raise PlacingError(f"{verb} takes {' and '.join(sorted(wanted))}, got {params!r:.80}")
    files = check_ids(params["files"])
    if verb == "place":
        return place_files(library, files, params["to"]), []
    retry = Retry(library)
    return retry.run(files), retry.back


class PlacingRequests:
    """Takes what a person does with single pictures, one after the other and at once.

    Parameters
    ----------
    intake
        Told of files that are in the inbox again, to be read.
    """

    def __init__(self, library: Library, intake: Intake) -> None:
        self._library, self._intake = library, intake
        self._answer: tuple[int, str, dict[str, Any]] | None = None

    def step(self, inbox_lost: str) -> bool:
        """Answer what waits, for a while; return whether moves are left to be tried again.

        Somebody who reviews presses a key a second, and so often the loop comes by when it is
        idle: what has gathered while a batch was sorted is answered in one go. Only a refit
        is overtaken, which waits for the fit before it, for minutes perhaps.

        Parameters
        ----------
        inbox_lost
            Why there is no inbox now; empty where there is.
        """
        control, until = self._library.store.control, time.perf_counter() + _AT_ONCE_S
        has_done = False
        self._give_answer()  # one that could not be stored: the disk was full
        while not self._library.mover.stopping():
            verb = control.next_verb(but="refit")
            if verb not in PLACING_VERBS:
                break
            self._take(verb, inbox_lost)
            has_done = True
            if time.perf_counter() > until:
                break
        return has_done and bool(self._library.store.journal.unfinished())

    def _take(self, verb: str, inbox_lost: str) -> None:
        store = self._library.store
        with store.atomic():
            request = store.control.take(verb)
        assert request is not None
        self._answer = (request.request_id, *self._do(verb, request.params, inbox_lost))
        self._give_answer()

    def _give_answer(self) -> None:
        if self._answer is None:
            return
        with self._library.store.atomic():
            self._library.store.control.answer(*self._answer)
        self._answer = None

    def _do(self, verb: str, params: dict[str, Any], inbox_lost: str) -> tuple[str, dict[str, Any]]:
        if verb == "retry" and inbox_lost:
            return "failed", {"error": f"{inbox_lost}; ask again when it is there"}
        try:
            result, back = do_placing(self._library, verb, params)
        except ImgsortdError as error:
            log.error("%s failed reason=%s", verb, error)
            return "failed", {"error": str(error)}
        self._intake.learn(BatchReport(look_again=back), time.monotonic())
        return "done", result
