"""The daemon's process: adapters built, signals heard, systemd told, configuration reloaded."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imgsortd.config import load_config
from imgsortd.config.model import Config
from imgsortd.config.values import Polling
from imgsortd.daemon.loop import Loop, Stop
from imgsortd.errors import ConfigError, ImgsortdError, LostError, MoveError, StoreDamagedError
from imgsortd.inbox.intake import UNFINISHED_S, Intake
from imgsortd.inbox.listing import Inbox
from imgsortd.inbox.watching import Watcher, filesystem_of, is_network_filesystem
from imgsortd.inbox.whereabouts import Whereabouts
from imgsortd.library import clusters_in_force, open_library
from imgsortd.moves.roots import Roots, own_target
from imgsortd.networks.building import build_extractor
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.reading import PictureReader
from imgsortd.records import Phase, Root
from imgsortd.store.database import Store
from imgsortd.store.health import wants_full_check
from imgsortd.store.library import LibraryFile
from imgsortd.system import filesystem
from imgsortd.system.locks import LockKey, Locks
from imgsortd.system.logs import set_up_logs
from imgsortd.system.systemd import Notifier
from imgsortd.target.audit import audit
from imgsortd.target.rebuild import open_or_restore, take_in

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
    adopt
        Take the target over, whosoever it was.
    """

    def __init__(
        self, config_file: Path, notifier: Notifier, *, once: bool = False, adopt: bool = False
    ) -> None:
        self._config_file = config_file
        self._once, self._adopt, self._notifier = once, adopt, notifier
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
        with Locks(config.state_dir, config.inbox, target=config.target) as locks:
            with suppress(LostError):  # sorting waits for it, and says so
                own_target(config, LibraryFile(config.state_dir), adopt=self._adopt)
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
            with self._open(setup.config) as store:
                self._loop = loop = self._build_loop(setup, store, locks)
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

    def _open(self, config: Config) -> Store:
        """Open the store, made anew where it was lost; with ``adopt``, of all that target has."""
        store = open_or_restore(config, self._notifier.starting, adopt=self._adopt)
        if self._adopt:
            try:
                roots = Roots(config, store, lambda: None)
                roots.claim_target(adopt=True)
                found = audit(store, config)
                done = take_in(store, config, found, self._notifier.starting)
            except BaseException:
                store.close()
                raise
            log.info("target taken over: %s", "; ".join(done.told()) or "every file was known")
            self._adopt = False
        return store

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

    def _build_loop(self, setup: _Setup, store: Store, locks: Locks) -> Loop:
        config, extractor = _listed_where_unheard(setup.config), setup.extractor

        def hold() -> None:
            wanted = locks.also(*_locked(config))
            locks.only(wanted)  # the former ones may be unmounted now
            setup.locked.clear()
            setup.locked.update(wanted)

        roots = Roots(config, store, hold)
        library = open_library(
            config,
            store,
            extractor,
            roots,
            may_reextract=True,
            after_each=self._ping,
            stopping=self._stop,
        )

        def on_arrival() -> None:
            hold()
            # Claims that a lost database or a late mount has hidden.
            library.moves.give_back_orphans(Root.INBOX)

        whereabouts = Whereabouts(config.inbox, roots, on_arrival, locks.is_removed)
        if self._once:
            whereabouts.accept()
        inbox = Inbox(
            config.inbox, config.recursive, config.ignore, config.extensions, config.companions
        )
        clock, companions = time.time if self._once else None, library.companions
        settle_s, limits = config.settle_s, decode_limits(config.pictures)
        return Loop(
            library,
            Intake(inbox, store, whereabouts, companions, settle_s, UNFINISHED_S, clock),
            Watcher(config.inbox, config.recursive),
            PictureReader(config.inbox, limits, model_on_cpu=extractor.on_cpu),
            lambda: whereabouts.is_away,
            self._tick,
            self._stop,
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
            own_target(config, LibraryFile(config.state_dir), before=store.library)
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


def _locked(config: Config) -> tuple[Path, Path, Path]:
    return config.state_dir, config.inbox, config.target


def _check_features(new: _Setup, old: _Setup, store: Store) -> None:
    """Refuse, before anything is switched, a model that the stored clusters do not fit."""
    if new.config.state_dir.resolve() == old.config.state_dir.resolve():
        clusters_in_force(new.config, store, new.extractor, may_reextract=True)
        return
    # A second connection to the same file would drop the first one's locks when it closes.
    with open_or_restore(new.config) as other:
        clusters_in_force(new.config, other, new.extractor, may_reextract=True)


def run_daemon(config_file: Path, *, once: bool = False, adopt: bool = False) -> None:
    """Run the daemon in the foreground, for systemd or a terminal; or once, for cron.

    Raises
    ------
    ConfigError
        ``model.*`` or the folders cannot be used, or the target is another library's and not
        to be taken over (``adopt``); systemd does not start it again.
    """
    notifier = Notifier.from_environment(os.environ)
    try:
        Daemon(config_file, notifier, once=once, adopt=adopt).run()
    except ConfigError as error:
        notifier.status(str(error).splitlines()[0])
        raise
