"""What open pages are told each second: read from a connection that is kept meanwhile."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from typing import Any

from imgsortd.adapters.store import Store, open_read_only
from imgsortd.adapters.store_counts import file_groups
from imgsortd.adapters.store_files import Counts
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.config import Config
from imgsortd.errors import StoreError
from imgsortd.liveness import look_alive
from imgsortd.web.review_queue import count_to_review
from imgsortd.web.words import in_words

_COUNTS = ("seen", "sorted", "pending", "set_aside")


class PulseReader:
    """Looks at the tables only when SQLite says that some commit came.

    Not for several threads: its connection belongs to the one that reads.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store: Store | None = None
        self._inode = 0
        self._data_version = -1
        self._facts: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Return the state of daemon and library; what cannot be read is said in ``note``."""
        try:
            with foreign_errors(self._config.database):
                found = self._read()
        except StoreError as error:
            self.close()
            found = {**_nothing(), "note": str(error).splitlines()[0]}
        return {**found, **in_words(found)}

    def close(self) -> None:
        """Close the connection; the next look opens another."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _read(self) -> dict[str, Any]:
        store = self._open()
        if store is None:
            return {**_nothing(), "phase": "never started"}
        with store.snapshot():
            alive = look_alive(self._config, store)
            (version,) = store.connection.execute("PRAGMA data_version").fetchone()
            if version != self._data_version:
                self._facts = _facts(store)
                self._data_version = version
        return {
            **self._facts,
            "daemon": alive.daemon,
            "phase": alive.phase,
            "note": alive.note,
            "queue": alive.queue,
            "images_per_s": alive.images_per_s,
        }

    def _open(self) -> Store | None:
        path = self._config.database
        try:
            inode = os.stat(path).st_ino
        except OSError:
            self.close()
            return None
        if self._store is None or inode != self._inode:
            self.close()
            self._store, self._inode, self._data_version = open_read_only(path), inode, -1
        return self._store if self._store.has_tables() else None


def read_pulse(config: Config) -> dict[str, Any]:
    """Look once, as for the first answer of a page."""
    reader = PulseReader(config)
    try:
        return reader.read()
    finally:
        reader.close()


def _facts(store: Store) -> dict[str, Any]:
    counts = asdict(store.files.counts())
    waiting = store.proposals.waiting() if store.proposals.is_kept() else None
    return {
        "stamp": _stamp(store, waiting.fit_id if waiting else None),
        **{name: counts[name] for name in _COUNTS},
        "review": count_to_review(store),
        "waiting": waiting.fit_id if waiting else None,
        "fit": store.proposals.current_id(),
    }


def _stamp(store: Store, waiting: int | None) -> str:
    """Name the state of the clusters: another where files, fits or names are others, or read."""
    connection = store.connection
    parts = (
        sorted(
            (g.state, -1 if g.cluster_id is None else g.cluster_id, g.is_read, g.files)
            for g in file_groups(connection)
        ),
        connection.execute(
            "SELECT (SELECT max(id) FROM moves), (SELECT max(done_at) FROM files), "
            "(SELECT max(id) FROM fits WHERE is_current = 1)"
        ).fetchone(),
        sorted(store.records.named_folders().items()),
        waiting,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _nothing() -> dict[str, Any]:
    counts = asdict(Counts())
    return {
        "stamp": "",
        **{name: counts[name] for name in _COUNTS},
        "review": 0,
        "waiting": None,
        "fit": None,
        "daemon": "not running",
        "phase": "",
        "note": "",
        "queue": 0,
        "images_per_s": None,
    }
