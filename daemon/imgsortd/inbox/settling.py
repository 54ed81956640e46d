"""When is a file finished? Quiet for ``settle_s``, with the same stamp at both ends.

Method: the three conditions of paperless-ngx's consumer (no event, same size,
same mtime), on a monotonic clock that comes in as an argument, so that neither
a wrong wall clock nor an mtime in 2099 matters.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace

from imgsortd.records import Candidate, Stamp

log = logging.getLogger(__name__)

_UNASKED = 5
"""Times ``settle_s`` that a file is quiet where nobody can say whether it is being written."""


class SettleTracker:
    """Follow the files that are not finished yet."""

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self._watched: dict[bytes, tuple[Stamp, float]] = {}  # and since when it is quiet

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, name: bytes) -> bool:
        return name in self._watched

    def watched(self) -> Iterator[tuple[bytes, Stamp]]:
        """Yield the files that are followed, each with the stamp it was last seen with."""
        for name, (stamp, _) in self._watched.items():
            yield name, stamp

    def touch(self, name: bytes, stamp: Stamp, now_s: float) -> None:
        """Note an event for a file: its quiet time starts again."""
        self._watched[name] = stamp, now_s

    def see(self, name: bytes, stamp: Stamp, now_s: float) -> None:
        """Note a file met by a scan: only a changed stamp starts its time again."""
        if name not in self._watched or self._watched[name][0] != stamp:
            self.touch(name, stamp, now_s)

    def forget(self, name: bytes) -> None:
        """Stop following a file that went away."""
        self._watched.pop(name, None)

    def quiet(self, now_s: float) -> list[bytes]:
        """Return names that have been quiet long enough and need their second look."""
        watched = self._watched.items()
        return [name for name, (_, since_s) in watched if now_s - since_s >= self.settle_s]

    def settle(self, looks: Iterable[tuple[bytes, Stamp]], now_s: float) -> list[bytes]:
        """Take the second looks; return the files that are finished, and stop following them."""
        done = []
        for name, stamp in looks:
            if self._watched[name][0] == stamp:
                del self._watched[name]
                done.append(name)
            else:
                self.touch(name, stamp, now_s)
        return done

    def next_due_s(self) -> float | None:
        """Return when the next file can be quiet (monotonic seconds), or None."""
        if not self._watched:
            return None
        return min(since_s for _, since_s in self._watched.values()) + self.settle_s


class Patience:
    """Remembers how long each file has been waited for.

    Parameters
    ----------
    unfinished_s
        Seconds without a change after which a file that looks unfinished is set aside.
    clock
        The wall clock, for a process that ends before patience does: there a file has
        waited since it last changed. Without one it waits from when it was first read.
    """

    def __init__(
        self, settle_s: float, unfinished_s: float, clock: Callable[[], float] | None = None
    ) -> None:
        self._settle_s, self._unfinished_s = settle_s, unfinished_s
        self._unasked: dict[bytes, Stamp] = {}
        self._unfinished: dict[bytes, tuple[Stamp, float]] = {}  # until when it may be so
        self._clock = clock

    def give(self, candidate: Candidate, now_s: float) -> Candidate:
        """Tell the reader how much longer this file may wait (monotonic seconds)."""
        stamp = self._unasked.pop(candidate.name, None)
        waited = stamp is not None and stamp.same_content(candidate.stamp)
        return replace(
            candidate,
            is_patient=waited or not self._settle_s,
            patience_s=self._left_s(candidate, now_s),
        )

    def _left_s(self, candidate: Candidate, now_s: float) -> float:
        stamp, until_s = self._unfinished.get(candidate.name, (None, 0.0))
        if stamp == candidate.stamp:
            return max(0.0, until_s - now_s)
        age_s = 0.0 if self._clock is None else self._clock() - candidate.stamp.ctime_ns / 1e9
        return max(0.0, self._unfinished_s - max(0.0, age_s))

    def unasked(self, name: bytes, stamp: Stamp, now_s: float) -> float:
        """Note a file that nobody can be asked of; return from when it is to be quiet again."""
        self._unasked[name] = stamp
        # It has been quiet for settle_s once, and will have been again when it is due.
        return now_s + (_UNASKED - 2) * self._settle_s

    def unfinished(self, candidate: Candidate, now_s: float) -> float:
        """Note a file that looks unfinished; return until when it may stay so."""
        known, until_s = self._unfinished.get(candidate.name, (None, 0.0))
        if known != candidate.stamp:
            until_s = now_s + candidate.patience_s
            self._unfinished[candidate.name] = candidate.stamp, until_s
            text = "file looks unfinished name=%r set_aside_in_s=%.0f"
            log.info(text, os.fsdecode(candidate.name), candidate.patience_s)
        return until_s

    def keep(self, there: Container[bytes]) -> None:
        """Forget the files that a listing of the inbox lacks."""
        self._unfinished = {name: u for name, u in self._unfinished.items() if name in there}
        self._unasked = {name: u for name, u in self._unasked.items() if name in there}
