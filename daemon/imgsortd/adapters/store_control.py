"""The rows through which the daemon and the command line speak: heartbeat, requests, errors."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgsortd.adapters.store_files import storable

_KEEP_ERRORS = 200
_BEAT = "pid, phase, started_at, beat_at, queue, images_per_s, watching, note, model_busy, runs_on"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the daemon last said of itself. Times are Unix seconds."""

    pid: int
    phase: str
    started_at: float
    beat_at: float
    queue: int
    images_per_s: float | None
    watching: str
    note: str
    model_busy: float | None = None
    runs_on: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """Something that a command asks of the daemon."""

    request_id: int
    verb: str
    params: dict[str, Any]
    state: str
    progress: str
    result: dict[str, Any]


class Control:
    """Rows of ``heartbeat``, ``requests`` and ``errors``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say that the daemon lives, and what it is at."""
        self._connection.execute(
            f"INSERT OR REPLACE INTO heartbeat(id, {_BEAT}) "
            "VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                heartbeat.pid,
                heartbeat.phase,
                heartbeat.started_at,
                heartbeat.beat_at,
                heartbeat.queue,
                heartbeat.images_per_s,
                heartbeat.watching,
                storable(heartbeat.note),
                heartbeat.model_busy,
                heartbeat.runs_on,
            ),
        )

    def last_beat(self) -> Heartbeat | None:
        """Return what the daemon last said, or None where none has run."""
        row = self._connection.execute(f"SELECT {_BEAT} FROM heartbeat").fetchone()
        return None if row is None else Heartbeat(*row)

    def ask(self, verb: str, params: dict[str, Any]) -> int:
        """Leave a request for the daemon; return its row."""
        cursor = self._connection.execute(
            "INSERT INTO requests(verb, params, created_at) VALUES (?, ?, ?)",
            (verb, json.dumps(params), time.time()),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def take(self, verb: str) -> Request | None:
        """Take the oldest new request of a kind."""
        row = self._connection.execute(
            "UPDATE requests SET state = 'taken' WHERE id = "
            "(SELECT min(id) FROM requests WHERE state = 'new' AND verb = ?) RETURNING id",
            (verb,),
        ).fetchone()
        return None if row is None else self.request(row[0])

    def next_verb(self, but: str = "") -> str | None:
        """Return what the oldest new request asks for, ``but`` passed over; None: none waits."""
        row = self._connection.execute(
            "SELECT verb FROM requests WHERE state = 'new' AND verb != ? ORDER BY id", (but,)
        ).fetchone()
        return None if row is None else str(row[0])

    def request(self, request_id: int) -> Request:
        """Return a request as it stands."""
        row = self._connection.execute(
            "SELECT id, verb, params, state, progress, result FROM requests WHERE id = ?",
            (request_id,),
        ).fetchone()
        return Request(row[0], row[1], json.loads(row[2]), row[3], row[4], json.loads(row[5]))

    def has_request(self, request_id: int) -> bool:
        """Tell whether there is such a request."""
        found = self._connection.execute("SELECT 1 FROM requests WHERE id = ?", (request_id,))
        return found.fetchone() is not None

    def unanswered(self) -> int:
        """Count the requests that wait for their answer."""
        row = self._connection.execute(
            "SELECT count(*) FROM requests WHERE state IN ('new', 'taken')"
        ).fetchone()
        return int(row[0])

    def progress(self, request_id: int, text: str) -> None:
        """Say how far a request has come."""
        self._connection.execute(
            "UPDATE requests SET progress = ? WHERE id = ?", (text, request_id)
        )

    def answer(self, request_id: int, state: str, result: dict[str, Any]) -> None:
        """End a request: ``done`` or ``failed``."""
        self._connection.execute(
            "UPDATE requests SET state = ?, result = ?, done_at = ? WHERE id = ?",
            (state, json.dumps(result), time.time(), request_id),
        )

    def fail_abandoned(self) -> None:
        """Fail requests that a daemon took and did not live to answer."""
        self._connection.execute(
            "UPDATE requests SET state = 'failed', done_at = ?, result = ? WHERE state = 'taken'",
            (time.time(), json.dumps({"error": "the daemon stopped before it was done"})),
        )

    def add_error(self, event: str, detail: str) -> None:
        """Keep an error for ``status``; the oldest fall out."""
        self._connection.execute(
            "INSERT INTO errors(at, event, detail) VALUES (?, ?, ?)",
            (time.time(), event, storable(detail)),
        )
        self._connection.execute(
            "DELETE FROM errors WHERE id <= (SELECT max(id) FROM errors) - ?", (_KEEP_ERRORS,)
        )

    def leave_alone(self, reasons: Mapping[bytes, str]) -> None:
        """Keep, in place of the last ones, the names in the inbox that are not sorted."""
        self._connection.execute("DELETE FROM left_alone")
        self._connection.executemany(
            "INSERT INTO left_alone VALUES (?, ?)",
            ((name, storable(reason)) for name, reason in reasons.items()),
        )

    def left_alone(self) -> list[tuple[bytes, str]]:
        """Return (name, reason) of what is in the inbox and is not sorted."""
        table = "SELECT 1 FROM sqlite_master WHERE name = 'left_alone'"
        if self._connection.execute(table).fetchone() is None:
            return []  # an older daemon still runs
        return self._connection.execute(
            "SELECT name, reason FROM left_alone ORDER BY reason, name"
        ).fetchall()

    def last_errors(self, limit: int) -> list[tuple[float, str, str]]:
        """Return (Unix seconds, event, detail) of the newest errors."""
        return self._connection.execute(
            "SELECT at, event, detail FROM errors ORDER BY id DESC LIMIT ?", (limit,)
        ).fetchall()
