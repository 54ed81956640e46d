"""Fits in the background of routing: one at a time, in a thread that only reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any

from imgsortd.adapters.store_control import Request
from imgsortd.adoption import FitSummary, adopt_fit, move_sorted
from imgsortd.core.lifecycle import FitFacts, FitTrigger, RefitRule, fit_age_s, fit_due
from imgsortd.core.records import REBUILT
from imgsortd.errors import ImgsortdError, StoreDamagedError
from imgsortd.fits import FitSource, Fitted, compute_fit, fit_source
from imgsortd.library import Library
from imgsortd.pipeline import BatchReport

log = logging.getLogger(__name__)

_CHECK_EVERY_S = 0.5
_ADOPT_AGAIN_S = 5.0
_AFTER_FAILURE_S = 60.0
_SHOW_EVERY_S = 1.0
_LOG_EVERY_S = 10.0


class _Progress:
    """How far a fit has come: told by its thread, shown by the loop's."""

    def __init__(self, now_s: float) -> None:
        self.text = ""
        self.shown = ""
        self.next_row_s = now_s
        self.next_log_s = now_s + _LOG_EVERY_S

    def tell(self, text: str) -> None:
        self.text = text


@dataclass(frozen=True, slots=True)
class _Job:
    trigger: FitTrigger
    future: Future[Fitted]
    progress: _Progress
    request_id: int | None
    dry_run: bool
    summary: FitSummary | None = None
    """Set when it was adopted, for what follows may fail and be tried again."""


class BackgroundFits:
    """Starts fits when they are due or asked for, and adopts them when they are done.

    Parameters
    ----------
    on_moved
        Told (event, report) of files moved after a fit (``refit.move_sorted``).
    on_error
        Told (event, detail) of a fit that could not be made.
    on_hold
        Says why no fit may be made now; empty where one may.
    """

    def __init__(
        self,
        library: Library,
        on_moved: Callable[[str, BatchReport], None],
        on_error: Callable[[str, str], None],
        on_hold: Callable[[], str] = lambda: "",
    ) -> None:
        config = library.config
        self._library = library
        self._on_moved = on_moved
        self._on_error = on_error
        self._on_hold = on_hold
        self._rule = RefitRule(
            config.clusters.min_images, config.refit.interval, config.refit.growth
        )
        self._job: _Job | None = None
        self._next_step_s = 0.0
        self._next_auto_s = 0.0
        self._facts = FitFacts(0)
        self._fitted_at: float | None = None
        self._count()

    def heard_of(self, images: int) -> None:
        """Learn that so many pictures got features; the store counts them only when it matters."""
        self._facts = replace(self._facts, n_features=self._facts.n_features + images)

    @property
    def is_fitting(self) -> bool:
        """Whether a fit is being made, beside the clusters in force at its start."""
        return self._job is not None

    def is_quiet(self, now_s: float) -> bool:
        """Tell whether no fit is being made, due or asked for; one that failed waits."""
        if self._job is not None or self._library.store.control.next_verb():
            return False
        return now_s < self._next_auto_s or self._due() is None

    def step(self, now_s: float) -> bool:
        """Adopt a finished fit, or start one; return whether there is a new model."""
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
        reason = self._on_hold()
        if reason:
            if request is not None:
                error = {"error": f"{reason}; ask again when it is done"}
                with self._library.store.atomic():
                    self._library.store.control.answer(request.request_id, "failed", error)
            return
        if request is not None:
            self._start(now_s, FitTrigger.REQUEST, request)
            return
        if now_s < self._next_auto_s or self._due() is None:
            return
        self._count()  # the running count knows nothing of files taken away
        trigger = self._due()
        if trigger is not None:
            self._start(now_s, trigger)

    def _due(self) -> FitTrigger | None:
        former = self._library.former
        if former is not None:
            if former.extractor.weights_digest != REBUILT:
                return FitTrigger.BACKBONE
            enough = self._facts.n_features >= self._rule.min_images
            return FitTrigger.REBUILD if enough else None
        age_s = None if self._fitted_at is None else fit_age_s(self._fitted_at, time.time())
        return fit_due(self._rule, replace(self._facts, fit_age_s=age_s))

    def _count(self) -> None:
        fits = self._library.store.fits
        self._facts = fits.facts()
        record = fits.current_record()
        self._fitted_at = None if record is None else record.created_at

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
        params = request.params if request else {}
        n_clusters = params.get("n_clusters") or clusters.n_clusters
        source = fit_source(self._library)
        log.info(
            "fit started trigger=%s images=%d clusters=%d", trigger, source.n_images, n_clusters
        )
        progress = _Progress(now_s)
        self._job = _Job(
            trigger,
            _begin(source, n_clusters, clusters.random_state, progress),
            progress,
            request.request_id if request else None,
            bool(params.get("dry_run")),
        )

    def _show_progress(self, job: _Job, now_s: float) -> None:
        """Write how far a long fit is, for the command that waits, and now and then to the log."""
        progress, text = job.progress, job.progress.text
        if text == progress.shown or now_s < progress.next_row_s:
            return
        progress.shown, progress.next_row_s = text, now_s + _SHOW_EVERY_S
        if now_s >= progress.next_log_s:
            progress.next_log_s = now_s + _LOG_EVERY_S
            log.info("fit goes on trigger=%s at=%r", job.trigger, text)
        if job.request_id is not None:
            with self._library.store.atomic():
                self._library.store.control.progress(job.request_id, text)

    def _end(self, job: _Job, now_s: float) -> bool:
        error = job.future.exception()
        if isinstance(error, StoreDamagedError):
            raise error
        if error is None:
            return self._adopt(job, job.future.result())
        text = str(error) if isinstance(error, ImgsortdError) else repr(error)
        self._on_error("fit failed", text)
        self._answer(job, "failed", {"error": text})
        if job.request_id is None:
            self._next_auto_s = now_s + _AFTER_FAILURE_S
        return False

    def _adopt(self, job: _Job, fitted: Fitted) -> bool:
        summary = job.summary or self._switch(job, fitted)
        if self._library.config.refit.move_sorted and not job.dry_run:
            self._on_moved("sorted moved", move_sorted(self._library, fitted))
        self._answer(job, "done", summary.as_dict())
        self._count()
        return not job.dry_run

    def _switch(self, job: _Job, fitted: Fitted) -> FitSummary:
        """Put the fit in force, once: its labels mean the clusters that were there before."""
        summary = adopt_fit(self._library, fitted, job.trigger, dry_run=job.dry_run)
        self._job = replace(job, summary=summary)
        log.info(
            "fit %s trigger=%s images=%d clusters=%d churn=%s fit_s=%.2f",
            "tried" if job.dry_run else "adopted",
            job.trigger,
            summary.n_images,
            summary.n_clusters,
            "none" if summary.churn is None else f"{summary.churn:.3f}",
            summary.fit_s,
        )
        return summary

    def _answer(self, job: _Job, state: str, result: dict[str, Any]) -> None:
        if job.request_id is not None:
            with self._library.store.atomic():
                self._library.store.control.answer(job.request_id, state, result)


def _begin(
    source: FitSource, n_clusters: int, random_state: int, progress: _Progress
) -> Future[Fitted]:
    """Fit in a thread of its own; unlike a pool's, it does not hold up the daemon's end."""
    future: Future[Fitted] = Future()

    def work() -> None:
        try:
            future.set_result(compute_fit(source, n_clusters, random_state, progress.tell))
        except Exception as error:  # told by the loop; out of memory is no reason to stop sorting
            future.set_exception(error)

    Thread(target=work, name="fit", daemon=True).start()
    return future
