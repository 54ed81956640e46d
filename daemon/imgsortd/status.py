"""What is the daemon at? Read from the store alone, so that it works when the daemon is down."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from imgsortd.adapters.locking import running_pid
from imgsortd.adapters.store import Store, open_read_only
from imgsortd.adapters.store_control import Heartbeat
from imgsortd.adapters.store_files import Counts
from imgsortd.adapters.store_records import FitRecord
from imgsortd.config import Config
from imgsortd.core.lifecycle import FitFacts, Phase, RefitRule, describe_next_fit, duration_text
from imgsortd.core.records import FileState
from imgsortd.terminal import printable

STALE_S = 60.0
_ERRORS = 5
_CLUSTER_ROWS = 30


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
    clusters
        One dict a cluster: id, name, files in its folder, pictures at the fit.
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
    counts: dict[str, int]
    clusters: list[dict[str, Any]]
    last_fit: dict[str, Any] | None
    next_fit: str
    open_moves: list[dict[str, str]]
    set_aside: list[dict[str, str]]
    errors: list[dict[str, Any]]
    database: str
    journal_mode: str

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
    if not config.database.exists():
        return _never_ran(config)
    store = open_read_only(config.database)
    try:
        if not store.has_tables():  # for the blink of the first start
            return _never_ran(config)
        with store.snapshot():  # one snapshot: counts taken apart would not add up
            return _report(config, store)
    finally:
        store.close()


def _never_ran(config: Config) -> StatusReport:
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
        counts=asdict(Counts()),
        clusters=[],
        last_fit=None,
        next_fit=describe_next_fit(_rule(config), FitFacts(0)),
        open_moves=[],
        set_aside=[],
        errors=[],
        database=str(config.database),
        journal_mode="",
    )


def _rule(config: Config) -> RefitRule:
    return RefitRule(config.clusters.min_images, config.refit.interval, config.refit.growth)


def _report(config: Config, store: Store) -> StatusReport:
    pid = running_pid(config.state_dir)
    last = store.control.last_beat()
    beat = last if last is not None and _is_of_this_run(last, pid) else None
    daemon = _liveness(pid, beat)
    alive = daemon == "running"
    record = store.records.current_record()
    return StatusReport(
        daemon=daemon,
        pid=pid,
        phase=beat.phase if beat else Phase.STOPPED if pid is None else Phase.STARTING,
        note=beat.note if beat else "",
        watching=(beat.watching if beat and alive else ""),
        uptime_s=time.time() - beat.started_at if beat and alive else None,
        heartbeat_age_s=time.time() - last.beat_at if last and (beat or pid is None) else None,
        queue=beat.queue if beat and alive else 0,
        images_per_s=beat.images_per_s if beat and alive else None,
        counts=asdict(store.files.counts()),
        clusters=_clusters(store, record),
        last_fit=_last_fit(record),
        next_fit=describe_next_fit(_rule(config), _facts(store, record)),
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
    )


def _is_of_this_run(beat: Heartbeat, pid: int | None) -> bool:
    """Compare pids; from another pid namespace they differ, and a fresh heartbeat is believed."""
    fresh = beat.phase != Phase.STOPPED and time.time() - beat.beat_at < STALE_S
    return pid is not None and (beat.pid == pid or fresh)


def _liveness(pid: int | None, beat: Heartbeat | None) -> str:
    if pid is None:
        return "not running"
    if beat is None:
        return "running"  # it has just started
    return "running" if time.time() - beat.beat_at < STALE_S else "not responding"


def _facts(store: Store, record: FitRecord | None) -> FitFacts:
    count = store.records.count_features()
    if record is None:
        return FitFacts(count)
    return FitFacts(count, record.n_images, max(0.0, time.time() - record.created_at))


def _clusters(store: Store, record: FitRecord | None) -> list[dict[str, Any]]:
    if record is None:
        return []
    sizes = store.files.cluster_sizes()
    return [
        {
            "id": cluster_id,
            "folder": f"cluster_{cluster_id}",
            "files": sizes.get(cluster_id, 0),
            "fitted": fitted,
        }
        for cluster_id, fitted in store.records.fitted_sizes(record.fit_id)
    ]


def _last_fit(record: FitRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {**asdict(record), "age_s": max(0.0, time.time() - record.created_at)}


def render(report: StatusReport) -> RenderableType:
    """Lay the report out for a terminal."""
    parts: list[RenderableType] = [_headline(report), _counts_table(report)]
    if report.clusters:
        parts.append(_clusters_table(report))
    parts.append(_fit_lines(report))
    parts.extend(_trouble(report))
    return Group(*parts)


def _headline(report: StatusReport) -> Text:
    colour = {"running": "green", "not responding": "red"}.get(report.daemon, "yellow")
    text = Text.assemble(("● ", colour), ("imgsortd ", "bold"), (report.daemon, f"bold {colour}"))
    facts = []
    if report.pid is not None:
        facts += [report.phase, f"pid {report.pid or 'not to be seen from here'}"]
    elif report.phase == "never started":
        facts.append("it has never been started: imgsortd run -c …")
    if report.uptime_s is not None:
        facts.append(f"up {duration_text(report.uptime_s)}")
    if report.heartbeat_age_s is not None:
        facts.append(f"heartbeat {duration_text(report.heartbeat_age_s)} ago")
    if report.watching:
        facts.append(report.watching)
    if report.images_per_s:
        facts.append(f"{report.images_per_s:.1f} images/s")
    if facts:
        text.append("  " + " · ".join(facts))
    if report.note:
        text.append(f"\n  {printable(report.note)}", style="red")
    return text


def _counts_table(report: StatusReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("seen", justify="right", style="bold")
    names = ("sorted", "review", "set_aside", "duplicates", "pending")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("queue", justify="right", style="dim")
    counts = [f"{report.counts[name]:,}" for name in ("seen", *names)]
    table.add_row(*counts, f"{report.queue:,}")
    return table


def _clusters_table(report: StatusReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cluster")
    table.add_column("files", justify="right")
    table.add_column("share", justify="right", style="dim")
    table.add_column("")
    by_size = sorted(report.clusters, key=lambda cluster: -cluster["files"])
    total = sum(cluster["files"] for cluster in by_size)
    largest = max((cluster["files"] for cluster in by_size), default=0)
    for cluster in by_size[:_CLUSTER_ROWS]:
        bar = "█" * round(24 * cluster["files"] / largest) if largest else ""
        share = f"{100 * cluster['files'] / total:.0f} %" if total else ""
        table.add_row(cluster["folder"], f"{cluster['files']:,}", share, Text(bar, style="blue"))
    rest = by_size[_CLUSTER_ROWS:]
    if rest:
        files = sum(cluster["files"] for cluster in rest)
        table.add_row(f"{len(rest)} more", f"{files:,}", "", "")
    return table


def _fit_lines(report: StatusReport) -> Text:
    text = Text()
    fit = report.last_fit
    if fit is not None:
        churn = "" if fit["churn"] is None else f", {100 * fit['churn']:.1f} % changed cluster"
        text.append(
            f"last fit {duration_text(fit['age_s'])} ago: {fit['n_images']:,} pictures in "
            f"{fit['n_clusters']} clusters by {fit['algorithm']} ({fit['trigger']}{churn})\n"
        )
    label = "next fit" if fit is not None else "no fit yet:"
    text.append(f"{label} {report.next_fit}")
    return text


def _trouble(report: StatusReport) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for title, lines in (
        ("waiting for another try", [f"{m['file']}: {m['error']}" for m in report.open_moves[:5]]),
        ("set aside, newest", [f"{s['file']}: {s['reason']}" for s in report.set_aside]),
        ("last errors", [_error_line(error) for error in report.errors]),
    ):
        if lines:
            parts.append(Text(title, style="bold yellow"))
            parts.extend(Text(f"  {printable(line)}") for line in lines)
    return parts


def _error_line(error: dict[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(error["at"]))
    return f"{at} {error['event']}: {error['detail']}"
