"""From hints and scans to settled files with a row in the store."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from imgsortd.errors import ImgsortdError
from imgsortd.inbox.companions import Companions
from imgsortd.inbox.listing import Inbox
from imgsortd.inbox.settling import Patience, SettleTracker
from imgsortd.inbox.whereabouts import Whereabouts
from imgsortd.records import Arrivals, BatchReport, Candidate, Root, Stamp
from imgsortd.store.database import Store
from imgsortd.store.health import foreign_errors
from imgsortd.system.faults import fault_point

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

    ``whereabouts`` knows which folder it is. A file that looks unfinished is set aside when it
    has not changed for ``patience_s``.

    Attributes
    ----------
    queue
        Finished files in the order they are to be read.
    """

    def __init__(
        self,
        inbox: Inbox,
        store: Store,
        whereabouts: Whereabouts,
        companions: Companions,
        settle_s: float,
        patience_s: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._inbox, self._store, self._whereabouts = inbox, store, whereabouts
        self._companions = companions
        self.patience = Patience(settle_s, patience_s, clock)
        self._strange: set[bytes] = set()
        self._left_alone = dict(store.control.left_alone())
        self.tracker = SettleTracker(settle_s)
        self.queue: deque[Candidate] = deque()
        self._queued: set[bytes] = set()
        self._returned: list[Candidate] = []
        self._handled: dict[bytes, Stamp] = {}
        self._root_id: int | None = None  # of which folder these are
        self._no_pictures: set[bytes] = set()
        self._tries: dict[bytes, tuple[Stamp, int]] = {}  # to read it as it stands, in vain
        self._arrived_at_s: float | None = None
        self._has_woken = False

    @property
    def folders(self) -> int:
        """How many folders the last listing has gone through."""
        return self._inbox.folders

    def arrivals(self, now_s: float, being_read: int) -> Arrivals:
        """Say whether all that is there is read, and since when nothing has come.

        A file that could not be read as it stands is no longer waited for, nor one that was no
        picture when it was looked at last. Those ``being_read`` are in no queue, and not stored.
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

        A WatchError tells that it cannot be listed; nothing is taken for gone then.
        """
        if self._arrived_at_s is None:  # whoever copies may have begun before this process
            self._arrived_at_s = now_s
        self._whereabouts.meet(self._inbox.look_at_root())
        self._know_handled()
        there = self._list(now_s)
        self._bring_home(there)
        self._forget_all_but(there)
        self._keep_left_alone()
        self._end_missing(there, now_s)

    def _know_handled(self) -> None:
        """Learn what the folder that is the inbox now keeps, of earlier times."""
        root_id = self._store.roots.current(Root.INBOX).root_id
        if root_id != self._root_id:
            self._handled = dict(self._store.files.handled())
            self._root_id = root_id

    def _list(self, now_s: float) -> set[bytes]:
        """Return the names that are there; follow what is not queued or handled."""
        there = set()
        for name, stamp in self._inbox.scan():
            there.add(name)
            is_handled = self._is_handled(name, stamp)
            self._companions.see(name, stamp if is_handled else None)
            if name not in self._queued and not is_handled:
                self.tracker.see(name, stamp, now_s)
        return there

    def _bring_home(self, there: set[bytes]) -> None:
        """Keep what is known of files of a folder that this one has replaced, found in this one."""
        roots = self._store.roots
        if not roots.has_former():
            return
        found = [
            file
            for file in roots.former_files()
            if file.src in there
            and (stamp := self._inbox.look(file.src)) is not None
            and (stamp.size_bytes, stamp.mtime_ns) == (file.stamp.size_bytes, file.stamp.mtime_ns)
        ]
        if found:
            with self._store.atomic():
                roots.bring_home(file.file_id for file in found)
            log.info("files known from the former inbox count=%d", len(found))

    def _forget_all_but(self, there: set[bytes]) -> None:
        self._handled = {
            name: stamp
            for name, stamp in self._handled.items()
            if name in there or not self._inbox.has_looked_at(name)
        }
        self._companions.keep(there)
        self.patience.keep(there)
        self._no_pictures &= there
        self._tries = {name: tried for name, tried in self._tries.items() if name in there}
        self._strange &= self._handled.keys()

    def _end_missing(self, there: set[bytes], now_s: float) -> None:
        """End the rows of files that their owner has taken away."""
        if self._whereabouts.is_away:
            return  # replaced while it was listed
        files, known = self._store.files, there | self._queued
        pending = files.pending_names()
        gone, taken = self._missing(pending, known), self._missing(files.undone_names(), there)
        if left := self._missing(files.unwanted_names(), there):
            with self._store.atomic():
                files.forget_source(left)
        skipped = files.skipped_names()
        taken += self._missing(skipped, there)
        if gone or taken:
            with self._store.atomic():
                for file_id in gone:
                    files.gone(file_id)
                for file_id in taken:  # should it come again, it is sorted
                    files.end(file_id, "taken away from the inbox")
            log.info("files gone count=%d", len(gone) + len(taken))
        for name in pending.keys() - known:
            self._vanished(name, now_s)
        if skipped:
            with self._store.atomic():
                self._has_woken |= files.wake_skipped()

    def take_woken(self) -> bool:
        """Tell whether files wait again, since the last time, that were left as duplicates."""
        has_woken, self._has_woken = self._has_woken, False
        return has_woken

    def _missing(self, rows: Mapping[bytes, int], there: set[bytes]) -> list[int]:
        """Return the rows of names that were looked for where they stood, and are not there."""
        looked_at = self._inbox.has_looked_at
        return [row for name, row in rows.items() if name not in there and looked_at(name)]

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
        if self._whereabouts.is_away:
            return 0  # the next listing meets the folder that is there now
        looks: dict[bytes, Stamp] = {}
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
                looks[name] = stamp
        settled = {name: looks[name] for name in self.tracker.settle(looks.items(), now_s)}

        def is_there(name: bytes) -> bool:
            return name in settled or name in self.tracker

        pictures = [found for found in settled.items() if self._is_picture(*found, is_there)]
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
        """Learn what became of a batch's files; look again at those that could not be read."""
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
        else:
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
