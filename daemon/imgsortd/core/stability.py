"""When is a file finished? Quiet for ``settle_s``, with the same stamp at both ends.

Method: the three conditions of paperless-ngx's consumer (no event, same size,
same mtime), on a monotonic clock that comes in as an argument, so that neither
a wrong wall clock nor an mtime in 2099 matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imgsortd.core.records import Stamp


@dataclass(slots=True)
class _Watched:
    stamp: Stamp
    since_s: float


class SettleTracker:
    """Follow the files that are not finished yet.

    Parameters
    ----------
    settle_s
        Seconds without a change after which a file counts as finished.
    """

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self._watched: dict[bytes, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, name: bytes) -> bool:
        return name in self._watched

    def watched(self) -> Iterator[tuple[bytes, Stamp]]:
        """Yield the files that are followed, each with the stamp it was last seen with."""
        for name, watched in self._watched.items():
            yield name, watched.stamp

    def touch(self, name: bytes, stamp: Stamp, now_s: float) -> None:
        """Note an event for a file: its quiet time starts again."""
        self._watched[name] = _Watched(stamp, now_s)

    def see(self, name: bytes, stamp: Stamp, now_s: float) -> None:
        """Note a file met by a scan: only a changed stamp starts its time again."""
        known = self._watched.get(name)
        if known is None or known.stamp != stamp:
            self._watched[name] = _Watched(stamp, now_s)

    def forget(self, name: bytes) -> None:
        """Stop following a file that went away."""
        self._watched.pop(name, None)

    def quiet(self, now_s: float) -> list[bytes]:
        """Return names that have been quiet long enough and need their second look."""
        return [
            name
            for name, watched in self._watched.items()
            if now_s - watched.since_s >= self.settle_s
        ]

    def settle(self, looks: Iterable[tuple[bytes, Stamp]], now_s: float) -> list[bytes]:
        """Take the second looks; return the files that are finished, and stop following them."""
        done = []
        for name, stamp in looks:
            watched = self._watched[name]
            if watched.stamp == stamp:
                del self._watched[name]
                done.append(name)
            else:
                self._watched[name] = _Watched(stamp, now_s)
        return done

    def next_due_s(self) -> float | None:
        """Return when the next file can be quiet (monotonic seconds), or None."""
        if not self._watched:
            return None
        return min(watched.since_s for watched in self._watched.values()) + self.settle_s
