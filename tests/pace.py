"""The intervals of the product, made small: a test is over when the work is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

PACE = {
    "daemon.pulse.BUSY_S": 0.2,
    "daemon.loop.BUSY_S": 0.2,
    "daemon.pulse._IDLE_S": 1.0,
    "daemon.loop._TICK_S": 0.05,
    "inbox.watching._LOST_RETRY_S": 0.2,
    "inbox.watching._POLL_S": 0.2,
    "inbox.watching._DEAF_AFTER_S": 1.0,
    "daemon.housekeeping._BACKUP_LOOK_S": 0.1,
    "target.watch._LOOK_EVERY_S": 0.1,
    "target.watch._AT_ONCE_S": 0.05,
    "inbox.intake._BUSY_RETRY_S": 0.2,
    "daemon.pausing._FIRST_S": 0.2,
    "daemon.pausing._LAST_S": 1.0,
    "refits.background._CHECK_EVERY_S": 0.05,
    "refits.background._ADOPT_AGAIN_S": 0.5,
    "refits.background._SHOW_EVERY_S": 0.1,
    "daemon.here._LOOK_EVERY_S": 0.02,
    "store.health.BUSY_TIMEOUT_S": 2.0,
    "store.database.BUSY_TIMEOUT_S": 2.0,
}
"""How long it waits between two looks, in seconds, by module; with the copies others took."""


def hurry(change: Callable[[object, str, object], None] = setattr) -> None:
    """Set the pace; a name that is no more is an error.

    Parameters
    ----------
    change
        Sets an attribute; monkeypatch's also gives it back.
    """
    for name, seconds in PACE.items():
        module_name, _, constant = name.rpartition(".")
        module = import_module(f"imgsortd.{module_name}")
        assert isinstance(getattr(module, constant), float), name
        change(module, constant, seconds)
    pausing = import_module("imgsortd.daemon.pausing")
    # Python keeps what a parameter stands at from the function's definition.
    change(pausing.Pause.__init__, "__defaults__", (pausing._FIRST_S, pausing._LAST_S))
    # Of each file that leaves the inbox, watchdog waits so long for the other end of the move:
    # events that follow wait, too, and so does the end of a daemon.
    change(InotifyMoveEventGrouper, "delay", 0.02)
