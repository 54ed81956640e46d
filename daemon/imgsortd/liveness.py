"""Does the daemon live, and what is it at? From its lock, its last heartbeat and the disk."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from imgsortd.adapters.locking import running_pid
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_control import Heartbeat
from imgsortd.config import Config
from imgsortd.core.lifecycle import Phase

STALE_S = 60.0
_LEAST_FREE_BYTES = 64 << 10  # less than a batch's rows and their rollback journal


@dataclass(frozen=True, slots=True)
class Alive:
    """How the daemon is. ``beat`` is its last heartbeat, of this run; ``last`` of any run."""

    daemon: str
    pid: int | None
    phase: str
    note: str
    queue: int
    images_per_s: float | None
    beat: Heartbeat | None
    last: Heartbeat | None


def look_alive(config: Config, store: Store) -> Alive:
    """Tell whether the daemon runs and what it is at."""
    pid = running_pid(config.state_dir)
    last = store.control.last_beat()
    beat = last if last is not None and _is_of_this_run(last, pid) else None
    daemon = _liveness(pid, beat)
    alive = beat is not None and daemon == "running"
    return Alive(
        daemon=daemon,
        pid=pid,
        phase=beat.phase if beat else Phase.STOPPED if pid is None else Phase.STARTING,
        note=_full_disk(config) or (beat.note if beat else ""),
        queue=beat.queue if beat and alive else 0,
        images_per_s=beat.images_per_s if beat and alive else None,
        beat=beat,
        last=last,
    )


def _full_disk(config: Config) -> str:
    """Say that state_dir is full: the daemon has no room to write that it waits for some."""
    disk = os.statvfs(config.state_dir)
    if not disk.f_blocks or disk.f_bavail * disk.f_frsize >= _LEAST_FREE_BYTES:
        return ""  # some network shares know no numbers
    return f"the disk of state_dir {config.state_dir} is full; free some space there"


def has_room(config: Config) -> bool:
    """Tell whether the disk of state_dir has room for what the daemon writes."""
    return not _full_disk(config)


def _is_recent(beat: Heartbeat) -> bool:
    """Tell whether a beat is of now; one of tomorrow proves no more than one of yesterday."""
    return abs(time.time() - beat.beat_at) < STALE_S


def _is_of_this_run(beat: Heartbeat, pid: int | None) -> bool:
    """Compare pids; from another pid namespace they differ, and a fresh heartbeat is believed."""
    fresh = beat.phase != Phase.STOPPED and _is_recent(beat)
    return pid is not None and (beat.pid == pid or fresh)


def _liveness(pid: int | None, beat: Heartbeat | None) -> str:
    if pid is None:
        return "not running"
    if beat is None:
        return "running"  # it has just started
    return "running" if _is_recent(beat) else "not responding"
