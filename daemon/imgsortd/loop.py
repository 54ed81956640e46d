"""The working loop: the one thread that owns torch, SQLite's writing connection and the clock."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace

from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.adapters.watching import Watcher
from imgsortd.batch_report import BatchReport
from imgsortd.core.lifecycle import Arrivals, Phase, current_phase
from imgsortd.core.records import Op, Root
from imgsortd.errors import ImgsortdError, NoMemoryError, NoSpaceError, StoreLockedError
from imgsortd.fitting import BackgroundFits
from imgsortd.flow import Batch, Flow
from imgsortd.following import Following
from imgsortd.housekeeping import Housekeeping
from imgsortd.int8 import Int8Trial
from imgsortd.intake import Intake
from imgsortd.library import Library
from imgsortd.lookout import Lookout
from imgsortd.pausing import Pause
from imgsortd.pipeline import end_batch, recover, route_waiting
from imgsortd.pulse import BUSY_S, Pulse
from imgsortd.reextraction import Reextraction
from imgsortd.reviewing import route_review
from imgsortd.target_watch import TargetWatch
from imgsortd.undo_requests import UndoRequests

log = logging.getLogger(__name__)

# Events wake the loop at once; the tick is for requests, settled files and systemd.
_TICK_S = 1.0
_DECODE_LOOK_S = 0.005
_SETTLE_AT_ONCE = 5000  # a round of the loop takes a second or two, and then it pings
_ERRORS_TOLD = 3


class Loop:
    """Everything between two reloads of the configuration.

    Parameters
    ----------
    intake, watcher, reader
        The inbox's three sides: what is known, what is heard, what is read.
    on_tick
        Called at least every two seconds of work with (phase, note): systemd's pings.

    Attributes
    ----------
    stopping
        Set it, from a signal too, to make :meth:`run` return.
    """

    def __init__(
        self,
        library: Library,
        intake: Intake,
        watcher: Watcher,
        reader: PictureReader,
        on_tick: Callable[[Phase, str], None],
    ) -> None:
        config = library.config
        self._library = library
        self._intake = intake
        self._pulse = Pulse(library.store, on_tick)
        self._lookout = Lookout(config, intake, watcher, self._pulse.tell_error)
        self._fits = BackgroundFits(
            library,
            self._account,
            self._pulse.tell_error,
            lambda: self._reextraction.note,
            self._arrivals,
        )
        wake = watcher.hints.wake
        self._flow = Flow(library, reader, wake)
        self._following = Following(library, reader, intake.tracker.__contains__, wake)
        self._reextraction = Reextraction(library, self._flow.model)
        self._housekeeping = Housekeeping(
            library, self._flow, lambda: self.stopping, library.mover.after_each
        )
        self._undo = UndoRequests(library, intake)
        self._hands = TargetWatch(library, lambda: self._fits.is_fitting)
        self._int8 = Int8Trial(library, self._pulse.tell_error)
        self._pause = Pause()
        self._waiting_to_route = True
        self._leaves_settling_s = math.inf
        self._rate: float | None = None
        self._last_work_s = time.monotonic() - BUSY_S
        self.stopping = False
        library.mover.stopping = lambda: self.stopping

    def prepare(self) -> None:
        """Finish what a crash left, then watch the inbox, then list it."""
        self._guard(self._recover)
        self._guard(self._lookout.start)

    def _recover(self) -> None:
        with self._library.store.atomic():
            self._library.store.control.fail_abandoned()
        report = self._retry()
        if report.images:
            log.info("recovered moves=%d errors=%d", report.images, len(report.errors))

    def run(self) -> None:
        """Work until ``stopping`` is set; files not stored by then stay in the inbox."""
        while not self.stopping:
            self._round()

    def run_once(self) -> str:
        """Sort what is in the inbox now; return why it could not go on, empty where it could.

        A file that is still being written when the others have settled is left to the
        next run.
        """
        config = self._library.config
        self._intake.patience.clock = time.time
        self._fits.rule = replace(self._fits.rule, quiet_s=0.0)  # one listing finds what is there
        settled_s = time.monotonic() + config.settle_s + config.batch.max_wait_s
        self._leaves_settling_s = settled_s
        while not (self.stopping or self.held):
            self._round()
            if time.monotonic() > settled_s and self._is_through():
                break
        return self.held

    def _round(self) -> None:
        self._guard(self.step)
        self._guard(self._beat)

    def _guard(self, part: Callable[[], None]) -> None:
        """Do a part of the work; pause where its failure is not for good."""
        try:
            with foreign_errors(self._library.store.path):
                part()
        except (NoSpaceError, NoMemoryError, StoreLockedError) as error:
            self._pause.begin(str(error), time.monotonic())
        except OSError as error:  # one nobody foresaw: a disk that fails, no descriptor left
            log.debug("a step failed", exc_info=True)
            self._pulse.tell_error("step failed", f"{error}")
            self._pause.begin(f"{error}; sorting goes on when it can", time.monotonic())

    @property
    def is_stuck(self) -> bool:
        """Whether the model has been at a few pictures for longer than it can honestly take."""
        return self._flow.model.is_stuck

    def _arrivals(self, now: float) -> Arrivals:
        """Say what the inbox is at; one run leaves to the next what is still being written."""
        found = self._intake.arrivals(now, self._flow.images)
        return found if now < self._leaves_settling_s else replace(found, settling=0)

    def _is_through(self) -> bool:
        is_read = not self._intake.queue and not self._flow.images and self._following.is_idle
        is_routed = not (self._waiting_to_route and self._library.model is not None)
        is_fitted = self._reextraction.is_over and self._fits.is_quiet(time.monotonic())
        return is_read and is_routed and is_fitted and not self._int8.is_running

    def close(self) -> None:
        """Say that the daemon stopped, and stop the threads."""
        try:
            self._beat(Phase.STOPPED)
        except ImgsortdError as error:
            log.error("stop not stored reason=%s", error)
        self._lookout.stop()
        self._flow.close()
        self._reextraction.close()

    def step(self) -> None:
        """Do one round: hear, retry, settle, read, sort, fit, rest."""
        self._lookout.hear(self._patience_s(time.monotonic()))
        now = time.monotonic()
        if not self._lookout.lost and self._pause.take(now):
            self._retry()
        if not self.held:
            self._intake.settle(now, _SETTLE_AT_ONCE)
            self._work()
        self._hands.step(now)
        if self._undo.step(self._lookout.lost):
            self._pause.try_later(now)
        self._int8.step(now)
        if self._fits.step(now):
            self._waiting_to_route = True
        self._keep_house(now)

    def _patience_s(self, now: float) -> float:
        """Return how long the loop may sleep if nothing is heard; the model wakes it, too."""
        if self.held:
            return _TICK_S
        if self._flow.would_take(self._intake.queue):
            return 0.0
        if self._flow.is_decoding:
            return _DECODE_LOOK_S
        if self._flow.images or self._reextraction.is_computing:
            return _TICK_S
        if not self._reextraction.is_over:
            return _DECODE_LOOK_S
        if self._waiting_to_route and self._library.model is not None:
            return 0.0
        due = self._intake.tracker.next_due_s()
        return _TICK_S if due is None else max(0.0, min(due - now, _TICK_S))

    @property
    def held(self) -> str:
        """Why no file is sorted now; empty while files are."""
        return self._lookout.lost or self._pause.note

    def _work(self) -> None:
        """Take a batch that is computed, and feed the model before its files are moved."""
        finished = self._flow.take_done()
        with self._intake.or_put_back(finished.candidates if finished else ()):
            self._flow.fill(self._intake.queue, time.monotonic(), self._intake.tracker.next_due_s())
        if finished is not None:
            self._finish(finished)
        elif not self._flow.images and self._waiting_to_route and self._library.model is not None:
            report = route_waiting(self._library)
            report = report if report.images else route_review(self._library)
            self._waiting_to_route = report.images > 0 and not report.errors
            self._account("waiting routed", report)
        self._learn(self._following.step())
        inbox_is_empty = not self._intake.queue and not self._flow.images
        if self._reextraction.step(may_begin=inbox_is_empty):
            self._last_work_s = time.monotonic()

    def _finish(self, batch: Batch) -> None:
        with self._intake.or_put_back(batch.candidates):
            done = batch.computed.result()
            report = end_batch(
                self._library, batch.extraction, done.vectors, done.extract_s, done.failed
            )
        now = time.monotonic()
        if report.extracted:
            self._rate = report.extracted / (now - max(batch.since_s, self._last_work_s))
        self._fits.heard_of(report.waiting + report.sorted + report.review + report.duplicates)
        self._account("batch routed" if self._library.model else "batch stored", report)

    def _account(self, event: str, report: BatchReport) -> None:
        """Log a batch in one line and learn what became of its files."""
        self._learn(report)
        if report.unread >= report.images:
            return  # nothing was done: a file that is still being written comes by often
        self._pause.went_well()
        self._last_work_s = time.monotonic()
        self._housekeeping.worked()
        log.info("%s %s busy=%.2f", event, report.in_a_line(), self._flow.busy.last or 0.0)

    def _learn(self, report: BatchReport) -> None:
        now = time.monotonic()
        self._intake.learn(report, now)
        self._following.placed(report.placed)
        for name, reason in report.set_aside_reasons:
            log.warning("file set aside name=%r reason=%s", os.fsdecode(name), reason)
        for error in report.errors[:_ERRORS_TOLD]:  # status has each open move with its error
            self._pulse.tell_error("file not sorted", error)
        if len(report.errors) > len(report.denied):
            self._hold_or_go_on(report, now)
        elif report.stopped:  # by a reload that may be refused
            self._pause.try_later(now)

    def _hold_or_go_on(self, report: BatchReport, now: float) -> None:
        """After moves that failed: pause where the fault is not with those files alone."""
        roots = [Root.TARGET, Root.INBOX] if self._library.config.op is Op.MOVE else [Root.TARGET]
        if report.no_space:
            self._pause.begin(f"no space: {report.errors[-1]}; free some and sorting goes on", now)
        elif obstacle := self._library.mover.obstacle(roots):
            self._pause.begin(f"{obstacle}; sorting goes on when it can", now)
        else:
            self._go_on()
            self._pause.try_later(now)

    def _go_on(self) -> None:
        self._pause.end()
        self._waiting_to_route = True

    def _retry(self) -> BatchReport:
        """Apply open moves again; go on sorting when they went through."""
        report = recover(self._library)
        self._learn(report)
        if not report.errors:
            self._go_on()
        return report

    def _keep_house(self, now: float) -> None:
        is_free = not (self._flow.images or self._int8.is_running)
        idle_s = now - self._last_work_s if is_free and self._reextraction.is_over else 0.0
        self._housekeeping.step(now, idle_s)

    def _beat(self, phase: Phase | None = None) -> None:
        if complaint := self._flow.model.complaint:
            self._pulse.tell_error("model stuck", complaint)
        self._pulse.beat(
            phase or self._current_phase(),
            note=complaint or self.held or self._reextraction.note,
            queue=len(self._intake.queue) + self._flow.images,
            images_per_s=self._rate,
            model_busy=self._flow.busy.last,
            runs_on=self._library.extractor.describe(),
            watching=self._lookout.is_watching,
        )

    def _current_phase(self) -> Phase:
        return current_phase(
            inbox_is_lost=bool(self._lookout.lost),
            is_paused=bool(self._pause.note),
            is_reextracting=not self._reextraction.is_over,
            is_sorting=time.monotonic() - self._last_work_s < BUSY_S or self._flow.images > 0,
            is_fitted=self._library.model is not None,
        )
