"""Ask the running daemon for something, by a row in the database, and wait for its answer."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from imgsortd.adapters.locking import running_pid
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_health import BUSY_TIMEOUT_S, foreign_errors
from imgsortd.config import Config
from imgsortd.errors import RequestError

_LOOK_EVERY_S = 0.2

Progress = Callable[[str], None]
"""Told in words how far it is."""


def ask_daemon(
    config: Config, verb: str, params: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Leave a request and return what the daemon answers.

    Raises
    ------
    RequestError
        The daemon could not do it, or stopped; the text says why.
    """
    with open_to_ask(config) as store:
        with store.atomic():
            request_id = store.control.ask(verb, params)
        return _wait(config, store, verb, request_id, progress)


@contextmanager
def open_to_ask(config: Config) -> Iterator[Store]:
    """Open the database that is there, to leave rows of ``requests``.

    Raises
    ------
    StoreError
        It cannot be opened.
    """
    path = config.database
    with foreign_errors(path):
        # The daemon owns the schema and the durability; this connection adds one row.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        store = Store(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S), path)
    try:
        yield store
    finally:
        store.close()


def _wait(
    config: Config, store: Store, verb: str, request_id: int, progress: Progress
) -> dict[str, Any]:
    while True:
        with foreign_errors(store.path):
            request = store.control.request(request_id)
        if request.state == "done":
            return request.result
        if request.state == "failed":
            reason = request.result.get("error", "the daemon gave no reason")
            raise RequestError(f"{verb}: {reason}")
        if running_pid(config.state_dir) is None:
            raise RequestError(
                f"{verb}: the daemon stopped before it was done; what it had begun it ends at its "
                f"next start, so look at `imgsortd status` before you ask again"
            )
        progress(request.progress or "waiting for the daemon's batch to end")
        time.sleep(_LOOK_EVERY_S)
