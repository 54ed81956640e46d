"""The daemon's process: adapters built, signals heard, systemd told, configuration reloaded."""

from __future__ import annotations

import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from imgsortd.config import load_config
from imgsortd.config.model import Config
from imgsortd.config.values import Polling
from imgsortd.daemon.loop import Loop, Stop
from imgsortd.errors import ConfigError, ImgsortdError, MoveError, StoreDamagedError
from imgsortd.inbox.intake import UNFINISHED_S, Intake
from imgsortd.inbox.listing import Inbox
from imgsortd.inbox.watching import Watcher, filesystem_of, is_network_filesystem
from imgsortd.inbox.whereabouts import Whereabouts
from imgsortd.library import clusters_in_force, open_library
from imgsortd.moves.crossing import return_orphans
from imgsortd.networks.building import build_extractor
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.reading import PictureReader
from imgsortd.records import Op, Phase, Root
from imgsortd.store.database import Store
from imgsortd.store.health import wants_full_check
from imgsortd.system import filesystem
from imgsortd.system.locks import LockKey, Locks
from imgsortd.system.logs import set_up_logs
from imgsortd.system.systemd import Notifier
from imgsortd.target.rebuild import open_or_restore

log = logging.getLogger(__name__)


class Daemon:
    """One process: a :class:`~imgsortd.daemon.loop.Loop` after another, a new one at each reload.

    Parameters
    ----------
    config_file
        Read at the start and again on SIGHUP.
    notifier
        systemd's ear; does nothing in a terminal.
    once
        Sort what is in the inbox, fit where a fit is due, and return.
    """

    def __init__(self, config_file: Path, notifier: Notifier, *, once: bool = False) -> None:
        self._config_file = config_file
        self._once, self._notifier = once, notifier
        self._loop: Loop | None = None
        self._stop = Stop()
        self._reload_wanted = False
        self._stopped_by = 0
        self._next_ping_s = 0.0
        self._shown = ""

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, or once.

        Raises
        ------
        ImgsortdError
            The configuration, weights, locks or store cannot be used at the start; or
            the one run had to stop before all was sorted.
        """
        config = load_config(self._config_file)
        if self._once:  # one listing finds what is there
            config = config.model_copy(update={"polling": Polling.ON})
        set_up_logs(config.log_level)
        filesystem.allow_leases()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        log.info("daemon starting pid=%d config=%s", os.getpid(), self._config_file)
        with Locks(*_locked(config)) as locks:
            self._notifier.status(f"loading {config.model.backbone.product_name}")
            extractor = build_extractor(config.model, config.state_dir)
            setup = _Setup(config, extractor, locks.held)
            while not self._stopped_by:
                setup = self._work(setup, locks)
                locks.only(setup.locked)
                if self._once:
                    break
        _hear_no_more()
        self._notifier.stopping()
        why = signal.Signals(self._stopped_by).name if self._stopped_by else "none, all is done"
        log.info("daemon stopped signal=%s", why)

    def _on_stop(self, number: int, _frame: object) -> None:
        _hear_no_more()
        self._stopped_by = number
        if self._loop is None:
            raise SystemExit(0)  # no batch in hand: a download need not come to its end
        self._stop.want()

    def _on_reload(self, _number: int, _frame: object) -> None:
        self._reload_wanted = True
        self._stop.want()

    def _work(self, setup: _Setup, locks: Locks) -> _Setup:
        """Work with one configuration until another is in force, and return that one."""
        try:
            with open_or_restore(setup.config, self._notifier.starting) as store:
                whereabouts = _whereabouts(setup, store, locks)
                if self._once:
                    whereabouts.accept()
                self._loop = loop = self._build_loop(setup, store, whereabouts)
                try:
                    loop.prepare()
                    self._notifier.ready("watching the inbox")
                    config = setup.config
                    log.info("daemon ready inbox=%s target=%s", config.inbox, config.target)
                    return self._run(loop, setup, store, locks)
                finally:
                    loop.close()
                    self._loop = None
        except StoreDamagedError:
            wants_full_check(setup.config.database).touch(0o600)
            raise

    def _run(self, loop: Loop, setup: _Setup, store: Store, locks: Locks) -> _Setup:
        if self._once:
            if reason := loop.run_once():
                raise MoveError(f"not all was sorted: {reason}")
            return setup
        while True:
            if not (self._stopped_by or self._reload_wanted):
                loop.run()
            self._stop.forget()
            if self._stopped_by:
                return setup
            if self._reload_wanted:
                self._reload_wanted = False
                if (new := self._reload(setup, store, locks)) is not None:
                    return new

    def _build_loop(self, setup: _Setup, store: Store, whereabouts: Whereabouts) -> Loop:
        config, extractor = _listed_where_unheard(setup.config), setup.extractor
        library = open_library(
            config,
            store,
            extractor,
            may_reextract=True,
            after_each=self._ping,
            stopping=self._stop,
            home=whereabouts,
        )
        _tell_returned(library.moves.give_back_orphans(Root.TARGET))
        inbox = Inbox(
            config.inbox,
            config.recursive,
            config.ignore,
            config.extensions,
            config.companions,
            whereabouts.meet,
        )
        clock, companions = time.time if self._once else None, library.companions
        settle_s, limits = config.settle_s, decode_limits(config.pictures)
        return Loop(
            library,
            Intake(inbox, store, settle_s, companions, UNFINISHED_S, whereabouts, clock),
            Watcher(config.inbox, config.recursive),
            PictureReader(config.inbox, limits, model_on_cpu=extractor.on_cpu),
            self._tick,
            self._stop,
            is_away=whereabouts.is_away,
            once=self._once,
        )

    def _ping(self) -> None:
        if self._loop is not None and self._loop.is_stuck:
            return  # systemd starts the daemon again, and the model with it
        now = time.monotonic()
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is not None and now >= self._next_ping_s:
            self._notifier.watchdog()
            self._next_ping_s = now + interval_s / 2

    def _tick(self, phase: Phase, note: str) -> None:
        self._ping()
        shown = f"{phase}: {note}" if note else str(phase)
        if shown != self._shown:
            self._notifier.status(shown)
            self._shown = shown

    def _reload(self, old: _Setup, store: Store, locks: Locks) -> _Setup | None:
        """Read the file again; None where what it says cannot work and the old stays in force."""
        self._notifier.reloading(time.monotonic_ns() // 1000)
        try:
            config = load_config(self._config_file)
            same = config.model == old.config.model
            extractor = old.extractor if same else build_extractor(config.model, config.state_dir)
            new = _Setup(config, extractor, locks.also(*_locked(config)))
            _check_features(new, old, store)
        except ImgsortdError as error:
            locks.only(old.locked)
            for line in str(error).splitlines():
                log.error("reload refused, the old configuration stays in force: %s", line)
            self._notifier.ready("reload refused: " + str(error).splitlines()[0])
            self._shown = ""
            return None
        set_up_logs(config.log_level)
        log.info("configuration reloaded file=%s", self._config_file)
        return new


def _hear_no_more() -> None:
    """Ignore what stops: neither the end of the work nor Python's own dies of a second Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True, slots=True)
class _Setup:
    """What a loop is built from."""

    config: Config
    extractor: FeatureExtractor
    locked: set[LockKey]


def _listed_where_unheard(config: Config) -> Config:
    """Let the inbox be listed where others' files raise no events here."""
    kind = filesystem_of(config.inbox)
    if config.polling is not Polling.AUTO or not is_network_filesystem(kind):
        return config
    log.info("inbox is on %s: others' files raise no events here, so it is listed", kind)
    return config.model_copy(update={"polling": Polling.ON})


def _locked(config: Config) -> tuple[Path, Path]:
    return config.state_dir, config.inbox


def _check_features(new: _Setup, old: _Setup, store: Store) -> None:
    """Refuse, before anything is switched, a model that the stored clusters do not fit."""
    if new.config.state_dir.resolve() == old.config.state_dir.resolve():
        clusters_in_force(new.config, store, new.extractor, may_reextract=True)
        return
    # A second connection to the same file would drop the first one's locks when it closes.
    with open_or_restore(new.config) as other:
        clusters_in_force(new.config, other, new.extractor, may_reextract=True)


def _whereabouts(setup: _Setup, store: Store, locks: Locks) -> Whereabouts:
    """Return what knows the inbox; where it is another folder, that one is locked, too."""
    config = setup.config

    def on_arrival() -> None:
        wanted = locks.also(*_locked(config))
        locks.only(wanted)  # the former one may be unmounted now
        setup.locked.clear()
        setup.locked.update(wanted)
        if config.op is Op.MOVE:  # claims that a lost database or a late mount has hidden
            _tell_returned(return_orphans(config.inbox, store.journal.unfinished()))

    return Whereabouts(config.inbox, store, on_arrival, locks.is_removed)


def _tell_returned(names: list[bytes]) -> None:
    for name in names:
        log.warning("claim without a journal row given back name=%r", os.fsdecode(name))


def run_daemon(config_file: Path, *, once: bool = False) -> None:
    """Run the daemon in the foreground, for systemd or a terminal; or once, for cron.

    Raises
    ------
    ConfigError
        ``model.*`` or the folders cannot be used; systemd does not start it again.
    """
    notifier = Notifier.from_environment(os.environ)
    try:
        Daemon(config_file, notifier, once=once).run()
    except ConfigError as error:
        notifier.status(str(error).splitlines()[0])
        raise
