"""Which files are given more time: those that nobody can be asked of, and unfinished ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container
from dataclasses import replace

from imgsortd.core.records import Candidate, Stamp

log = logging.getLogger(__name__)

_UNASKED = 5
"""Times ``settle_s`` that a file is quiet where nobody can say whether it is being written."""


class Patience:
    """Remembers how long each file has been waited for.

    Parameters
    ----------
    settle_s
        Seconds without a change after which a file counts as finished.
    unfinished_s
        Seconds without a change after which a file that looks unfinished is set aside.

    Attributes
    ----------
    clock
        The wall clock, for a process that ends before patience does: there a file has
        waited since it last changed. Without one it waits from when it was first read.
    """

    def __init__(self, settle_s: float, unfinished_s: float) -> None:
        self._settle_s = settle_s
        self._unfinished_s = unfinished_s
        self._unasked: dict[bytes, Stamp] = {}
        self._unfinished: dict[bytes, tuple[Stamp, float]] = {}  # until when it may be so
        self.clock: Callable[[], float] | None = None

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
        age_s = 0.0 if self.clock is None else self.clock() - candidate.stamp.ctime_ns / 1e9
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
