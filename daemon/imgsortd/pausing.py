"""Sorting that pauses for what is not the fault of one file, and tries again."""

from __future__ import annotations

import logging

from imgsortd.core.backoff import Backoff

log = logging.getLogger(__name__)

_FIRST_S = 2.0
_LAST_S = 60.0


class Pause:
    """Why no file is sorted now, and when it is tried again.

    Parameters
    ----------
    first_s, last_s
        Seconds before the first new try, and the longest ever.

    Attributes
    ----------
    note
        The reason; empty while files are sorted.
    """

    def __init__(self, first_s: float = _FIRST_S, last_s: float = _LAST_S) -> None:
        self._backoff = Backoff(first_s, last_s)
        self.note = ""

    def begin(self, note: str, now_s: float) -> None:
        """Stop sorting for a while; watching, fits and status go on."""
        if not self.note:
            log.error("sorting paused reason=%s", note)
        self.note = note
        self._backoff.fail(now_s)

    def end(self) -> None:
        """Sort again."""
        if self.note:
            log.info("sorting goes on")
        self.note = ""

    def try_later(self, now_s: float) -> None:
        """Ask for another try of moves that are open, without a pause."""
        self._backoff.fail(now_s)

    def take(self, now_s: float) -> bool:
        """Tell whether another try is due, and count it as begun."""
        return self._backoff.take(now_s)

    def went_well(self) -> None:
        """Learn that something was done: the next trouble begins with the shortest wait."""
        if not self._backoff.is_waiting:
            self._backoff.reset()
