"""Fits in the background of routing: one at a time, in a thread that only reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from imgsortd.clusters.fit import Fitted, compute_fit, fit_source
from imgsortd.clusters.in_force import InForce
from imgsortd.clusters.kmeans import LEAST_PICTURES
from imgsortd.clusters.partial import PartialFit, PartialSource, compute_partial
from imgsortd.config.model import Config
from imgsortd.errors import ImgsortdError, StoreDamagedError
from imgsortd.records import REBUILT, Arrivals, ExtractorId, FitState, FitTrigger, Model, Op
from imgsortd.refits.adopting import Adoption, FitSummary, OnMoved
from imgsortd.refits.due import FitFacts, RefitRule, fit_age_s, fit_due, sees_all
from imgsortd.refits.facts import drift_now, fit_facts, maturity_now, refit_rule, start_now
from imgsortd.store.database import Store
from imgsortd.system.threads import begin

log = logging.getLogger(__name__)

_CHECK_EVERY_S = 0.5
_ADOPT_AGAIN_S = 5.0
_AFTER_FAILURE_S = 60.0
_SHOW_EVERY_S = 1.0
_LOG_EVERY_S = 10.0
_GROWN_WAITS_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A fit that somebody asks for.

    Attributes
    ----------
    params
        ``n_clusters``, ``dry_run``, ``accept`` and ``keep_files``, each if it is given.
    tell
        Told in words how far it is.
    answer
        Told (state, result) of its end; once more where that could not be stored.
    """

    params: dict[str, Any] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda _: None
    answer: Callable[[str, dict[str, Any]], None] = lambda *_: None


NOBODY = Asked()
"""Asks for the fits that are due."""


class BackgroundFits:
    """Starts fits when they are due or asked for, and adopts them when they are done.

    Those that are due wait for the inbox, and after a failure; those that are asked for do not.

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
    rule
        When a fit is due, and how long it waits for the inbox to be quiet; None for the configured.

    Attributes
    ----------
    on_hold, rule
        As given.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        extractor: ExtractorId,
        in_force: InForce,
        adoption: Adoption,
        on_moved: OnMoved,
        on_error: Callable[[str, str], None],
        on_hold: Callable[[], str] = lambda: "",
        arrivals: Callable[[float], Arrivals] = lambda _: Arrivals(),
        rule: RefitRule | None = None,
    ) -> None:
        self._config, self._store, self._extractor = config, store, extractor
        self._in_force, self._adoption = in_force, adoption
        self._on_moved, self._on_error = on_moved, on_error
        self.on_hold, self._arrivals = on_hold, arrivals
        self._job: Job | None = None
        # What may be due: a fit of all, by a count that runs on, or a change of a few clusters.
        self.rule = rule or refit_rule(config)
        self._facts: FitFacts
        self.count_anew()
        self._partials = Partials(config, store, in_force)
        # When it may begin.
        self._due_since_s: float | None = None
        self._follows_since_s: float | None = None
        self._next_step_s = self._next_auto_s = 0.0

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
        """Tell whether no fit is being made or due; one that failed waits."""
        if self._job is not None:
            return False
        if now_s < self._next_auto_s or self._follows(now_s):
            return True
        return self._due() is None and self._partials.due() is None

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

    def ask(self, asked: Asked, now_s: float) -> None:
        """Start a fit that somebody asks for; none is being made, and nothing in its way."""
        self._start(now_s, FitTrigger.REQUEST, asked)

    def obstacle(self, now_s: float) -> str:
        """Say why no fit may begin now; empty where one may."""
        return self.on_hold() or self._follows(now_s)

    def _start_what_is_due(self, now_s: float) -> None:
        if self.obstacle(now_s) or now_s < self._next_auto_s:
            return
        if self._due() is not None:
            self.count_anew()  # the running count knows nothing of files taken away
        if (trigger := self._due()) is not None:
            start = partial(self._start, now_s, trigger)
        elif (change := self._partials.due()) is not None:
            start = partial(self._start_partial, now_s, change)
        else:
            self._due_since_s = None
            return
        if self._is_time(now_s):
            start()

    def _follows(self, now_s: float) -> str:
        """Say that files still follow the fit in force; empty where all have.

        For one that can't be moved, fits wait no longer than for arrivals that never end.
        """
        still = self._store.records.count_following()
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
        if self._in_force.model is not None and self._store.files.waiting(1):
            return False  # they are on their way to the fit in force
        if self._in_force.former is not None or sees_all(self.rule, self._arrivals(now_s)):
            return True
        if self._due_since_s is None:
            self._due_since_s = now_s
        drift = self._facts.drift
        is_held = drift is None or not drift.drowns  # review fills up: no day is waited then
        maturity = maturity_now(self._store, self._config.refit.max_churn)
        is_grown = maturity is not None and not maturity.is_young
        most_s = _GROWN_WAITS_S if is_grown and is_held else self.rule.wait_most_s
        return now_s - self._due_since_s >= most_s

    def _due(self) -> FitTrigger | None:
        former = self._in_force.former
        if former is not None:
            if former.extractor.weights_digest != REBUILT:
                return FitTrigger.BACKBONE
            enough = self._facts.n_features >= self.rule.min_images
            return FitTrigger.REBUILD if enough else None
        window = self._config.refit.drift
        if not self._is_measured and window is not None:
            self._facts = replace(self._facts, drift=drift_now(self._store, window))
        self._is_measured = True
        age_s = None if self._base is None else fit_age_s(self._base.at, time.time())
        return fit_due(self.rule, replace(self._facts, fit_age_s=age_s))

    def count_anew(self) -> None:
        """Count what the next fit waits for: after a person's word on one, too."""
        self._facts, self._is_measured = fit_facts(self._store), False
        self._base = self._store.records.base()

    def _start(self, now_s: float, trigger: FitTrigger, asked: Asked = NOBODY) -> None:
        clusters = self._config.clusters
        wanted = asked.params.get("n_clusters")
        n_clusters, seed = wanted or clusters.wanted, clusters.random_state
        start = start_now(self._store, self._config.refit.max_churn)
        source = fit_source(self._store, self._extractor, self._in_force, start)
        progress = FitProgress(now_s, _LOG_EVERY_S)
        self._due_since_s = None
        log.info(
            "fit started trigger=%s images=%d clusters=%s start=%s",
            trigger,
            source.n_images,
            wanted or clusters.n_clusters,
            source.start,
        )
        future = begin(lambda: compute_fit(source, n_clusters, seed, progress.tell), "fit")
        self._job = Job(trigger, future, progress, self._in_force.model, asked)

    def _start_partial(self, now_s: float, source: PartialSource) -> None:
        self._partials.tried(source)
        log.info(
            "change looked for trigger=%s cluster=%s images=%d",
            source.trigger,
            source.cluster_id,
            source.images,
        )
        future = begin(lambda: compute_partial(source), "fit")
        progress = FitProgress(now_s, _LOG_EVERY_S)
        self._job = Job(source.trigger, future, progress, self._in_force.model)

    def _show_progress(self, job: Job, now_s: float) -> None:
        """Write how far a long fit is, for the command that waits, and now and then to the log."""
        progress, text = job.progress, job.progress.text
        if text == progress.shown or now_s < progress.next_row_s:
            return
        progress.shown, progress.next_row_s = text, now_s + _SHOW_EVERY_S
        if progress.is_to_be_logged(now_s):
            log.info("fit goes on trigger=%s at=%r", job.trigger, text)
        job.asked.tell(text)

    def _end(self, job: Job, now_s: float) -> bool:
        error = job.future.exception()
        if isinstance(error, StoreDamagedError):
            raise error
        if error is None:
            return self._take(job, job.future.result())
        text = str(error) if isinstance(error, ImgsortdError) else repr(error)
        self._on_error("fit failed", text)
        job.asked.answer("failed", {"error": text})
        if job.asked is NOBODY:
            self._next_auto_s = now_s + _AFTER_FAILURE_S
        return False

    def _take(self, job: Job, result: Fitted | PartialFit | None) -> bool:
        """Adopt or propose what was computed; return whether there is a new model."""
        is_outdated = (job.basis and job.basis.fit_id) != self._in_force.fit_id
        if job.summary is None and is_outdated:
            text = "another fit was put in force while this one was made; ask again"
            log.info("fit dropped trigger=%s reason=%r", job.trigger, text)
            job.asked.answer("failed", {"error": text})
            self.count_anew()
            return False
        if isinstance(result, PartialFit):
            summary = self._adoption.propose(result, job.trigger)
            self._tell(summary)
        if not isinstance(result, Fitted):
            return False
        summary = job.summary or self._settle(job, result)
        job.asked.answer("done", summary.as_dict())
        self.count_anew()
        return summary.state is FitState.ADOPTED

    def _settle(self, job: Job, fitted: Fitted) -> FitSummary:
        """Put the fit in force, or propose it: once, for its labels are of the clusters before.

        Moves that cannot be made now are the journal's, which is tried again.
        """
        given = job.asked.params
        how = {name: bool(given.get(name)) for name in ("accept", "keep_files", "dry_run")}
        settled = self._adoption.settle(fitted, job.trigger, basis=job.basis, **how)
        self._job = replace(job, summary=settled.summary)
        self._tell(settled.summary)
        report = self._adoption.follow(settled.following, self._on_moved)
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


class FitProgress:
    """How far a fit has come: told by its thread, shown by the loop's."""

    def __init__(self, now_s: float, log_every_s: float) -> None:
        self._log_every_s, self._next_log_s = log_every_s, now_s + log_every_s
        self.text = self.shown = ""
        self.next_row_s = now_s

    def tell(self, text: str) -> None:
        """Say it; any thread may."""
        self.text = text

    def is_to_be_logged(self, now_s: float) -> bool:
        """Tell so once in ``log_every_s`` seconds."""
        if now_s < self._next_log_s:
            return False
        self._next_log_s = now_s + self._log_every_s
        return True


@dataclass(frozen=True, slots=True)
class Job:
    """A fit, or a change of a few clusters, on its way.

    Attributes
    ----------
    basis
        The model in force when it began, which its old labels are of.
    asked
        By whom it was asked for.
    summary
        Set when it was adopted or proposed, for what follows may fail and be tried again.
    """

    trigger: FitTrigger
    future: Future[Fitted] | Future[PartialFit | None]
    progress: FitProgress
    basis: Model | None
    asked: Asked = NOBODY
    summary: FitSummary | None = None


class Partials:
    """Looks after each fit, and as review grows; nothing is proposed twice.

    What was tried is tried again when the cluster, or review, has a quarter more pictures.
    """

    def __init__(self, config: Config, store: Store, in_force: InForce) -> None:
        self._config, self._store, self._in_force = config, store, in_force
        self._giants: list[tuple[int, int]] = []
        self._fit_id: int | None = None
        self._tried: dict[tuple[FitTrigger, int | None], int] = {}

    def due(self) -> PartialSource | None:
        """Tell what is to be computed now; None while a proposal waits."""
        model = self._in_force.model
        if model is None:
            return None
        if model.fit_id != self._fit_id:
            self._look_at_fit(model.fit_id)
        waits: list[tuple[FitTrigger, int | None, int]] = [
            (FitTrigger.SPLIT, cluster_id, images) for cluster_id, images in self._giants
        ]
        in_review = self._store.files.counts().review
        is_known = model.distances is not None and not self._takes_out_more(model)
        if in_review >= LEAST_PICTURES and is_known:
            waits.append((FitTrigger.REVIEW, None, in_review))
        fresh = [wait for wait in waits if 4 * wait[2] > 5 * self._tried.get(wait[:2], 0)]
        records, clusters = self._store.records, self._config.clusters
        if not fresh or records.waiting() is not None:
            return None
        for trigger, cluster_id, images in fresh:
            if not records.was_refused(trigger, cluster_id, images):
                return PartialSource(
                    trigger,
                    self._config.database,
                    cluster_id,
                    images,
                    clusters.max_share or 1.0,
                    clusters.random_state,
                    self._in_force.rule,
                )
        return None

    def _takes_out_more(self, model: Model) -> bool:
        """Tell whether the fit in force may take pictures out of review yet by itself."""
        files = self._store.files
        return self._config.op is not Op.SYMLINK and bool(files.unasked(model.fit_id, 1))

    def tried(self, source: PartialSource) -> None:
        """Learn that it was computed, whatever came of it."""
        self._tried[source.trigger, source.cluster_id] = source.images

    def _look_at_fit(self, fit_id: int) -> None:
        self._fit_id, self._tried = fit_id, {}
        share = self._config.clusters.max_share
        records = self._store.records
        self._giants = records.giants(fit_id, share)
        total = sum(size for _, size in records.fitted_sizes(fit_id))
        for cluster_id, images in self._giants:
            log.warning(
                "cluster too large cluster=%d images=%d share=%.3f max_share=%g",
                cluster_id,
                images,
                images / total,
                share,
            )
