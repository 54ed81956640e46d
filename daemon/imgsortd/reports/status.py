"""What ``imgsortd status`` reports, from the store alone: it works when the daemon is down, too."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field, replace

from imgsortd.config.model import Config
from imgsortd.config.values import Precision
from imgsortd.names import folder_of
from imgsortd.networks.int8_checks import Int8Check, newest_check
from imgsortd.records import FileState, FitTrigger, Phase
from imgsortd.refits.due import Age, FitFacts, describe_age, describe_next_fit, next_fit
from imgsortd.refits.facts import fit_facts, maturity_now, refit_rule
from imgsortd.store.backups import backups, day_of
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.files import Counts
from imgsortd.store.fits import FitRecord, KeptFit
from imgsortd.system.locks import running_pid

_SHOWN = 5  # of each kind of trouble
_STALE_S = 60.0
_LEAST_FREE_BYTES = 64 << 10  # less than a batch's rows and their rollback journal


@dataclass(frozen=True, slots=True)
class ClusterFiles:
    """A cluster: its name where it has one, files in its folder, and pictures at the fit."""

    id: int
    name: str | None
    folder: str
    files: int
    fitted: int


@dataclass(frozen=True, slots=True)
class LastFit(FitRecord):
    """The fit in force, and how old it is."""

    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OpenMove:
    """A file that is still to be moved, and why it was not."""

    file: str
    error: str


@dataclass(frozen=True, slots=True)
class SetAsideFile:
    """A file that cannot be read: its name in the inbox, where it stands in target, and why."""

    file: str
    at: str
    reason: str


@dataclass(frozen=True, slots=True)
class UnreadFile:
    """A file that could not be read yet."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoggedError:
    """Something that went wrong; ``at`` in Unix seconds."""

    at: float
    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """Files that stay in the inbox for one reason: how many, and some names."""

    reason: str
    count: int
    files: list[str]


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the database, and how old it is."""

    file: str
    age_s: float


@dataclass(frozen=True, slots=True)
class DriftShare:
    """How many of the latest arrivals lie far out (0 to 1), and from which share a fit comes."""

    window: int
    arrivals: int
    share: float | None
    share_that_triggers: float


@dataclass(frozen=True, slots=True)
class NextRefit:
    """How far each trigger is from the next fit, growth in new pictures; None: it is off."""

    growth_missing: int | None = None
    interval_left_s: float | None = None
    drift: DriftShare | None = None


@dataclass(frozen=True, slots=True)
class Giant:
    """A cluster above ``clusters.max_share``: pictures at the fit, and their share (0 to 1)."""

    id: int
    fitted: int
    share: float


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Everything that ``status`` shows. Times are Unix seconds, durations seconds.

    What has no value here is as before a daemon has ever run.

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
    next_fit
        When it is, in words; ``next_refit`` is the same trigger by trigger.
    proposal
        The one that waits.
    clusters
        Also one that is no more and holds files.
    unread
        Files that could not be read yet, the newest, each with the reason.
    left_alone
        What stays in the inbox for what it is, by reason.
    age
        Whether the library is young or grown; None before the first fit. ``age_text`` is the
        same in a sentence: why, and what comes of it.
    """

    daemon: str = "not running"
    pid: int | None = None
    phase: str = "never started"
    note: str = ""
    watching: str = ""
    uptime_s: float | None = None
    heartbeat_age_s: float | None = None
    queue: int = 0
    images_per_s: float | None = None
    runs_on: str = ""
    model_busy: float | None = None
    int8: Int8Check | None = None
    counts: dict[str, int] = field(default_factory=lambda: asdict(Counts()))
    clusters: list[ClusterFiles] = field(default_factory=list)
    last_fit: LastFit | None = None
    next_fit: str = ""
    next_refit: NextRefit = NextRefit()
    proposal: KeptFit | None = None
    giants: list[Giant] = field(default_factory=list)
    open_moves: list[OpenMove] = field(default_factory=list)
    set_aside: list[SetAsideFile] = field(default_factory=list)
    errors: list[LoggedError] = field(default_factory=list)
    database: str = ""
    journal_mode: str = ""
    backup: Backup | None = None
    unread: list[UnreadFile] = field(default_factory=list)
    left_alone: list[LeftAlone] = field(default_factory=list)
    age: Age | None = None
    age_text: str = ""


def read_status(config: Config) -> StatusReport:
    """Put the report together.

    Raises
    ------
    StoreError
        The database is there and cannot be read. (Where there is none yet, the
        report says that the daemon has never run.)
    """
    with open_for_reading(
        config.database, if_there=True, any_schema=True, one_moment=True
    ) as store:
        return status_of(config, store)


def status_of(config: Config, store: Store | None) -> StatusReport:
    """Put the report together from a snapshot that the caller has begun; None: no database."""
    record = None if store is None else store.records.current_record()
    report = look_ahead(config, store, record)
    if store is None:
        return report
    left_alone: dict[str, list[str]] = {}
    for name, reason in store.control.left_alone():
        left_alone.setdefault(reason, []).append(os.fsdecode(name))
    newest = next(iter(backups(config.state_dir, day_of(time.time()))), None)
    is_int8 = config.model.precision is Precision.INT8
    return replace(
        look_alive(config, store, report),
        int8=newest_check(config.state_dir) if is_int8 else None,
        counts=asdict(store.files.counts()),
        clusters=[] if record is None else _clusters(store, record),
        last_fit=LastFit(**asdict(record), age_s=_age_s(record.created_at)) if record else None,
        open_moves=[OpenMove(os.fsdecode(src), why) for src, why in store.journal.open_errors()],
        set_aside=[
            SetAsideFile(os.fsdecode(src), os.fsdecode(dst), reason)
            for src, dst, reason in store.files.with_state(FileState.SET_ASIDE, _SHOWN)
        ],
        errors=[LoggedError(*error) for error in store.control.last_errors(_SHOWN)],
        journal_mode=store.journal_mode(),
        backup=Backup(str(newest), _age_s(newest.stat().st_mtime)) if newest else None,
        unread=[UnreadFile(os.fsdecode(src), why) for src, why in store.files.unread(_SHOWN)],
        left_alone=[
            LeftAlone(reason, len(names), names[:_SHOWN]) for reason, names in left_alone.items()
        ],
    )


def _age_s(unix_s: float) -> float:
    """Return seconds since then; 0 for a time that a clock set back has made the future."""
    return max(0.0, time.time() - unix_s)


def _clusters(store: Store, record: FitRecord) -> list[ClusterFiles]:
    sizes, named = store.files.cluster_sizes(), store.records.named_folders()
    fitted_sizes = dict(store.records.fitted_sizes(record.fit_id))
    retired = {number: 0 for number, files in sizes.items() if files and number not in fitted_sizes}
    return [
        ClusterFiles(
            cluster_id,
            os.fsdecode(named[cluster_id]) if cluster_id in named else None,
            os.fsdecode(folder_of(cluster_id, named)),
            sizes.get(cluster_id, 0),
            fitted,
        )
        for cluster_id, fitted in sorted({**fitted_sizes, **retired}.items())
    ]


def look_ahead(config: Config, store: Store | None, record: FitRecord | None) -> StatusReport:
    """Return a report that tells of fits to come alone; ``store`` is None for no database."""
    rule, refit = refit_rule(config), config.refit
    if store is None:
        facts = FitFacts(0)
    elif record is None or record.trigger is FitTrigger.REBUILD:
        facts = FitFacts(store.records.count_features(), unread=store.records.count_unread())
    else:
        facts = fit_facts(store, refit.drift)
    following, share = next_fit(rule, facts), None
    if (drift := following.drift) is not None:
        share = DriftShare(drift.window, drift.arrivals, drift.share, drift.share_that_triggers)
    report = StatusReport(
        next_fit=describe_next_fit(rule, facts),
        next_refit=NextRefit(following.growth_missing, following.interval_left_s, share),
        database=str(config.database),
    )
    if store is None:
        return report
    giants, maturity = [], maturity_now(store, refit.max_churn)
    if record is not None:
        giants = [
            Giant(cluster_id, images, images / max(1, record.n_images))
            for cluster_id, images in store.records.giants(record.fit_id, config.clusters.max_share)
        ]
    return replace(
        report,
        proposal=store.records.waiting(),
        giants=giants,
        age=maturity.age if maturity else None,
        age_text=describe_age(maturity, refit.max_churn) if maturity else "",
    )


def look_alive(config: Config, store: Store, report: StatusReport | None = None) -> StatusReport:
    """Return the report with how the daemon is and what it is at."""
    pid, last = running_pid(config.state_dir), store.control.last_beat()
    # A beat of tomorrow proves no more than one of yesterday.
    is_recent = last is not None and abs(time.time() - last.beat_at) < _STALE_S
    beat = None
    if last is not None and pid is not None:
        # From another pid namespace they differ, and a fresh heartbeat is believed.
        is_fresh = is_recent and last.phase != Phase.STOPPED
        beat = last if last.pid == pid or is_fresh else None
    daemon = "running" if is_recent or beat is None else "not responding"
    report = replace(
        report or StatusReport(),
        daemon="not running" if pid is None else daemon,
        pid=pid,
        phase=beat.phase if beat else Phase.STOPPED if pid is None else Phase.STARTING,
        note=full_disk(config) or (beat.note if beat else ""),
        heartbeat_age_s=_age_s(last.beat_at) if last and (beat or pid is None) else None,
    )
    if beat is None or not is_recent:
        return report
    return replace(
        report,
        watching=beat.watching,
        uptime_s=_age_s(beat.started_at),
        queue=beat.queue,
        images_per_s=beat.images_per_s,
        runs_on=beat.runs_on,
        model_busy=beat.model_busy,
    )


def full_disk(config: Config) -> str:
    """Say that state_dir is full, where it is: the daemon waits for room to write."""
    disk = os.statvfs(config.state_dir)
    if not disk.f_blocks or disk.f_bavail * disk.f_frsize >= _LEAST_FREE_BYTES:
        return ""  # some network shares know no numbers
    return f"the disk of state_dir {config.state_dir} is full; free some space there"


def proposal_line(proposal: KeptFit) -> str:
    """Say that a proposal waits, what it changes, and what to do."""
    what = {
        FitTrigger.SPLIT: f"split of cluster_{proposal.about_id}, ",
        FitTrigger.REVIEW: "new cluster of pictures in review, ",
    }.get(proposal.trigger, "")
    share, number = 100 * (proposal.churn or 0), proposal.fit_id
    change = f"{share:.0f} % of {proposal.n_images:,} pictures would change cluster"
    return f"proposal {number} waits: {what}{change}; imgsortd refits show {number}"


def giant_line(giant: Giant) -> str:
    """Say that a cluster is too large."""
    return (
        f"cluster_{giant.id} has {100 * giant.share:.0f} % of all pictures, "
        f"above clusters.max_share"
    )
