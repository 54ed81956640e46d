"""What the loop does when there is little else to do: give memory back, copy the database."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable

from imgsortd.clusters.in_force import InForce
from imgsortd.config.model import Config
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.pictures.reading import PictureReader
from imgsortd.store import backups
from imgsortd.store.database import Store
from imgsortd.system import resources

log = logging.getLogger(__name__)

_REST_AFTER_S = 30.0
_BACKUP_LOOK_S = 5.0
_DAY_S = 86_400.0


class Housekeeping:
    """Rests and backups of one loop.

    Parameters
    ----------
    stopping
        Whether the loop is to end: a backup is given up then.
    on_tick
        Called before and after what takes long.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        extractor: FeatureExtractor,
        in_force: InForce,
        reader: PictureReader,
        stopping: Callable[[], bool],
        on_tick: Callable[[], None],
    ) -> None:
        self._config, self._store, self._extractor = config, store, extractor
        self._in_force, self._reader = in_force, reader
        self._stopping, self._on_tick = stopping, on_tick
        self._rested = self._unloaded = False
        self._next_backup_look_s = 0.0

    def worked(self) -> None:
        """Learn that something was done, so that there is memory to give back again."""
        self._rested = self._unloaded = False

    def step(self, now_s: float, idle_s: float) -> None:
        """Do what is due after so many seconds of nothing; 0 while there is work."""
        unload_after_s = self._config.model.unload_after_s
        if unload_after_s is not None and idle_s > unload_after_s and not self._unloaded:
            self._extractor.unload()
            self._unloaded, self._rested = True, False
        if idle_s > _REST_AFTER_S and not self._rested:
            self._reader.rest()
            resources.give_back()
            self._rested = True
        if now_s >= self._next_backup_look_s:
            self._next_backup_look_s = now_s + _BACKUP_LOOK_S
            if self._config.backups and self._is_backup_due(idle_s):
                self._back_up()

    def _is_backup_due(self, idle_s: float) -> bool:
        """Once a day when there is time; at once where there is none of today or yesterday."""
        if self._in_force.model is None:
            return False  # nothing is sorted yet, or features are being made anew
        now = time.time()
        there = backups.backups(self._config.state_dir, backups.day_of(now))
        days = {path.stem.removeprefix("imgsortd-") for path in there}
        if backups.day_of(now) in days:
            return False
        return idle_s > _REST_AFTER_S or backups.day_of(now - _DAY_S) not in days

    def _back_up(self) -> None:
        """Copy the database; a failure costs the copy and a warning, never the sorting."""
        store, state_dir = self._store, self._config.state_dir
        today, started_s = backups.day_of(time.time()), time.perf_counter()
        self._on_tick()
        try:
            path = backups.make_backup(store.connection, state_dir, today, self._stopping)
            if path is None:
                return
            store.library.copied()
            backups.prune(state_dir, today, self._config.backups)
            size_mb = path.stat().st_size / 1e6
        except (OSError, sqlite3.Error) as error:
            log.warning("backup not made folder=%s reason=%s", state_dir / backups.FOLDER, error)
            return
        took_s = time.perf_counter() - started_s
        log.info("backup made file=%s mb=%.1f took_s=%.2f", path, size_mb, took_s)
        self._on_tick()
