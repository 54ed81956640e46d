"""From hints and scans to settled files with a row in the store."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.adapters.whereabouts import Whereabouts
from imgsortd.batch_report import BatchReport
from imgsortd.companions import Companions
from imgsortd.core.companions import CompanionRule
from imgsortd.core.lifecycle import Arrivals
from imgsortd.core.records import Candidate, FileState, Stamp
from imgsortd.core.stability import SettleTracker
from imgsortd.errors import ImgsortdError
from imgsortd.patience import Patience

log = logging.getLogger(__name__)

UNFINISHED_S = 600.0
"""How long a file that looks unfinished may stay unchanged before it is set aside."""
_MOST_STRANGE = 1000
_DENIED_RETRY_S = 60.0
_BUSY_RETRY_S = 1.0
_TRIES = 2
"""Times that a file is read in vain before a fit no longer waits for it."""


class Intake:
    """Knows every file in the inbox: settling, queued, or handled.

    Parameters
    ----------
    settle_s
        Seconds without a change after which a file counts as finished.
    companions
        Told of the files that go with a picture; where None, there are none.
    patience_s
        Seconds without a change after which a file that looks unfinished is set aside.

    Attributes
    ----------
    queue
        Finished files in the order they are to be read.
    whereabouts
        Where it is known which folder the inbox is.
    patience
        How long files are waited for that are not taken at once.
    """

    def __init__(
        self,
        inbox: Inbox,
        store: Store,
        settle_s: float,
        companions: Companions | None = None,
        patience_s: float = 0.0,
    ) -> None:
        self._inbox = inbox
        self._store = store
        self._companions = companions or Companions(CompanionRule(), store, lambda _: False)
        self.whereabouts: Whereabouts | None = None
        self.patience = Patience(settle_s, patience_s)
        self._strange: set[bytes] = set()
        self._left_alone = dict(store.control.left_alone())
        self.tracker = SettleTracker(settle_s)
        self.queue: deque[Candidate] = deque()
        self._queued: set[bytes] = set()
        self._returned: list[Candidate] = []
        self._handled: dict[bytes, Stamp] = dict(store.files.handled())
        self._no_pictures: set[bytes] = set()
        self._tries: dict[bytes, tuple[Stamp, int]] = {}  # to read it as it stands, in vain
        self._arrived_at_s: float | None = None

    @property
    def folders(self) -> int:
        """How many folders the last listing has gone through."""
        return self._inbox.folders

    def arrivals(self, now_s: float, being_read: int) -> Arrivals:
        """Say whether all that is there is read, and since when nothing has come.

        A file that could not be read as it stands is no longer waited for, nor one that was no
        picture when it was looked at last.

        Parameters
        ----------
        being_read
            Files that have left the queue, and are not stored yet.
        """
        settling = sum(
            not (name in self._no_pictures or self._is_put_off(name, stamp))
            for name, stamp in self.tracker.watched()
        )
        unread = len(self.queue) + len(self._returned) + being_read
        quiet_s = 0.0 if self._arrived_at_s is None else now_s - self._arrived_at_s
        return Arrivals(unread, settling, quiet_s)

    def _is_put_off(self, name: bytes, stamp: Stamp) -> bool:
        known, times = self._tries.get(name, (None, 0))
        return times >= _TRIES and known is not None and known.same_content(stamp)

    def hint(self, names: Iterable[bytes], now_s: float) -> None:
        """Take names that events spoke of."""
        for name in names:
            if name in self._queued:
                continue  # the reader compares the stamp and sends it back if it changed
            stamp = self._inbox.look(name)
            if stamp is None:
                self._vanished(name, now_s)
            elif self._is_handled(name, stamp):
                self._companions.see(name, stamp)
            else:
                self._companions.see(name, None)
                self.tracker.touch(name, stamp, now_s)

    def scan(self, now_s: float) -> None:
        """List the inbox; find what events missed, and what its owner took away.

        Raises
        ------
        WatchError
            The inbox cannot be listed; nothing is taken for gone then.
        """
        if self._arrived_at_s is None:  # whoever copies may have begun before this process
            self._arrived_at_s = now_s
        there = set()
        for name, stamp in self._inbox.scan():
            there.add(name)
            is_handled = self._is_handled(name, stamp)
            self._companions.see(name, stamp if is_handled else None)
            if name not in self._queued and not is_handled:
                self.tracker.see(name, stamp, now_s)
        self._handled = {name: s for name, s in self._handled.items() if name in there}
        self._companions.keep(there)
        self.patience.keep(there)
        self._no_pictures &= there
        self._tries = {name: tried for name, tried in self._tries.items() if name in there}
        self._strange &= self._handled.keys()
        self._keep_left_alone()
        pending = self._store.files.pending_names()
        known = there | self._queued
        undone = self._store.files.undone_names()
        if self.whereabouts is not None:
            rows = (*pending.items(), *undone.items())
            self.whereabouts.seen(row for name, row in rows if name in there)
        is_away = self._store.files.is_away
        gone = [row for name, row in pending.items() if not (name in known or is_away(row))]
        taken = [row for name, row in undone.items() if not (name in there or is_away(row))]
        unwanted = self._store.files.unwanted_names()
        left = [row for name, row in unwanted.items() if not (name in there or is_away(row))]
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
        for name in pending.keys() - known:
            self._vanished(name, now_s)

    def _vanished(self, name: bytes, now_s: float) -> None:
        self.tracker.forget(name)
        self._not_there(name, now_s)

    def _not_there(self, name: bytes, now_s: float) -> None:
        """Look anew at what waits for a file as for its picture."""
        self._companions.drop(name)
        for companion in self._companions.of(name):
            stamp = self._inbox.look(companion)
            if self._handled.pop(companion, None) and stamp is not None:
                self.tracker.touch(companion, stamp, now_s)

    def _is_handled(self, name: bytes, stamp: Stamp) -> bool:
        known = self._handled.get(name)
        return known is not None and known.same_content(stamp)

    def settle(self, now_s: float, at_most: int | None = None) -> int:
        """Queue the files that have become finished, the first ``at_most``; return how many."""
        self._queue_returned()
        looks = []
        quiet = self.tracker.quiet(now_s)[:at_most]
        moving = self._store.journal.moving_in_inbox() if quiet else set()
        for name in quiet:
            stamp = self._inbox.look(name)
            if stamp is None:
                self._vanished(name, now_s)
            elif name in moving:
                # A new file under the name of an open move would take over that one's row.
                self.tracker.touch(name, stamp, now_s + _BUSY_RETRY_S)
            else:
                looks.append((name, stamp))
        stamps = dict(looks)
        settled = {name: stamps[name] for name in self.tracker.settle(looks, now_s)}
        pictures = [
            found
            for found in settled.items()
            if self._is_picture(*found, lambda name: name in settled or name in self.tracker)
        ]
        try:
            if pictures:
                self._arrive(pictures, now_s)
        except (ImgsortdError, OSError):  # full or locked: only the next scan would see them
            for name, stamp in pictures:
                self.tracker.touch(name, stamp, now_s)
            raise
        if len(pictures) < len(settled):
            self._keep_left_alone()
        return len(pictures)

    def _is_picture(self, name: bytes, stamp: Stamp, is_there: Callable[[bytes], bool]) -> bool:
        awaits = self._companions.awaits_picture(name, is_there)
        if not awaits and self._inbox.claims_picture(name):
            self._no_pictures.discard(name)
            return True
        self._no_pictures.add(name)
        self._handled[name] = stamp
        if self._companions.leave(name, stamp, is_there, "not a picture"):
            self._strange.add(name)
        return False

    def _keep_left_alone(self) -> None:
        """Keep for ``status`` what is not sorted, where that has changed."""
        strange = dict.fromkeys(sorted(self._strange)[:_MOST_STRANGE], "not a picture")
        left_alone = {**strange, **self._inbox.left_alone}
        if left_alone != self._left_alone:
            with self._store.atomic():
                self._store.control.leave_alone(left_alone)
            self._left_alone = left_alone

    def _arrive(self, settled: list[tuple[bytes, Stamp]], now_s: float) -> None:
        with self._store.atomic():
            arrivals = self._store.files.arrive(sorted(settled))
        fault_point("arrived")
        for arrival in arrivals:
            name = arrival.candidate.name
            if arrival.sha256 is not None:
                self._handled[name] = arrival.candidate.stamp
            else:
                if not self._is_put_off(name, arrival.candidate.stamp):
                    self._arrived_at_s = now_s
                self._queued.add(name)
                self.queue.append(self.patience.give(arrival.candidate, now_s))

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
        except (ImgsortdError, OSError):
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

    def learn(self, report: BatchReport, now_s: float) -> None:
        """Learn what became of a batch's files.

        An incomplete one is looked at again when it has changed, or patience ends.
        """
        self.done(report.settled, report.left, now_s)
        for name in report.look_again:
            self._watch_again(name, now_s + _BUSY_RETRY_S, tries=1)
        for name in report.denied:
            self._watch_again(name, now_s + _DENIED_RETRY_S, tries=_TRIES)
        for name in report.unasked:
            stamp = self._watch_again(name, now_s)
            if stamp is not None:
                self.tracker.touch(name, stamp, self.patience.unasked(name, stamp, now_s))
        for candidate in report.incomplete:
            self._watch_unfinished(candidate, now_s)

    def done(self, settled: Iterable[Candidate], left: Iterable[bytes], now_s: float) -> None:
        """Learn of files that are stored, and of names that were moved out."""
        for candidate in settled:
            self._queued.discard(candidate.name)
            self._tries.pop(candidate.name, None)
            self._handled[candidate.name] = candidate.stamp
            self._companions.see(candidate.name, candidate.stamp)
        for name in left:
            self._queued.discard(name)
            self._handled.pop(name, None)
            self._not_there(name, now_s)

    def _watch_unfinished(self, candidate: Candidate, now_s: float) -> None:
        name, stamp = candidate.name, candidate.stamp
        if self._inbox.look(name) != stamp:
            self._watch_again(name, now_s)
            return
        until_s = self.patience.unfinished(candidate, now_s)
        self._watch_again(name, until_s - self.tracker.settle_s, tries=_TRIES)

    def _watch_again(self, name: bytes, from_s: float, tries: int = 0) -> Stamp | None:
        """Let a file settle again that was read in vain so many times, as it stands."""
        self._queued.discard(name)
        self._handled.pop(name, None)
        stamp = self._inbox.look(name)
        if stamp is not None:
            known, times = self._tries.get(name, (None, 0))
            same = known is not None and known.same_content(stamp)
            self._tries[name] = stamp, tries + (times if same else 0)
            self.tracker.touch(name, stamp, from_s)
        return stamp
