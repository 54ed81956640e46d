"""Fits in the background of routing: one at a time, in a thread that only reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from imgsortd.adapters.store_control import Request
from imgsortd.adoption import (
    FitSummary,
    OnMoved,
    make_following,
    propose_change,
    settle_fit,
)
from imgsortd.core.lifecycle import (
    Arrivals,
    FitFacts,
    FitTrigger,
    fit_age_s,
    fit_due,
    sees_all,
)
from imgsortd.core.records import REBUILT, FitState
from imgsortd.decision_requests import DecisionRequests
from imgsortd.errors import ImgsortdError, StoreDamagedError
from imgsortd.fit_jobs import Job, Progress, begin
from imgsortd.fits import Fitted, compute_fit, fit_source
from imgsortd.library import Library
from imgsortd.partial_fits import PartialFit, PartialSource, compute_partial
from imgsortd.partials import Partials

log = logging.getLogger(__name__)

_CHECK_EVERY_S = 0.5
_ADOPT_AGAIN_S = 5.0
_AFTER_FAILURE_S = 60.0
_SHOW_EVERY_S = 1.0
_LOG_EVERY_S = 10.0
_GROWN_WAITS_S = 86_400.0


class BackgroundFits:
    """Starts fits when they are due or asked for, and adopts them when they are done.

    Parameters
    ----------
    on_moved
        Told (event, report) of files that followed a fit.
    on_error
        Told (event, detail) of a fit that could not be made.
    on_hold
        Says why no fit may be made now; empty where one may.
    arrivals
        Says what the inbox is at, at a time (monotonic seconds).

    Attributes
    ----------
    rule
        When a fit is due, and how long it waits for the inbox to be quiet.
    """

    def __init__(
        self,
        library: Library,
        on_moved: OnMoved,
        on_error: Callable[[str, str], None],
        on_hold: Callable[[], str] = lambda: "",
        arrivals: Callable[[float], Arrivals] = lambda _: Arrivals(),
    ) -> None:
        config = library.config
        self._library = library
        self._on_moved = on_moved
        self._on_error = on_error
        self._on_hold = on_hold
        self._arrivals = arrivals
        self.rule = config.refit_rule
        self._due_since_s: float | None = None
        self._follows_since_s: float | None = None
        self._decisions = DecisionRequests(library, on_moved, on_hold)
        self._partials = Partials(library)
        self._job: Job | None = None
        self._next_step_s = 0.0
        self._next_auto_s = 0.0
        self._facts = FitFacts(0)
        self._is_measured = False
        self._counted_from: float | None = None
        self._count()

    def heard_of(self, images: int) -> None:
        """Learn that so many pictures got features; the store counts them only when it matters."""
        self._facts = replace(self._facts, n_features=self._facts.n_features + images)
        self._is_measured = False

    @property
    def is_fitting(self) -> bool:
        """Whether a fit is being made, beside the clusters in force at its start."""
        return self._job is not None

    def wait(self) -> None:
        """Wait until the fit that is being made is done; for who drives this on a clock made up."""
        if self._job is not None:
            self._job.future.exception()

    def is_quiet(self, now_s: float) -> bool:
        """Tell whether no fit is being made, due or asked for; one that failed waits."""
        if self._job is not None or self._library.store.control.next_verb():
            return False
        if now_s < self._next_auto_s or self._follows(now_s):
            return True
        return self._due() is None and self._partials.due() is None

    def step(self, now_s: float) -> bool:
        """Adopt a finished fit, or start one; return whether there is a new model."""
        if self._decisions.step():
            self._count()
            return True
        if self._job and not self._job.future.done():
            self._show_progress(self._job, now_s)
            return False
        if now_s < self._next_step_s:
            return False
        if self._job is None:
            self._next_step_s = now_s + _CHECK_EVERY_S
            self._start_what_is_due(now_s)
            return False
        # Should the state disk be full, the fit is kept and adopted by a later step.
        self._next_step_s = now_s + _ADOPT_AGAIN_S
        is_new = self._end(self._job, now_s)
        self._job, self._next_step_s = None, now_s
        return is_new

    def _start_what_is_due(self, now_s: float) -> None:
        request = self._take_request()
        reason = self._on_hold() or self._follows(now_s)
        if reason:
            if request is not None:
                error = {"error": f"{reason}; ask again when it is done"}
                with self._library.store.atomic():
                    self._library.store.control.answer(request.request_id, "failed", error)
            return
        if request is not None:
            self._start(now_s, FitTrigger.REQUEST, request)
            return
        if now_s < self._next_auto_s:
            return
        if self._due() is not None:
            self._count()  # the running count knows nothing of files taken away
        trigger = self._due()
        partial = self._partials.due() if trigger is None else None
        if trigger is None and partial is None:
            self._due_since_s = None
        elif not self._is_time(now_s):
            return
        elif partial is not None:
            self._start_partial(now_s, partial)
        elif trigger is not None:
            self._start(now_s, trigger)

    def _follows(self, now_s: float) -> str:
        """Say that files still follow the fit in force; empty where all have.

        For one that can't be moved, fits wait no longer than for arrivals that never end.
        """
        still = self._library.store.proposals.count_following()
        if not still:
            self._follows_since_s = None
            return ""
        if self._follows_since_s is None:
            self._follows_since_s = now_s
        if now_s - self._follows_since_s >= self.rule.wait_most_s:
            return ""
        return f"{still:,} files still follow the fit in force"

    def _is_time(self, now_s: float) -> bool:
        """Tell whether a fit that is due would see all there is, or has waited long enough."""
        library = self._library
        if library.model is not None and library.store.files.waiting(1):
            return False  # they are on their way to the fit in force
        if library.former is not None or sees_all(self.rule, self._arrivals(now_s)):
            return True
        if self._due_since_s is None:
            self._due_since_s = now_s
        drift = self._facts.drift
        is_held = drift is None or not drift.drowns  # review fills up: no day is waited then
        maturity = library.maturity()
        is_grown = maturity is not None and not maturity.is_young
        most_s = _GROWN_WAITS_S if is_grown and is_held else self.rule.wait_most_s
        return now_s - self._due_since_s >= most_s

    def _due(self) -> FitTrigger | None:
        former = self._library.former
        if former is not None:
            if former.extractor.weights_digest != REBUILT:
                return FitTrigger.BACKBONE
            enough = self._facts.n_features >= self.rule.min_images
            return FitTrigger.REBUILD if enough else None
        age_s = None if self._counted_from is None else fit_age_s(self._counted_from, time.time())
        return fit_due(self.rule, replace(self._measured(), fit_age_s=age_s))

    def _measured(self) -> FitFacts:
        """Return the facts, with the drift of the latest arrivals as they are now."""
        window = self._library.config.refit.drift
        if not self._is_measured and window is not None:
            drift = self._library.store.proposals.drift(window)
            self._facts = replace(self._facts, drift=drift)
        self._is_measured = True
        return self._facts

    def _count(self) -> None:
        fits = self._library.store.fits
        self._facts, self._is_measured = fits.facts(), False
        base = self._library.store.proposals.base()
        self._counted_from = None if base is None else base.at

    def _take_request(self) -> Request | None:
        control = self._library.store.control
        if control.next_verb() != "refit":
            return None
        with self._library.store.atomic():
            request = control.take("refit")
            if request is not None:
                control.progress(request.request_id, "fitting")
        return request

    def _start(self, now_s: float, trigger: FitTrigger, request: Request | None = None) -> None:
        clusters = self._library.config.clusters
        asked = request.params.get("n_clusters") if request else None
        n_clusters, seed = asked or clusters.wanted, clusters.random_state
        source = fit_source(self._library, self._library.start())
        progress = Progress(now_s, _LOG_EVERY_S)
        self._due_since_s = None
        log.info(
            "fit started trigger=%s images=%d clusters=%s start=%s",
            trigger,
            source.n_images,
            asked or clusters.n_clusters,
            source.start,
        )
        future = begin(lambda: compute_fit(source, n_clusters, seed, progress.tell))
        self._job = Job(trigger, future, progress, self._library.model, request)

    def _start_partial(self, now_s: float, source: PartialSource) -> None:
        self._partials.tried(source)
        log.info(
            "change looked for trigger=%s cluster=%s images=%d",
            source.trigger,
            source.cluster_id,
            source.images,
        )
        future = begin(lambda: compute_partial(source))
        self._job = Job(source.trigger, future, Progress(now_s, _LOG_EVERY_S), self._library.model)

    def _show_progress(self, job: Job, now_s: float) -> None:
        """Write how far a long fit is, for the command that waits, and now and then to the log."""
        progress, text = job.progress, job.progress.text
        if text == progress.shown or now_s < progress.next_row_s:
            return
        progress.shown, progress.next_row_s = text, now_s + _SHOW_EVERY_S
        if progress.is_to_be_logged(now_s):
            log.info("fit goes on trigger=%s at=%r", job.trigger, text)
        if job.request is not None:
            with self._library.store.atomic():
                self._library.store.control.progress(job.request.request_id, text)

    def _end(self, job: Job, now_s: float) -> bool:
        error = job.future.exception()
        if isinstance(error, StoreDamagedError):
            raise error
        if error is None:
            return self._take(job, job.future.result())
        text = str(error) if isinstance(error, ImgsortdError) else repr(error)
        self._on_error("fit failed", text)
        self._answer(job, "failed", {"error": text})
        if job.request is None:
            self._next_auto_s = now_s + _AFTER_FAILURE_S
        return False

    def _take(self, job: Job, result: Fitted | PartialFit | None) -> bool:
        """Adopt or propose what was computed; return whether there is a new model."""
        if job.summary is None and self._is_outdated(job):
            text = "another fit was put in force while this one was made; ask again"
            log.info("fit dropped trigger=%s reason=%r", job.trigger, text)
            self._answer(job, "failed", {"error": text})
            self._count()
            return False
        if isinstance(result, PartialFit):
            summary = propose_change(self._library, result, job.trigger)
            self._tell(summary)
        if not isinstance(result, Fitted):
            return False
        summary = job.summary or self._settle(job, result)
        self._answer(job, "done", summary.as_dict())
        self._count()
        return summary.state is FitState.ADOPTED

    def _is_outdated(self, job: Job) -> bool:
        before, now = job.basis, self._library.model
        return (before.fit_id if before else None) != (now.fit_id if now else None)

    def _settle(self, job: Job, fitted: Fitted) -> FitSummary:
        """Put the fit in force, or propose it: once, for its labels are of the clusters before.

        Moves that cannot be made now are the journal's, which is tried again.
        """
        settled = settle_fit(
            self._library,
            fitted,
            job.trigger,
            basis=job.basis,
            accept=bool(job.params.get("accept")),
            keep_files=bool(job.params.get("keep_files")),
            dry_run=job.is_dry_run,
        )
        self._job = replace(job, summary=settled.summary)
        self._tell(settled.summary)
        report = make_following(self._library, settled.following, self._on_moved)
        return settled.moved(report)

    def _tell(self, summary: FitSummary) -> None:
        churn = "none" if summary.churn is None else f"{summary.churn:.3f}"
        log.info(
            "fit %s trigger=%s images=%d clusters=%d churn=%s fit_s=%.2f",
            summary.state or "tried",
            summary.trigger,
            summary.n_images,
            summary.n_clusters,
            churn,
            summary.fit_s,
        )
        if summary.state is FitState.PROPOSED:
            log.warning(
                "proposal waits fit=%d churn=%s max_churn=%s show='imgsortd refits show %d'",
                summary.fit_id,
                churn,
                summary.max_churn,
                summary.fit_id,
            )

    def _answer(self, job: Job, state: str, result: dict[str, Any]) -> None:
        if job.request is not None:
            with self._library.store.atomic():
                self._library.store.control.answer(job.request.request_id, state, result)
