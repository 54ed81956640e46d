"""What the status page shows, whether all is well in a word, and what Prometheus may ask."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from imgsortd import __version__
from imgsortd.config.model import Config
from imgsortd.errors import StoreError
from imgsortd.records import Phase
from imgsortd.reports.status import (
    LoggedError,
    SetAsideFile,
    StatusReport,
    full_disk,
    read_status,
    status_of,
)
from imgsortd.store.control import SetAside
from imgsortd.store.database import open_for_reading
from imgsortd.web.shown import shown

MINUTES = 60
_SET_ASIDE, _ERRORS = 200, 20


@dataclass(frozen=True, slots=True)
class ShownSetAside(SetAsideFile):
    """A file that could not be read; ``at`` is empty where it is no more."""

    id: int
    retryable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(StatusReport):
    """The status as ``imgsortd status --json`` gives it, with more beside it.

    ``rate``: pictures that found a place in each minute of the clock; the last is not over yet.
    """

    fit: int | None
    rate: list[int]
    set_aside_total: int


def read_health(config: Config) -> Health:
    """Return the status with the rate of the last hour and the files set aside.

    Raises
    ------
    StoreError
        The database is there and cannot be read.
    """
    with open_for_reading(
        config.database, if_there=True, any_schema=True, one_moment=True
    ) as store:
        report = status_of(config, store)
        values = {one.name: getattr(report, one.name) for one in fields(report)}
        values |= {"rate": [0] * MINUTES, "set_aside": [], "errors": []}
        if store is not None:
            first_minute = time.time() // 60 - (MINUTES - 1)
            values["rate"] = store.control.sorted_by_minute(60 * first_minute, MINUTES)
            values["set_aside"] = [_set_aside(file) for file in store.control.set_aside(_SET_ASIDE)]
            values["errors"] = [LoggedError(*one) for one in store.control.last_errors(_ERRORS)]
    fit = None if report.last_fit is None else report.last_fit.fit_id
    return Health(**values, fit=fit, set_aside_total=report.counts["set_aside"])


def _set_aside(file: SetAside) -> ShownSetAside:
    src, at, is_retryable = file.src, file.dst or b"", file.dst is not None and file.is_read
    return ShownSetAside(shown(src), shown(at), file.reason, file.file_id, is_retryable)


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
        if full_disk(config):
            return False, "the disk of state_dir is full"
    except StoreError:
        return False, "the database cannot be read"
    except OSError as error:
        return False, f"state_dir cannot be looked at ({os.strerror(error.errno or 0)})"
    trouble = {Phase.PAUSED: "sorting is paused", Phase.INBOX_LOST: "the inbox is lost"}
    reason = next((text for phase, text in trouble.items() if report.phase == phase), "")
    return not reason, reason or "ok"


def metrics_text(config: Config) -> tuple[bytes, str]:
    """Return all metrics as Prometheus reads them, and their content type."""
    registry = CollectorRegistry(auto_describe=False)  # describing would read the database
    registry.register(LibraryCollector(config))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class LibraryCollector(Collector):
    """Reads the database when it is asked to; tells nothing of this process.

    Names and units follow Prometheus' practice (prometheus.io/docs/practices/naming): one
    prefix, base units, no ``_total`` on what may go down again. What is not known is left out.

    Where that cannot be read, ``imgsortd_up`` is 0 and nothing else is said: gaps in a graph
    are better than zeros.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield InfoMetricFamily(
            "imgsortd_build", "Which imgsortd tells this.", {"version": __version__}
        )
        try:
            with open_for_reading(
                self._config.database, if_there=True, any_schema=True, one_moment=True
            ) as store:
                report = status_of(self._config, store)
                control = None if store is None else store.control
                open_moves = 0 if control is None else control.open_moves()
                errors = 0 if control is None else control.errors_kept()
        except (StoreError, OSError):
            yield _up(False)
            return
        yield _up(report.daemon == "running")
        fit = report.last_fit
        for name, text, value in (
            ("queue_images", "Pictures that wait for the model.", report.queue),
            ("images_per_second", "Pictures sorted per second in this burst.", report.images_per_s),
            ("heartbeat_age_seconds", "Time since the last heartbeat.", report.heartbeat_age_s),
            (
                "proposal_waiting",
                "Whether a refit waits for a person's word.",
                int(report.proposal is not None),
            ),
            (
                "last_fit_timestamp_seconds",
                "When the clusters in force were fitted, in Unix time.",
                None if fit is None else fit.created_at,
            ),
            ("open_moves", "Moves of files that are planned and not yet made.", open_moves),
            ("errors_kept", "Errors that the daemon has kept for the status.", errors),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"imgsortd_{name}", text, value)
        files = GaugeMetricFamily("imgsortd_files", "Files seen, by state.", labels=["state"])
        for state, count in report.counts.items():
            if state != "seen":  # the sum of the others
                files.add_metric([state], count)
        yield files
        clusters = GaugeMetricFamily(
            "imgsortd_cluster_files", "Files in the folder of each cluster.", labels=["cluster"]
        )
        for cluster in report.clusters:
            clusters.add_metric([str(cluster.id)], cluster.files)
        yield clusters


def _up(is_up: bool) -> Metric:
    return GaugeMetricFamily(
        "imgsortd_up", "Whether the daemon runs and its heartbeat is fresh.", int(is_up)
    )
