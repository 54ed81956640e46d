"""What Prometheus may ask: the daemon's state and the library's size, nothing of this process.

Names and units follow Prometheus' practice (prometheus.io/docs/practices/naming): one prefix,
base units, no ``_total`` on what may go down again. A value that is not known is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from imgsortd import __version__
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_opening import one_state, open_any
from imgsortd.adapters.store_vitals import Vitals
from imgsortd.config import Config
from imgsortd.errors import StoreError
from imgsortd.status import StatusReport, status_of


def metrics_text(config: Config) -> tuple[bytes, str]:
    """Return all metrics as Prometheus reads them, and their content type."""
    registry = CollectorRegistry(auto_describe=False)  # describing would read the database
    registry.register(LibraryCollector(config))
    return generate_latest(registry), CONTENT_TYPE_LATEST


class LibraryCollector(Collector):
    """Reads the database when it is asked to.

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
            with open_any(self._config.database) as store, one_state(store):
                report = status_of(self._config, store)
                open_moves, errors = _counts(store)
        except (StoreError, OSError):
            yield _up(False)
            return
        yield _up(report.daemon == "running")
        yield from _of_the_daemon(report)
        yield from _of_the_library(report)
        yield GaugeMetricFamily(
            "imgsortd_open_moves", "Moves of files that are planned and not yet made.", open_moves
        )
        yield GaugeMetricFamily(
            "imgsortd_errors_kept", "Errors that the daemon has kept for the status.", errors
        )


def _counts(store: Store | None) -> tuple[int, int]:
    if store is None:
        return 0, 0
    rows = Vitals(store.connection)
    return rows.open_moves(), rows.errors_kept()


def _up(is_up: bool) -> Metric:
    return GaugeMetricFamily(
        "imgsortd_up", "Whether the daemon runs and its heartbeat is fresh.", int(is_up)
    )


def _of_the_daemon(report: StatusReport) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "imgsortd_queue_images", "Pictures that wait for the model.", report.queue
    )
    for name, text, value in (
        ("images_per_second", "Pictures sorted per second in this burst.", report.images_per_s),
        ("heartbeat_age_seconds", "Time since the last heartbeat.", report.heartbeat_age_s),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"imgsortd_{name}", text, value)


def _of_the_library(report: StatusReport) -> Iterator[Metric]:
    files = GaugeMetricFamily("imgsortd_files", "Files seen, by state.", labels=["state"])
    for state, count in report.counts.items():
        if state != "seen":  # the sum of the others
            files.add_metric([state], count)
    yield files
    clusters = GaugeMetricFamily(
        "imgsortd_cluster_files", "Files in the folder of each cluster.", labels=["cluster"]
    )
    for cluster in report.clusters:
        clusters.add_metric([str(cluster["id"])], cluster["files"])
    yield clusters
    yield GaugeMetricFamily(
        "imgsortd_proposal_waiting",
        "Whether a refit waits for a person's word.",
        int(report.proposal is not None),
    )
    if report.last_fit is not None:
        yield GaugeMetricFamily(
            "imgsortd_last_fit_timestamp_seconds",
            "When the clusters in force were fitted, in Unix time.",
            report.last_fit["created_at"],
        )
