"""From hints and scans to settled files with a row in the store."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.core.records import Candidate, FileState, Stamp
from imgsortd.core.stability import SettleTracker
from imgsortd.errors import ImgsortdError

log = logging.getLogger(__name__)

_DENIED_RETRY_S = 60.0
_BUSY_RETRY_S = 1.0


class Intake:
    """Knows every file in the inbox: settling, queued, or handled.

    Parameters
    ----------
    settle_s
        Seconds without a change after which a file counts as finished.

    Attributes
    ----------
    queue
        Finished files in the order they are to be read.
    """

    def __init__(self, inbox: Inbox, store: Store, settle_s: float) -> None:
        self._inbox = inbox
        self._store = store
        self.tracker = SettleTracker(settle_s)
        self.queue: deque[Candidate] = deque()
        self._queued: set[bytes] = set()
        self._returned: list[Candidate] = []
        self._handled: dict[bytes, Stamp] = dict(store.files.handled())

    def hint(self, names: Iterable[bytes], now_s: float) -> None:
        """Take names that events spoke of."""
        for name in names:
            if name in self._queued:
                continue  # the reader compares the stamp and sends it back if it changed
            stamp = self._inbox.look(name)
            if stamp is None:
                self.tracker.forget(name)
            elif not self._is_handled(name, stamp):
                self.tracker.touch(name, stamp, now_s)

    def scan(self, now_s: float) -> None:
        """List the inbox; find what events missed, and what its owner took away.

        Raises
        ------
        WatchError
            The inbox cannot be listed; nothing is taken for gone then.
        """
        there = set()
        for name, stamp in self._inbox.scan():
            there.add(name)
            if name not in self._queued and not self._is_handled(name, stamp):
                self.tracker.see(name, stamp, now_s)
        self._handled = {name: s for name, s in self._handled.items() if name in there}
        pending = self._store.files.pending_names()
        known = there | self._queued
        gone = [row for name, row in pending.items() if name not in known]
        undone = self._store.files.undone_names()
        taken = [row for name, row in undone.items() if name not in there]
        unwanted = self._store.files.unwanted_names()
        left = [row for name, row in unwanted.items() if name not in there]
        if left:
            with self._store.atomic():
                self._store.files.forget_source(left)
        if gone or taken:
            with self._store.atomic():
                for file_id in gone:
                    self._store.files.gone(file_id)
                for file_id in taken:  # should it come again, it is sorted
                    self._store.files.finish(
                        file_id, FileState.GONE, stays=False, reason="taken away after an undo"
                    )
            log.info("files gone count=%d", len(gone) + len(taken))

    def _is_handled(self, name: bytes, stamp: Stamp) -> bool:
        known = self._handled.get(name)
        return known is not None and known.same_content(stamp)

    def settle(self, now_s: float, at_most: int | None = None) -> int:
        """Queue the files that have become finished, the first ``at_most``; return how many."""
        self._queue_returned()
        looks = []
        quiet = self.tracker.quiet(now_s)[:at_most]
        moving = self._store.journal.open_sources() if quiet else set()
        for name in quiet:
            stamp = self._inbox.look(name)
            if stamp is None:
                self.tracker.forget(name)
            elif name in moving:
                # A new file under the name of an open move would take over that one's row.
                self.tracker.touch(name, stamp, now_s + _BUSY_RETRY_S)
            else:
                looks.append((name, stamp))
        stamps = dict(looks)
        settled = [(name, stamps[name]) for name in self.tracker.settle(looks, now_s)]
        pictures = [found for found in settled if self._is_picture(*found)]
        try:
            if pictures:
                self._arrive(pictures)
        except ImgsortdError:  # full or locked: not before the next scan would they be seen
            for name, stamp in pictures:
                self.tracker.touch(name, stamp, now_s)
            raise
        return len(pictures)

    def _is_picture(self, name: bytes, stamp: Stamp) -> bool:
        if self._inbox.claims_picture(name):
            return True
        self._handled[name] = stamp
        log.info("file left alone reason=not a picture name=%r", os.fsdecode(name))
        return False

    def _arrive(self, settled: list[tuple[bytes, Stamp]]) -> None:
        with self._store.atomic():
            arrivals = self._store.files.arrive(sorted(settled))
        fault_point("arrived")
        for arrival in arrivals:
            name = arrival.candidate.name
            if arrival.sha256 is not None:
                self._handled[name] = arrival.candidate.stamp
            else:
                self._queued.add(name)
                self.queue.append(arrival.candidate)

    def put_back(self, candidates: Iterable[Candidate]) -> None:
        """Queue candidates again, first, when files settle next: their batch was not stored.

        Those whose moves were planned before it failed are left to the journal. Which they
        are cannot be asked now: the store may be locked.
        """
        self._returned.extend(candidates)

    @contextmanager
    def or_put_back(self, candidates: Iterable[Candidate]) -> Iterator[None]:
        """Put candidates back where a block that deals with them fails."""
        try:
            with foreign_errors(self._store.path):
                yield
        except ImgsortdError:
            self.put_back(candidates)
            raise

    def _queue_returned(self) -> None:
        if not self._returned:
            return
        unplanned = set(self._store.files.pending_names().values())
        returned, self._returned = self._returned, []
        for candidate in reversed(returned):
            if candidate.file_id in unplanned:
                self._queued.add(candidate.name)
                self.queue.appendleft(candidate)
            else:
                self._queued.discard(candidate.name)
                self._handled[candidate.name] = candidate.stamp

    def done(
        self,
        settled: Iterable[Candidate],
        left: Iterable[bytes],
        look_again: Iterable[bytes],
        denied: Iterable[bytes],
        now_s: float,
    ) -> None:
        """Learn what became of files: stored, moved out, changed meanwhile, or not readable."""
        for candidate in settled:
            self._queued.discard(candidate.name)
            self._handled[candidate.name] = candidate.stamp
        for name in left:
            self._queued.discard(name)
            self._handled.pop(name, None)
        for name in look_again:
            self._watch_again(name, now_s + _BUSY_RETRY_S)
        for name in denied:
            self._watch_again(name, now_s + _DENIED_RETRY_S)

    def _watch_again(self, name: bytes, from_s: float) -> None:
        self._queued.discard(name)
        self._handled.pop(name, None)
        stamp = self._inbox.look(name)
        if stamp is not None:
            self.tracker.touch(name, stamp, from_s)
