"""The working loop: the one thread that owns torch, SQLite's writing connection and the clock."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace

from imgsortd.daemon.housekeeping import Housekeeping
from imgsortd.daemon.pausing import Pause
from imgsortd.daemon.pulse import BUSY_S, Pulse
from imgsortd.daemon.requests import Desk
from imgsortd.errors import ImgsortdError, NoMemoryError, NoSpaceError, StoreLockedError
from imgsortd.inbox.intake import Intake
from imgsortd.inbox.watching import Lookout, Watcher
from imgsortd.library import Library
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.flow import Batch, Flow
from imgsortd.pipeline.following import Following
from imgsortd.pipeline.int8 import Int8Trial
from imgsortd.pipeline.line import Line
from imgsortd.pipeline.rereading import Rereading
from imgsortd.records import Arrivals, BatchReport, Op, Phase, Root
from imgsortd.refits.adopting import Adoption
from imgsortd.refits.background import BackgroundFits
from imgsortd.refits.decisions import Decisions
from imgsortd.refits.facts import refit_rule
from imgsortd.store.health import foreign_errors
from imgsortd.target.watch import TargetWatch

log = logging.getLogger(__name__)

# Events wake the loop at once; the tick is for requests, settled files and systemd.
_TICK_S = 1.0
_DECODE_LOOK_S = 0.005
_SETTLE_AT_ONCE = 5000  # a round of the loop takes a second or two, and then it pings
_ERRORS_TOLD = 3
_TRIES = 3  # of moves that fail, before one run gives up


class Stop:
    """Whether the work is to end: asked between two files, wanted by a signal."""

    def __init__(self) -> None:
        self._is_wanted = False

    def __call__(self) -> bool:
        return self._is_wanted

    def want(self) -> None:
        """Let the work end."""
        self._is_wanted = True

    def forget(self) -> None:
        """Let it go on."""
        self._is_wanted = False


class Loop:
    """Everything between two reloads of the configuration.

    Parameters
    ----------
    intake, watcher, reader
        The inbox's three sides: what is known, what is heard, what is read.
    on_tick
        Called at least every two seconds of work with (phase, note): systemd's pings.
    stop
        Ask for it, from a signal too, to make :meth:`run` return.
    is_away
        Tells whether another folder stands under the inbox's path: what is not there is not gone.
    once
        Whether it is to sort what is there now, and not to wait for more.
    """

    def __init__(
        self,
        library: Library,
        intake: Intake,
        watcher: Watcher,
        reader: PictureReader,
        is_away: Callable[[], bool],
        on_tick: Callable[[Phase, str], None],
        stop: Stop | None = None,
        *,
        once: bool = False,
    ) -> None:
        config, store, extractor = library.config, library.store, library.extractor
        in_force, moves, companions = library.in_force, library.moves, library.companions
        rule = refit_rule(config)
        if once:  # one listing finds what is there
            rule = replace(rule, quiet_s=0.0)
        wake, is_settling = watcher.hints.wake, intake.tracker.__contains__
        self.stop, ping = stop or Stop(), library.mover.after_each
        self._library, self._intake = library, intake
        self._pulse = Pulse(store, on_tick)
        tell_error = self._pulse.tell_error
        self._lookout = Lookout(config, intake, watcher, tell_error)
        self._line = Line(store, extractor, in_force, moves, companions, is_away)
        self._flow = Flow(self._line.way, reader, extractor, config, wake)
        model = self._flow.model
        self._following = Following(store, companions, moves, reader, is_settling, wake)
        self._rereading = Rereading(config, store, extractor, in_force.former, model)
        adoption = Adoption(config, store, extractor.id, in_force, moves)
        decisions = Decisions(store, extractor.id, in_force, moves, adoption)
        self._fits = BackgroundFits(
            config,
            store,
            extractor.id,
            in_force,
            adoption,
            self._account,
            tell_error,
            lambda: self._rereading.note,
            self._arrivals,
            rule,
        )
        self._housekeeping = Housekeeping(
            config, store, extractor, in_force, reader, self.stop, ping
        )
        self._target_watch = TargetWatch(
            config, store, in_force, library.folders, ping, lambda: self._fits.is_fitting
        )
        self._desk = Desk(library, intake, self._fits, decisions, self._account)
        self._int8 = Int8Trial(config, store, extractor, in_force, tell_error)
        self._pause, self._target_lost = Pause(), ""
        self._leaves_settling_s = math.inf
        self._last_work_s = time.monotonic() - BUSY_S

    def prepare(self) -> None:
        """Finish what a crash left, then watch the inbox, then list it."""
        self._guard(self._recover)
        self._guard(self._lookout.start)

    def _recover(self) -> None:
        with self._library.store.atomic():
            self._library.store.control.fail_abandoned()
        self._look_at_target()
        report = BatchReport() if self._target_lost else self._retry(self._library.moves.recover)
        if report.images:
            log.info("recovered moves=%d errors=%d", report.images, len(report.errors))

    def run(self) -> None:
        """Work until a stop is asked for; files not stored by then stay in the inbox."""
        while not self.stop():
            self._round()

    def run_once(self) -> str:
        """Sort what is in the inbox now; return why it could not go on, empty where it could.

        A file that is still being written when the others have settled is left to the
        next run.
        """
        config, tries = self._library.config, 0
        settled_s = time.monotonic() + config.settle_s + config.batch.max_wait_s
        self._leaves_settling_s = settled_s
        while not (self.stop() or self.held):
            self._round()
            if time.monotonic() <= settled_s or not self._is_through():
                continue
            errors = self._library.store.journal.open_errors()
            if not errors:
                break
            if tries == _TRIES:
                names = ", ".join(repr(os.fsdecode(src)) for src, _ in errors[:_ERRORS_TOLD])
                return f"{len(errors):,} cannot be moved, the first are {names}: {errors[0][1]}"
            tries += 1
            self._guard(self._make_again)
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
        is_fitted = self._rereading.is_over and self._fits.is_quiet(time.monotonic())
        is_rest = self._desk.is_idle and not self._int8.is_running
        return is_read and not self._line.has_more and is_fitted and is_rest

    def close(self) -> None:
        """Say that the daemon stopped, and stop the threads."""
        try:
            self._beat(Phase.STOPPED)
        except ImgsortdError as error:
            log.error("stop not stored reason=%s", error)
        self._lookout.stop()
        self._flow.close()
        self._rereading.close()

    def step(self) -> None:
        """Do one round: a little of all that the daemon does."""
        self._lookout.hear(self._patience_s(time.monotonic()))
        now = time.monotonic()
        self._look_at_target()
        self._retry_when_due(now)
        if not self.held:
            self._intake.settle(now, _SETTLE_AT_ONCE)
            self._route(self._read_and_compute())
            self._learn(self._following.step())
            self._read_again()
        has_ended = not self._target_lost and self._target_watch.step(now)
        if self._intake.take_woken() or has_ended:
            self._line.expect_more()
        self._answer_desk(now)
        self._int8.step(now)
        self._fit(now)
        self._rest(now)

    def _patience_s(self, now: float) -> float:
        """Return how long the loop may sleep if nothing is heard; the model wakes it, too."""
        if self.held:
            return _TICK_S
        if self._flow.would_take(self._intake.queue):
            return 0.0
        if self._flow.is_decoding:
            return _DECODE_LOOK_S
        if self._flow.images or self._rereading.is_computing:
            return _TICK_S
        if not self._rereading.is_over:
            return _DECODE_LOOK_S
        if self._line.has_more:
            return 0.0
        due = self._intake.tracker.next_due_s()
        return _TICK_S if due is None else max(0.0, min(due - now, _TICK_S))

    @property
    def held(self) -> str:
        """Why no file is sorted now; empty while files are."""
        return self._lookout.lost or self._target_lost or self._pause.note

    def _look_at_target(self) -> None:
        """Wait where the target is away, or another folder: nothing is sorted into that."""
        before, self._target_lost = self._target_lost, self._library.roots.look_at_target()
        if self._target_lost and not before:
            self._pulse.tell_error("target lost", self._target_lost)
        elif before and not self._target_lost:
            log.info("target is back path=%s", self._library.config.target)
            self._retry(self._library.moves.recover)

    def _retry_when_due(self, now: float) -> None:
        if not (self._lookout.lost or self._target_lost) and self._pause.take(now):
            self._make_again()

    def _make_again(self) -> None:
        self._retry(self._library.moves.make_again)

    def _retry(self, make: Callable[[], BatchReport]) -> BatchReport:
        """Make open moves again; go on sorting when they went through."""
        report = make()
        self._learn(report)
        if not report.errors:
            self._go_on()
        return report

    def _read_and_compute(self) -> Batch | None:
        """Take a batch that is computed, and feed the model before its files are moved."""
        done = self._flow.take_done()
        with self._intake.or_put_back(done.candidates if done else ()):
            self._flow.fill(self._intake.queue, time.monotonic(), self._intake.tracker.next_due_s())
        return done

    def _route(self, done: Batch | None) -> None:
        """Bring a batch to its folders; while there is none, files that wait for a fit."""
        if done is not None:
            with self._intake.or_put_back(done.candidates):
                report = done.end()
            if report.extracted:
                since_s = max(done.since_s, self._last_work_s)
                self._pulse.extracted(report.extracted, time.monotonic() - since_s)
            self._fits.heard_of(report.waiting + report.sorted + report.review + report.duplicates)
            is_fitted = self._library.in_force.model is not None
            self._account("batch routed" if is_fitted else "batch stored", report)
        elif not self._flow.images and self._line.has_more:
            self._account("waiting routed", self._line.route_more())

    def _read_again(self) -> None:
        if self._rereading.step(may_begin=not (self._intake.queue or self._flow.images)):
            self._last_work_s = time.monotonic()

    def _answer_desk(self, now: float) -> None:
        if self._desk.step(self._lookout.lost):
            self._line.expect_more()  # another fit may be in force
            if self._library.store.journal.unfinished():
                self._pause.try_later(now)

    def _fit(self, now: float) -> None:
        if self._fits.step(now):
            self._line.expect_more()

    def _rest(self, now: float) -> None:
        is_free = not (self._flow.images or self._int8.is_running)
        is_idle = is_free and self._rereading.is_over
        self._housekeeping.step(now, now - self._last_work_s if is_idle else 0.0)

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
        self._line.expect_more()

    def _beat(self, phase: Phase | None = None) -> None:
        if complaint := self._flow.model.complaint:
            self._pulse.tell_error("model stuck", complaint)
        self._pulse.beat(
            phase or self._phase(),
            note=complaint or self.held or self._rereading.note,
            queue=len(self._intake.queue) + self._flow.images,
            model_busy=self._flow.busy.last,
            runs_on=self._library.extractor.describe(),
            watching=self._lookout.is_watching,
        )

    def _phase(self) -> Phase:
        """Tell the phase: the trouble first, then the work, then the rest."""
        if self._lookout.lost:
            return Phase.INBOX_LOST
        if self._target_lost or self._pause.note:
            return Phase.PAUSED
        if not self._rereading.is_over:
            return Phase.REEXTRACTING
        if time.monotonic() - self._last_work_s < BUSY_S or self._flow.images > 0:
            return Phase.SORTING
        return Phase.WAITING if self._library.in_force.model is None else Phase.IDLE
