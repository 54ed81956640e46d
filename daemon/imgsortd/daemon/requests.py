"""The desk of requests: what commands and the page ask of the daemon, done between two batches.

Each verb has one row in a table, which says what is done and what it waits for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from imgsortd.errors import ImgsortdError, RequestError
from imgsortd.inbox.intake import Intake
from imgsortd.library import Library
from imgsortd.moves.undo import Undo, UndoChoice
from imgsortd.records import BatchReport, Candidate, MovePhase, MoveResult, Op, Root
from imgsortd.refits.adopting import OnMoved
from imgsortd.refits.background import Asked, BackgroundFits
from imgsortd.refits.decisions import Decisions, reject
from imgsortd.store.control import Request
from imgsortd.system import filesystem
from imgsortd.target.choices import keep_alike, unpin_files
from imgsortd.target.placing import Placing
from imgsortd.target.retry import Retry

log = logging.getLogger(__name__)

_AT_ONCE_S = 0.5


class WithoutInbox(Enum):
    """What becomes of a request while there is no inbox."""

    DONE = "done"
    WAITS = "waits"  # and all that were asked after it
    REFUSED = "refused"


class OfFits(Enum):
    """What a request has to do with fits."""

    NOTHING = "nothing"
    DECIDES = "decides"  # refused while features are made anew
    MAKES = "makes one"  # so is this, and while files follow; it waits for the fit before it


@dataclass(frozen=True, slots=True)
class Verb:
    """How the requests of one kind are taken."""

    do: Callable[[Desk, Request], dict[str, Any] | None]  # None: the end of a fit gives the answer
    without_inbox: WithoutInbox = WithoutInbox.DONE
    of_fits: OfFits = OfFits.NOTHING
    needs_target: bool = False
    overtakes_refit: bool = False  # those that wait for the fit before them, for minutes perhaps
    progress: str = ""  # told of it as it is taken
    failed: str = "%s failed reason=%s"  # the line of the log


class Desk:
    """Takes requests in the loop, also while sorting is on hold, and answers each once.

    Parameters
    ----------
    intake
        Told of files that are in the inbox again, before an event speaks of them.
    fits
        Makes the fits that are asked for, and says why none may be switched.
    decisions
        Accepts, and rolls back.
    on_moved
        Told (event, report) of files that followed a decision.
    """

    def __init__(
        self,
        library: Library,
        intake: Intake,
        fits: BackgroundFits,
        decisions: Decisions,
        on_moved: OnMoved,
    ) -> None:
        self.library, self.intake = library, intake
        self.fits, self.decisions, self.on_moved = fits, decisions, on_moved
        self._control = library.store.control
        self._answers: dict[int, tuple[str, dict[str, Any]]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything but a fit that is being made."""
        return not self._answers and self._control.next_verb() is None

    def step(self, inbox_lost: str) -> bool:
        """Answer what waits, for a while; return whether anything did.

        Somebody who reviews presses a key a second, and so often the loop comes by when it is
        idle: what has gathered while a batch was sorted is answered in one go. ``inbox_lost``
        says why there is no inbox now; it is empty where there is.
        """
        until, has_taken = time.perf_counter() + _AT_ONCE_S, False
        self._give_answers()
        while not self.library.mover.stopping() and (verb := self._next(inbox_lost)):
            self._take(verb, inbox_lost)
            has_taken = True
            if time.perf_counter() > until:
                break
        return has_taken

    def tell(self, request_id: int, text: str) -> None:
        """Say how far a request has come."""
        with self.library.store.atomic():
            self._control.progress(request_id, text)

    def answer(self, request_id: int, state: str, result: dict[str, Any]) -> None:
        """End a request: ``done`` or ``failed``; kept for a later step where the disk is full."""
        self._answers[request_id] = (state, result)
        self._give_answers()

    def _give_answers(self) -> None:
        while self._answers:
            request_id, answer = next(iter(self._answers.items()))
            with self.library.store.atomic():
                self._control.answer(request_id, *answer)
            del self._answers[request_id]

    def _next(self, inbox_lost: str) -> str | None:
        """Return the verb that is to be taken now; None where none waits, or the first one must."""
        name = self._control.next_verb(but="refit")
        if name is None or not _verb(name).overtakes_refit:
            name = self._control.next_verb()
        if name is None:
            return None
        verb = _verb(name)
        waits_for_inbox = bool(inbox_lost) and verb.without_inbox is WithoutInbox.WAITS
        waits_for_fit = verb.of_fits is OfFits.MAKES and self.fits.is_fitting
        return None if waits_for_inbox or waits_for_fit else name

    def _take(self, name: str, inbox_lost: str) -> None:
        verb, control = _verb(name), self._control
        with self.library.store.atomic():
            request = control.take(name)
            assert request is not None
            if verb.progress:
                control.progress(request.request_id, verb.progress)
        if refusal := self._refusal(verb, inbox_lost):
            self.answer(request.request_id, "failed", {"error": refusal})
            return
        try:
            result = verb.do(self, request)
        except (ImgsortdError, TypeError) as error:
            log.error(verb.failed, name, error)
            self.answer(request.request_id, "failed", {"error": str(error)})
        else:
            if result is not None:
                self.answer(request.request_id, "done", result)

    def _refusal(self, verb: Verb, inbox_lost: str) -> str:
        """Say why a request is not done now; empty where it is."""
        if inbox_lost and verb.without_inbox is WithoutInbox.REFUSED:
            return f"{inbox_lost}; ask again when it is there"
        if verb.needs_target and (lost := self.library.roots.look_at_target()):
            return f"{lost}; ask again when it is there"
        hold = ""
        if verb.of_fits is OfFits.DECIDES:
            hold = self.fits.on_hold()
        elif verb.of_fits is OfFits.MAKES:
            hold = self.fits.obstacle(time.monotonic())
        return f"{hold}; ask again when it is done" if hold else ""


# --- what is done ------------------------------------------------------------------------


def do_placing(
    library: Library, verb: str, params: dict[str, Any]
) -> tuple[dict[str, Any], list[bytes]]:
    """Do what ``place`` or ``retry`` asks for; return the answer, and what is in the inbox again.

    Raises
    ------
    PlacingError
        The request is not understood, or there is no such destination.
    """
    config, store, moves = library.config, library.store, library.moves
    if verb == "retry":
        retry = Retry(config, store, moves)
        return retry.run(params), retry.back
    return Placing(config, store, library.in_force, library.folders, moves).run(params), []


def _place(desk: Desk, request: Request) -> dict[str, Any]:
    result, back = do_placing(desk.library, request.verb, request.params)
    desk.intake.learn(BatchReport(look_again=tuple(back)), time.monotonic())
    return result


def _undo(desk: Desk, request: Request) -> dict[str, Any]:
    library = desk.library
    on_moved = partial(_learn_of_undone, desk.intake, library)
    progress = partial(desk.tell, request.request_id)
    try:
        undo = Undo(library.store, library.moves, on_moved, progress)
        report = undo.run(UndoChoice(**request.params))
    finally:
        _follow_fit(library)
    counts = report.undone, len(report.left)
    log.info("undone batches=%s made=%s files=%d left=%d", report.batches, report.made, *counts)
    return report.as_dict()


def _learn_of_undone(intake: Intake, library: Library, results: Sequence[MoveResult]) -> None:
    done = [r.move for r in results if r.phase is MovePhase.DONE]
    back = [
        Candidate(move.file_id, move.dst, stamp)
        for move in done
        if move.dst_root is Root.INBOX
        and (stamp := filesystem.look(library.config.inbox, move.dst)) is not None
    ]
    left = [m.src for m in done if m.src_root is Root.INBOX and m.op is Op.MOVE]
    intake.done(back, left, time.monotonic())


def _follow_fit(library: Library) -> None:
    """Route by the fit in force: an undo takes one back, also one that came not to its end."""
    current, model = library.store.records.current_id(), library.in_force.model
    if current is not None and model is not None and model.fit_id != current:
        library.in_force.switch(library.store.fits.model(current))


def _rename_or_unpin(desk: Desk, request: Request) -> dict[str, Any]:
    library, params = desk.library, request.params
    if request.verb == "rename":
        result = library.folders.rename(**params)
    else:
        result = unpin_files(library.store, **params)
    log.info("%s done result=%s", request.verb, result)
    return result


def _keep(desk: Desk, request: Request) -> dict[str, Any]:
    return keep_alike(desk.library.store, request.params)


def _decide(desk: Desk, request: Request) -> dict[str, Any]:
    fit_id, move = request.params.get("fit_id"), request.params.get("move")
    try:
        if request.verb == "accept":
            decided = desk.decisions.accept(fit_id, move=move, on_moved=desk.on_moved)
        elif request.verb == "reject":
            decided = reject(desk.library.store, fit_id)
        else:
            decided = desk.decisions.rollback(move=move, on_moved=desk.on_moved)
    finally:
        desk.fits.count_anew()
    told = decided.decision, decided.fit_id, decided.in_force, decided.moved, decided.batch
    log.info("fit %s fit=%d in_force=%s moved=%d batch=%s", *told)
    return decided.as_dict()


def _refit(desk: Desk, request: Request) -> None:
    number = request.request_id
    asked = Asked(request.params, partial(desk.tell, number), partial(desk.answer, number))
    desk.fits.ask(asked, time.monotonic())


def _refuse(_desk: Desk, request: Request) -> None:
    raise RequestError(f"unknown verb {request.verb!r}")


_FAILED = "decision failed verb=%s reason=%s"
_decision = partial(Verb, _decide, of_fits=OfFits.DECIDES, needs_target=True, failed=_FAILED)
_VERBS = {
    "place": Verb(_place, needs_target=True, overtakes_refit=True),
    "retry": Verb(_place, WithoutInbox.REFUSED, needs_target=True, overtakes_refit=True),
    "undo": Verb(_undo, WithoutInbox.WAITS, needs_target=True),
    "rename": Verb(_rename_or_unpin, needs_target=True),
    "unpin": Verb(_rename_or_unpin),
    "keep": Verb(_keep),
    "accept": _decision(progress="accept under way"),
    "reject": _decision(progress="reject under way"),
    "rollback": _decision(progress="rollback under way"),
    "refit": Verb(_refit, of_fits=OfFits.MAKES, progress="fitting"),
}
_UNKNOWN = Verb(_refuse)


def _verb(name: str) -> Verb:
    return _VERBS.get(name, _UNKNOWN)
