"""The rows through which the daemon and the command line speak: heartbeat, requests, errors."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

from imgsortd.store.queries import OPEN, Queries, marks
from imgsortd.words import storable

_KEEP_ERRORS = 200
# As Heartbeat has them.
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


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file that could not be read; ``is_read`` tells whether its bytes were hashed."""

    file_id: int
    src: bytes
    dst: bytes | None
    reason: str
    is_read: bool


class Control(Queries):
    """Rows of ``heartbeat``, ``requests`` and ``errors``."""

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say that the daemon lives, and what it is at."""
        row = 1, *astuple(replace(heartbeat, note=storable(heartbeat.note)))
        self._do(f"INSERT OR REPLACE INTO heartbeat(id, {_BEAT}) VALUES {marks(row)}", *row)

    def last_beat(self) -> Heartbeat | None:
        """Return what the daemon last said, or None where none has run."""
        row = self._one(f"SELECT {_BEAT} FROM heartbeat")
        return None if row is None else Heartbeat(*row)

    def ask(self, verb: str, params: dict[str, Any]) -> int:
        """Leave a request for the daemon; return its row."""
        return self._insert(
            "requests", verb=verb, params=json.dumps(params), created_at=time.time()
        )

    def take(self, verb: str) -> Request | None:
        """Take the oldest new request of a kind."""
        row = self._one(
            "UPDATE requests SET state = 'taken' WHERE id = "
            "(SELECT min(id) FROM requests WHERE state = 'new' AND verb = ?) RETURNING id",
            verb,
        )
        return None if row is None else self.request(row[0])

    def next_verb(self, but: str = "") -> str | None:
        """Return what the oldest new request asks for, ``but`` passed over; None: none waits."""
        where = "state = 'new' AND verb != ? ORDER BY id"
        return self._value(f"SELECT verb FROM requests WHERE {where}", but)

    def request(self, request_id: int) -> Request:
        """Return a request as it stands."""
        row = self._one(
            "SELECT id, verb, params, state, progress, result FROM requests WHERE id = ?",
            request_id,
        )
        return Request(row[0], row[1], json.loads(row[2]), row[3], row[4], json.loads(row[5]))

    def has_request(self, request_id: int) -> bool:
        """Tell whether there is such a request."""
        return self._is_any("SELECT 1 FROM requests WHERE id = ?", request_id)

    def unanswered(self) -> int:
        """Count the requests that wait for their answer."""
        return self._count("SELECT count(*) FROM requests WHERE state IN ('new', 'taken')")

    def progress(self, request_id: int, text: str) -> None:
        """Say how far a request has come."""
        self._do("UPDATE requests SET progress = ? WHERE id = ?", text, request_id)

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
        self._insert("errors", at=time.time(), event=event, detail=storable(detail))
        self._do("DELETE FROM errors WHERE id <= (SELECT max(id) FROM errors) - ?", _KEEP_ERRORS)

    def leave_alone(self, reasons: Mapping[bytes, str]) -> None:
        """Keep, in place of the last ones, the names in the inbox that are not sorted."""
        self._do("DELETE FROM left_alone")
        self._connection.executemany(
            "INSERT INTO left_alone VALUES (?, ?)",
            ((name, storable(reason)) for name, reason in reasons.items()),
        )

    def left_alone(self) -> list[tuple[bytes, str]]:
        """Return (name, reason) of what is in the inbox and is not sorted."""
        if not self._is_any("SELECT 1 FROM sqlite_master WHERE name = 'left_alone'"):
            return []  # an older daemon still runs
        return self._all("SELECT name, reason FROM left_alone ORDER BY reason, name")

    def last_errors(self, limit: int) -> list[tuple[float, str, str]]:
        """Return (Unix seconds, event, detail) of the newest errors."""
        return self._all("SELECT at, event, detail FROM errors ORDER BY id DESC LIMIT ?", limit)

    # --- what a monitor asks -------------------------------------------------------

    def set_aside(self, limit: int) -> list[SetAside]:
        """Return the newest files that are set aside."""
        rows = self._all(
            "SELECT id, src, dst, reason, sha256 IS NOT NULL FROM files "
            "WHERE state = 'set_aside' ORDER BY id DESC LIMIT ?",
            limit,
        )
        return [
            SetAside(file_id, src, dst, reason, bool(is_read))
            for file_id, src, dst, reason, is_read in rows
        ]

    def sorted_by_minute(self, since: float, minutes: int) -> list[int]:
        """Return how many pictures found a place in each minute from then on, oldest first."""
        rows = self._connection.execute(
            "SELECT CAST((done_at - ?1) / 60 AS INTEGER) AS minute, count(*) FROM files "
            "INDEXED BY files_done_at WHERE done_at >= ?1 AND done_at < ?1 + 60 * ?2 "
            "AND state IN ('sorted', 'review', 'duplicate') GROUP BY minute",
            (since, minutes),
        )
        found = dict(rows.fetchall())
        return [found.get(minute, 0) for minute in range(minutes)]

    def open_moves(self) -> int:
        """Count the moves that are planned and not yet made."""
        return self._count(f"SELECT count(*) FROM moves WHERE {OPEN}")

    def errors_kept(self) -> int:
        """Count the errors that the daemon has kept."""
        return self._count("SELECT count(*) FROM errors")
