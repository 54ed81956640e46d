"""The daemon's process: adapters built, signals heard, systemd told, configuration reloaded."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from imgsortd.adapters import fsops
from imgsortd.adapters.crossing import return_orphans
from imgsortd.adapters.features import VggExtractor, build_extractor
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.locking import Locks
from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store import Store, open_store
from imgsortd.adapters.systemd import Notifier
from imgsortd.adapters.watching import Watcher, filesystem_of, is_network_filesystem
from imgsortd.config import Config, Polling, load_config
from imgsortd.core.lifecycle import Phase
from imgsortd.core.records import Op
from imgsortd.errors import ConfigError, ImgsortdError
from imgsortd.intake import Intake
from imgsortd.logs import set_up_logs
from imgsortd.loop import Loop
from imgsortd.pipeline import open_library

log = logging.getLogger(__name__)


class Daemon:
    """One process: a :class:`~imgsortd.loop.Loop` after another, a new one at each reload.

    Parameters
    ----------
    config_file
        Read at the start and again on SIGHUP.
    notifier
        systemd's ear; does nothing in a terminal.
    """

    def __init__(self, config_file: Path, notifier: Notifier) -> None:
        self._config_file = config_file
        self._notifier = notifier
        self._loop: Loop | None = None
        self._reload_wanted = False
        self._stop_wanted = False
        self._next_ping_s = 0.0
        self._shown = ""

    def run(self) -> None:
        """Work until SIGTERM or SIGINT.

        Raises
        ------
        ImgsortdError
            The configuration, weights, locks or store cannot be used at the start.
        """
        config = load_config(self._config_file)
        set_up_logs(config.log_level)
        fsops.allow_leases()
        self._listen()
        log.info("daemon starting pid=%d config=%s", os.getpid(), self._config_file)
        self._notifier.status("loading VGG16")
        extractor = build_extractor(config.model)
        while not self._stop_wanted:
            with Locks(config.state_dir, config.inbox if config.op is Op.MOVE else None):
                self._work(config, extractor)
            if self._reload_wanted and not self._stop_wanted:
                self._reload_wanted = False
                config, extractor = self._reload(config, extractor)
        self._notifier.stopping()
        log.info("daemon stopped")

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_stop(self, number: int, _frame: object) -> None:
        log.info("stop asked signal=%s", signal.Signals(number).name)
        self._stop_wanted = True
        if self._loop is not None:
            self._loop.stopping = True

    def _on_reload(self, _number: int, _frame: object) -> None:
        self._reload_wanted = True
        if self._loop is not None:
            self._loop.stopping = True

    def _work(self, config: Config, extractor: VggExtractor) -> None:
        store = open_store(config.database)
        try:
            self._loop = _build_loop(config, store, extractor, self._tick)
            self._loop.stopping = self._stop_wanted or self._reload_wanted
            try:
                self._loop.prepare()
                self._notifier.ready("watching the inbox")
                log.info("daemon ready inbox=%s target=%s", config.inbox, config.target)
                self._loop.run()
            finally:
                self._loop.close()
                self._loop = None
        finally:
            store.close()

    def _tick(self, phase: Phase, note: str) -> None:
        now = time.monotonic()
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is not None and now >= self._next_ping_s:
            self._notifier.watchdog()
            self._next_ping_s = now + interval_s / 2
        shown = f"{phase}: {note}" if note else str(phase)
        if shown != self._shown:
            self._notifier.status(shown)
            self._shown = shown

    def _reload(self, old: Config, extractor: VggExtractor) -> tuple[Config, VggExtractor]:
        """Read the file again; keep the old configuration when the new one cannot work."""
        self._notifier.reloading(time.monotonic_ns() // 1000)
        try:
            config = load_config(self._config_file)
            if config.model != old.model:
                extractor = build_extractor(config.model)
            _check_features(config, extractor)
        except ImgsortdError as error:
            for line in str(error).splitlines():
                log.error("reload refused, the old configuration stays in force: %s", line)
            return old, extractor
        set_up_logs(config.log_level)
        log.info("configuration reloaded file=%s", self._config_file)
        return config, extractor


def _check_features(config: Config, extractor: VggExtractor) -> None:
    """Refuse, before anything is switched, a model that the stored clusters do not fit."""
    store = open_store(config.database)
    try:
        open_library(config, store, extractor)
    finally:
        store.close()


def _build_loop(
    config: Config,
    store: Store,
    extractor: VggExtractor,
    on_tick: Callable[[Phase, str], None],
) -> Loop:
    library = open_library(config, store, extractor)
    if config.op is Op.MOVE:
        open_moves = {move.move_id for move in store.journal.unfinished()}
        for name in return_orphans(config.inbox, open_moves):
            log.warning("claim without a journal row given back name=%r", os.fsdecode(name))
    inbox = Inbox(config.inbox, config.recursive, config.ignore, config.extensions)
    kind = filesystem_of(config.inbox)
    if config.polling is Polling.AUTO and is_network_filesystem(kind):
        log.info("inbox is on %s: others' files raise no events here, so it is listed", kind)
        config = config.model_copy(update={"polling": Polling.ON})
        library.config = config
    return Loop(
        library,
        Intake(inbox, store, config.settle_s),
        Watcher(config.inbox, config.recursive),
        PictureReader(config.inbox, config.pictures.max_megapixels),
        on_tick,
    )


def run_daemon(config_file: Path) -> None:
    """Run the daemon in the foreground, for systemd or a terminal.

    Raises
    ------
    ConfigError
        ``model.*`` or the folders cannot be used; systemd does not start it again.
    """
    notifier = Notifier.from_environment(os.environ)
    try:
        Daemon(config_file, notifier).run()
    except ConfigError as error:
        notifier.status(str(error).splitlines()[0])
        raise
