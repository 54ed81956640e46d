"""What the status page shows, and whether all is well, in a word."""

from __future__ import annotations

import os
import time
from typing import Any

from imgsortd.adapters.store_opening import one_state, open_any
from imgsortd.adapters.store_vitals import SetAside, Vitals
from imgsortd.config import Config
from imgsortd.core.lifecycle import Phase
from imgsortd.errors import StoreError
from imgsortd.liveness import has_room
from imgsortd.status import read_status, status_of
from imgsortd.web.plain import plain, shown, shown_text

MINUTES = 60
_SET_ASIDE, _ERRORS = 200, 20


def read_health(config: Config) -> dict[str, Any]:
    """Return the status with the rate of the last hour and the files set aside, as plain values.

    ``rate`` is by the minutes of the clock; the last of them is not over yet.

    Raises
    ------
    StoreError
        The database is there and cannot be read.
    """
    rate, set_aside, errors = [0] * MINUTES, [], []
    with open_any(config.database) as store, one_state(store):
        report = plain(status_of(config, store).as_dict())
        if store is not None:
            rows = Vitals(store.connection)
            first_minute = time.time() // 60 - (MINUTES - 1)
            rate = rows.sorted_by_minute(60 * first_minute, MINUTES)
            set_aside = [_set_aside(file) for file in rows.set_aside(_SET_ASIDE)]
            errors = [
                {"at": at, "event": shown_text(event), "detail": shown_text(detail)}
                for at, event, detail in store.control.last_errors(_ERRORS)
            ]
    return {
        **report,
        "fit": report["last_fit"] and report["last_fit"]["fit_id"],
        "rate": rate,
        "set_aside": set_aside,
        "set_aside_total": report["counts"]["set_aside"],
        "errors": errors,
    }


def _set_aside(file: SetAside) -> dict[str, Any]:
    return {
        "id": file.file_id,
        "file": shown(file.src),
        "at": "" if file.dst is None else shown(file.dst),
        "reason": shown_text(file.reason),
        "retryable": file.dst is not None and file.is_read,
    }


def is_healthy(config: Config) -> tuple[bool, str]:
    """Tell whether pictures are being sorted, and why not, in a few words without a path."""
    try:
        report = read_status(config)
        if report.phase == "never started":
            return False, "the daemon has never run"
        if report.daemon != "running":
            return False, f"the daemon is {report.daemon}"
        if report.heartbeat_age_s is None:
            return False, "the daemon is starting"
        if not has_room(config):
            return False, "the disk of state_dir is full"
    except StoreError:
        return False, "the database cannot be read"
    except OSError as error:
        return False, f"state_dir cannot be looked at ({os.strerror(error.errno or 0)})"
    trouble = {Phase.PAUSED: "sorting is paused", Phase.INBOX_LOST: "the inbox is lost"}
    reason = next((text for phase, text in trouble.items() if report.phase == phase), "")
    return not reason, reason or "ok"
