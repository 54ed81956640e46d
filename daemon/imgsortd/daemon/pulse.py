"""What the daemon says of itself: the heartbeat and errors in the store, pings to systemd."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from imgsortd.errors import ImgsortdError
from imgsortd.records import Phase
from imgsortd.store.control import Heartbeat
from imgsortd.store.database import Store

log = logging.getLogger(__name__)

BUSY_S = 2.0
_IDLE_S = 15.0
_BUSY = (Phase.SORTING, Phase.REEXTRACTING)
_TELL_AGAIN_S = 600.0
_REMEMBERED = 1000


class Pulse:
    """Writes the heartbeat when it is due or when the phase changes.

    Parameters
    ----------
    on_tick
        Called at every beat, written or not, with (phase, note): systemd's pings.
    """

    def __init__(self, store: Store, on_tick: Callable[[Phase, str], None]) -> None:
        self._store = store
        self._on_tick = on_tick
        self._started_at = time.time()
        self._phase = Phase.STARTING
        self._next_beat_s = 0.0
        self._images_per_s: float | None = None
        self._told_at_s: dict[str, float] = {}

    def extracted(self, images: int, took_s: float) -> None:
        """Learn how fast the last batch was."""
        self._images_per_s = images / took_s

    def beat(
        self,
        phase: Phase,
        *,
        note: str,
        queue: int,
        model_busy: float | None,
        runs_on: str,
        watching: bool,
    ) -> None:
        """Say how things are.

        Raises
        ------
        NoSpaceError
            The state disk is full; systemd has been told all the same.
        """
        self._on_tick(phase, note)
        now = time.monotonic()
        if phase is self._phase and now < self._next_beat_s:
            return
        self._phase = phase
        self._next_beat_s = now + (BUSY_S if phase in _BUSY else _IDLE_S)
        heartbeat = Heartbeat(
            pid=os.getpid(),
            phase=phase,
            started_at=self._started_at,
            beat_at=time.time(),
            queue=queue,
            images_per_s=self._images_per_s if phase is Phase.SORTING else None,
            watching="inotify" if watching else "polling",
            note=note,
            model_busy=model_busy,
            runs_on=runs_on,
        )
        with self._store.atomic():
            self._store.control.beat(heartbeat)

    def tell_error(self, event: str, detail: str) -> None:
        """Log an error and keep it for ``status``; one that comes back soon is not told again."""
        now = time.monotonic()
        if now - self._told_at_s.get(detail, float("-inf")) < _TELL_AGAIN_S:
            return
        if len(self._told_at_s) >= _REMEMBERED:
            self._told_at_s.clear()
        self._told_at_s[detail] = now
        log.error("%s: %s", event, detail)
        try:
            with self._store.atomic():
                self._store.control.add_error(event, detail)
        except ImgsortdError as error:
            log.error("error not stored reason=%s", error)
