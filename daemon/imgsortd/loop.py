"""The working loop: the one thread that owns torch, SQLite's writing connection and the clock."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store_control import Heartbeat
from imgsortd.adapters.watching import Watcher
from imgsortd.config import Polling
from imgsortd.core.batching import BatchRule, batch_size
from imgsortd.core.lifecycle import Phase
from imgsortd.core.records import Candidate, ReadResult
from imgsortd.errors import ImgsortdError, NoSpaceError, WatchError
from imgsortd.fitting import BackgroundFits
from imgsortd.intake import Intake
from imgsortd.pipeline import BatchReport, Library, process_batch, recover, route_waiting

log = logging.getLogger(__name__)

_TICK_S = 0.5
_BEAT_BUSY_S = 2.0
_BEAT_IDLE_S = 15.0
_LOST_RETRY_S = 5.0
_POLL_S = 5.0
_FIRST_BACKOFF_S = 2.0
_LAST_BACKOFF_S = 60.0


class Loop:
    """Everything between two reloads of the configuration.

    Parameters
    ----------
    library
        Store, mover, model and the resident VGG16.
    intake, watcher, reader
        The inbox's three sides: what is known, what is heard, what is read.
    on_tick
        Called at least every two seconds of work with (phase, note): systemd's pings.
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
        self._watcher = watcher
        self._reader = reader
        self._on_tick = on_tick
        self._fits = BackgroundFits(library, self._account, self._tell_error)
        self._reads: deque[tuple[Candidate, Future[ReadResult], float]] = deque()
        self._batch_rule = BatchRule(library.max_images, config.batch.max_wait_s)
        self._started_at = time.time()
        self._next_scan_s = 0.0
        self._scan_every_s = config.rescan_s
        self._next_beat_s = 0.0
        self._retry_at_s: float | None = None
        self._backoff_s = _FIRST_BACKOFF_S
        self._waiting_to_route = True
        self._lost = False
        self._sentinel_sent = False
        self._rate: float | None = None
        self._last_work_s = float("-inf")
        self._phase = Phase.STARTING
        self._note = ""
        self.stopping = False

    def prepare(self) -> None:
        """Finish what a crash left, then watch, then scan: in this order nothing is missed."""
        report = recover(self._library)
        if report.images:
            log.info("recovered moves=%d errors=%d", report.images, len(report.errors))
        self._learn(report)
        with self._library.store.atomic():
            self._library.store.control.fail_abandoned()
        self._watch()
        self._scan(time.monotonic())

    def run(self) -> None:
        """Work until ``stopping`` is set, then finish the batch in hand and return."""
        while not self.stopping:
            try:
                self.step()
            except NoSpaceError as error:
                self._pause(str(error))
        self._beat(Phase.STOPPED, force=True)

    def close(self) -> None:
        """Stop the threads."""
        self._watcher.stop()
        self._reader.close()
        self._fits.close()

    def step(self) -> None:
        """Do one round: hear, settle, read, sort, fit, answer, beat."""
        self._hear()
        now = time.monotonic()
        if now >= self._next_scan_s or self._watcher.hints.scan_wanted:
            self._scan(now)
        if self._retry_at_s is not None and now >= self._retry_at_s:
            self._retry()
        if not self._is_paused():
            self._intake.settle(now)
            self._work()
        self._fit(now)
        self._beat(self._current_phase())

    def _hear(self) -> None:
        hints = self._watcher.hints.take(self._patience_s(time.monotonic()))
        self._intake.hint(hints, time.monotonic())

    def _patience_s(self, now: float) -> float:
        """Return how long the loop may sleep if nothing is heard."""
        if not self._is_paused() and (
            self._intake.queue or (self._waiting_to_route and self._library.model is not None)
        ):
            return 0.0
        if self._reads:
            return self._batch_rule.max_wait_s / 4
        due = self._intake.tracker.next_due_s()
        if due is not None and not self._is_paused():
            return max(0.0, min(due - now, _TICK_S))
        return _TICK_S

    def _is_paused(self) -> bool:
        return self._lost or (self._retry_at_s is not None and self._phase is Phase.PAUSED)

    def _watch(self) -> None:
        polling = self._library.config.polling
        if polling is not Polling.ON:
            try:
                self._watcher.start()
            except WatchError as error:
                if polling is Polling.OFF:
                    raise
                self._tell_error("watch failed", f"{error}; listing it every {_POLL_S:g} s instead")
        if not self._watcher.is_watching:
            self._scan_every_s = min(self._library.config.rescan_s, _POLL_S)

    def _scan(self, now: float) -> None:
        self._watcher.hints.scan_wanted = False
        self._next_scan_s = now + self._scan_every_s
        try:
            self._check_watcher()
            self._intake.scan(now)
        except WatchError as error:
            if not self._lost:
                self._tell_error("inbox lost", str(error))
            self._lost, self._note = True, str(error)
            self._next_scan_s = now + _LOST_RETRY_S
            return
        if self._lost:
            log.info("inbox found path=%s", self._library.config.inbox)
            self._lost, self._note = False, ""
            self._renew_watcher()

    def _check_watcher(self) -> None:
        """See that the sentinel of the last scan was heard, and send the next one."""
        if not self._watcher.is_watching:
            return
        if self._sentinel_sent and not self._watcher.hints.sentinel_seen:
            log.warning("watch deaf path=%s action=renewed", self._library.config.inbox)
            self._renew_watcher()
        self._sentinel_sent = self._watcher.send_sentinel()

    def _renew_watcher(self) -> None:
        self._watcher.stop()
        self._sentinel_sent = False
        self._watch()
        self._watcher.hints.ask_scan()

    def _work(self) -> None:
        """Keep the decode pool two batches ahead of the model, and take a batch when due."""
        now = time.monotonic()
        while self._intake.queue and len(self._reads) < 2 * self._batch_rule.max_images:
            candidate = self._intake.queue.popleft()
            self._reads.append((candidate, self._reader.submit(candidate), now))
        oldest_wait_s = now - self._reads[0][2] if self._reads else 0.0
        due = self._intake.tracker.next_due_s()
        soon = due is not None and due - now < self._batch_rule.max_wait_s
        size = batch_size(self._batch_rule, len(self._reads), oldest_wait_s, soon)
        if size:
            self._process([self._reads.popleft() for _ in range(size)])
        elif self._waiting_to_route and self._library.model is not None:
            report = route_waiting(self._library)
            self._waiting_to_route = report.images > 0 and not report.errors
            self._account("waiting routed", report)

    def _process(self, reads: list[tuple[Candidate, Future[ReadResult], float]]) -> None:
        results = [future.result() for _, future, _ in reads]
        try:
            report = process_batch(self._library, results)
        except ImgsortdError:
            self._intake.put_back(candidate for candidate, _, _ in reads)
            raise
        if report.extracted:
            self._rate = report.extracted / report.total_s
        self._fits.heard_of(report.waiting + report.sorted + report.duplicates)
        self._account("batch routed" if self._library.model else "batch stored", report)

    def _account(self, event: str, report: BatchReport) -> None:
        """Log a batch in one line and learn what became of its files."""
        self._learn(report)
        if not report.images:
            return
        self._last_work_s = time.monotonic()
        log.info(
            "%s images=%d sorted=%d clusters=%d duplicates=%d set_aside=%d waiting=%d "
            "extract_s=%.2f total_s=%.2f",
            event,
            report.images,
            report.sorted,
            len(report.clusters),
            report.duplicates,
            report.set_aside,
            report.waiting,
            report.extract_s,
            report.total_s,
        )

    def _learn(self, report: BatchReport) -> None:
        now = time.monotonic()
        self._intake.done(report.settled, report.left, report.look_again, report.denied, now)
        for name, reason in report.set_aside_reasons:
            log.warning("file set aside name=%r reason=%s", os.fsdecode(name), reason)
        for error in report.errors:
            self._tell_error("file not sorted", error)
        if report.errors and len(report.errors) > len(report.denied):
            if report.no_space:
                self._pause(f"no space: {report.errors[-1]}; free some and sorting goes on")
            elif not report.left and not report.sorted:
                self._pause(report.errors[-1])
            else:
                self._retry_at_s = now + self._backoff_s
        elif self._phase is not Phase.PAUSED:
            self._backoff_s = _FIRST_BACKOFF_S

    def _pause(self, note: str) -> None:
        """Stop sorting for a while; watching, fits and status go on."""
        if self._phase is not Phase.PAUSED:
            log.error("sorting paused reason=%s", note)
        self._phase, self._note = Phase.PAUSED, note
        self._retry_at_s = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, _LAST_BACKOFF_S)

    def _retry(self) -> None:
        """Apply open moves again; go on sorting when they went through."""
        was_paused = self._phase is Phase.PAUSED
        self._retry_at_s = None
        report = recover(self._library)
        self._learn(report)
        if not report.errors:
            self._phase, self._note = Phase.IDLE, ""
            self._waiting_to_route = True
            if was_paused:
                log.info("sorting goes on moves=%d", report.images)

    def _fit(self, now: float) -> None:
        if self._fits.step(now, may_start=not self._is_paused()):
            self._waiting_to_route = True

    def _tell_error(self, event: str, detail: str) -> None:
        log.error("%s: %s", event, detail)
        try:
            with self._library.store.atomic():
                self._library.store.control.add_error(event, detail)
        except ImgsortdError as error:
            log.error("error not stored reason=%s", error)

    def _current_phase(self) -> Phase:
        if self._lost:
            return Phase.INBOX_LOST
        if self._is_paused():
            return Phase.PAUSED
        if time.monotonic() - self._last_work_s < _BEAT_BUSY_S or self._reads:
            return Phase.SORTING
        return Phase.IDLE if self._library.model is not None else Phase.WAITING

    def _beat(self, phase: Phase, *, force: bool = False) -> None:
        self._on_tick(phase, self._note)
        now = time.monotonic()
        changed = phase is not self._phase
        if not (force or changed or now >= self._next_beat_s):
            return
        self._phase = phase
        self._next_beat_s = now + (_BEAT_BUSY_S if phase is Phase.SORTING else _BEAT_IDLE_S)
        if phase is Phase.IDLE:
            self._rate = None
        heartbeat = Heartbeat(
            pid=os.getpid(),
            phase=phase,
            started_at=self._started_at,
            beat_at=time.time(),
            queue=len(self._intake.queue) + len(self._reads),
            images_per_s=self._rate,
            watching="inotify" if self._watcher.is_watching else "polling",
            note=self._note,
        )
        with self._library.store.atomic():
            self._library.store.control.beat(heartbeat)
