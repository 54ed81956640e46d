"""Sorting that pauses for what is not the fault of one file, and tries again."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

_FIRST_S = 2.0
_LAST_S = 60.0


class Pause:
    """Why no file is sorted now, and when it is tried again; each delay is twice the last one.

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
        self._first_s, self._last_s = first_s, last_s
        self._delay_s = first_s
        self._due_s: float | None = None
        self.note = ""

    def begin(self, note: str, now_s: float) -> None:
        """Stop sorting for a while; watching, fits and status go on."""
        if not self.note:
            log.error("sorting paused reason=%s", note)
        self.note = note
        self.try_later(now_s)

    def end(self) -> None:
        """Sort again."""
        if self.note:
            log.info("sorting goes on")
        self.note = ""

    def try_later(self, now_s: float) -> None:
        """Ask for another try (monotonic seconds), unless one is asked for; without a pause."""
        if self._due_s is None:
            self._due_s = now_s + self._delay_s
            self._delay_s = min(2 * self._delay_s, self._last_s)

    def take(self, now_s: float) -> bool:
        """Tell whether another try is due, and count it as begun."""
        if self._due_s is None or now_s < self._due_s:
            return False
        self._due_s = None
        return True

    def went_well(self) -> None:
        """Learn that something was done: the next trouble begins with the shortest wait."""
        if self._due_s is None:
            self._delay_s = self._first_s
