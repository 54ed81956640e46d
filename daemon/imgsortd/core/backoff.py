"""When is something that failed tried again? After a delay that doubles with each failure."""

from __future__ import annotations


class Backoff:
    """The delay between tries.

    Parameters
    ----------
    first_s, last_s
        Seconds before the first try, and the longest ever.
    """

    def __init__(self, first_s: float, last_s: float) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._delay_s = first_s
        self._due_s: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether another try is due now or later."""
        return self._due_s is not None

    def fail(self, now_s: float) -> None:
        """Ask for another try later (monotonic seconds), unless one is asked for already."""
        if self._due_s is not None:
            return
        self._due_s = now_s + self._delay_s
        self._delay_s = min(2 * self._delay_s, self._last_s)

    def take(self, now_s: float) -> bool:
        """Tell whether a try is due, and count it as begun."""
        if self._due_s is None or now_s < self._due_s:
            return False
        self._due_s = None
        return True

    def reset(self) -> None:
        """Begin with the first delay again: something went well."""
        self._delay_s = self._first_s
