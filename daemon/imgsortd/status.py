"""What is the daemon at? Read from the store alone, so that it works when the daemon is down."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from imgsortd.adapters.backups import backups, day_of
from imgsortd.adapters.int8_checks import newest_check
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_files import Counts
from imgsortd.adapters.store_opening import one_state, open_any
from imgsortd.adapters.store_records import FitRecord
from imgsortd.config import Config, Precision
from imgsortd.core.names import folder_of
from imgsortd.core.records import FileState
from imgsortd.liveness import look_alive
from imgsortd.outlook import look_ahead

_ERRORS = 5


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Everything that ``status`` shows. Times are Unix seconds, durations seconds.

    Attributes
    ----------
    daemon
        ``running``, ``not responding`` (the process is there, its heartbeat is old)
        or ``not running``.
    counts
        Files by state; ``seen`` is the sum of the others.
    runs_on
        Backbone, engine, device and arithmetic of the running daemon's model.
    model_busy
        Share (0 to 1) of the time with files in which the model computed, in the last
        burst; None where there was none.
    int8
        What came of the check of ``model.precision: int8``; None while it is to be made.
    backup
        The newest copy of the database and its age; None where there is none.
    next_fit, next_refit, proposal, giants, age, age_text
        As in :class:`imgsortd.outlook.Outlook`.
    clusters
        One dict a cluster, also one that is no more and holds files: id, name, files in its
        folder, pictures at the fit.
    unread
        Files that could not be read yet, the newest, each with the reason.
    left_alone
        What stays in the inbox for what it is: one dict a reason, with count and some names.
    """

    daemon: str
    pid: int | None
    phase: str
    note: str
    watching: str
    uptime_s: float | None
    heartbeat_age_s: float | None
    queue: int
    images_per_s: float | None
    runs_on: str
    model_busy: float | None
    int8: dict[str, Any] | None
    counts: dict[str, int]
    clusters: list[dict[str, Any]]
    last_fit: dict[str, Any] | None
    next_fit: str
    next_refit: dict[str, Any]
    proposal: dict[str, Any] | None
    giants: list[dict[str, Any]]
    open_moves: list[dict[str, str]]
    set_aside: list[dict[str, str]]
    errors: list[dict[str, Any]]
    database: str
    journal_mode: str
    backup: dict[str, Any] | None
    unread: list[dict[str, str]] = field(default_factory=list)
    left_alone: list[dict[str, Any]] = field(default_factory=list)
    age: str | None = None
    age_text: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def read_status(config: Config) -> StatusReport:
    """Put the report together.

    Raises
    ------
    StoreError
        The database is there and cannot be read. (Where there is none yet, the
        report says that the daemon has never run.)
    """
    with open_any(config.database) as store, one_state(store):
        return status_of(config, store)


def status_of(config: Config, store: Store | None) -> StatusReport:
    """Put the report together from a snapshot that the caller has begun; None: no database."""
    return _never_ran(config) if store is None else _report(config, store)


def _never_ran(config: Config) -> StatusReport:
    outlook = look_ahead(config, None, None)
    return StatusReport(
        daemon="not running",
        pid=None,
        phase="never started",
        note="",
        watching="",
        uptime_s=None,
        heartbeat_age_s=None,
        queue=0,
        images_per_s=None,
        runs_on="",
        model_busy=None,
        int8=None,
        counts=asdict(Counts()),
        clusters=[],
        last_fit=None,
        next_fit=outlook.text,
        next_refit=outlook.next_refit,
        proposal=None,
        giants=[],
        open_moves=[],
        set_aside=[],
        errors=[],
        database=str(config.database),
        journal_mode="",
        backup=None,
    )


def _report(config: Config, store: Store) -> StatusReport:
    now = look_alive(config, store)
    pid, beat, last = now.pid, now.beat, now.last
    alive = now.daemon == "running"
    record = store.records.current_record()
    outlook = look_ahead(config, store, record)
    return StatusReport(
        daemon=now.daemon,
        pid=pid,
        phase=now.phase,
        note=now.note,
        watching=(beat.watching if beat and alive else ""),
        uptime_s=_age_s(beat.started_at) if beat and alive else None,
        heartbeat_age_s=_age_s(last.beat_at) if last and (beat or pid is None) else None,
        queue=now.queue,
        images_per_s=now.images_per_s,
        runs_on=beat.runs_on if beat and alive else "",
        model_busy=beat.model_busy if beat and alive else None,
        int8=_int8(config),
        counts=asdict(store.files.counts()),
        clusters=_clusters(store, record),
        last_fit=_last_fit(record),
        next_fit=outlook.text,
        next_refit=outlook.next_refit,
        proposal=outlook.proposal,
        giants=outlook.giants,
        open_moves=[
            {"file": os.fsdecode(src), "error": error} for src, error in store.journal.open_errors()
        ],
        set_aside=[
            {"file": os.fsdecode(src), "at": os.fsdecode(dst), "reason": reason}
            for src, dst, reason in store.files.with_state(FileState.SET_ASIDE, _ERRORS)
        ],
        errors=[
            {"at": at, "event": event, "detail": detail}
            for at, event, detail in store.control.last_errors(_ERRORS)
        ],
        database=str(config.database),
        journal_mode=store.journal_mode(),
        backup=_backup(config),
        unread=[
            {"file": os.fsdecode(src), "reason": reason}
            for src, reason in store.files.unread(_ERRORS)
        ],
        left_alone=_left_alone(store),
        age=outlook.age,
        age_text=outlook.age_text,
    )


def _left_alone(store: Store) -> list[dict[str, Any]]:
    names: dict[str, list[str]] = {}
    for name, reason in store.control.left_alone():
        names.setdefault(reason, []).append(os.fsdecode(name))
    return [
        {"reason": reason, "count": len(found), "files": found[:_ERRORS]}
        for reason, found in names.items()
    ]


def _backup(config: Config) -> dict[str, Any] | None:
    now = time.time()
    newest = next(iter(backups(config.state_dir, day_of(now))), None)
    if newest is None:
        return None
    return {"file": str(newest), "age_s": _age_s(newest.stat().st_mtime)}


def _int8(config: Config) -> dict[str, Any] | None:
    if config.model.precision is not Precision.INT8:
        return None
    check = newest_check(config.state_dir)
    return None if check is None else asdict(check)


def _age_s(unix_s: float) -> float:
    """Return seconds since then; 0 for a time that a clock set back has made the future."""
    return max(0.0, time.time() - unix_s)


def _clusters(store: Store, record: FitRecord | None) -> list[dict[str, Any]]:
    if record is None:
        return []
    sizes, named = store.files.cluster_sizes(), store.records.named_folders()
    fitted_sizes = dict(store.records.fitted_sizes(record.fit_id))
    retired = {number: 0 for number, files in sizes.items() if files and number not in fitted_sizes}
    return [
        {
            "id": cluster_id,
            "name": os.fsdecode(named[cluster_id]) if cluster_id in named else None,
            "folder": os.fsdecode(folder_of(cluster_id, named)),
            "files": sizes.get(cluster_id, 0),
            "fitted": fitted,
        }
        for cluster_id, fitted in sorted({**fitted_sizes, **retired}.items())
    ]


def _last_fit(record: FitRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {**asdict(record), "age_s": _age_s(record.created_at)}
