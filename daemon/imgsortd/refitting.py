"""``imgsortd refit``: ask the running daemon, or do it under the lock when none runs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any

from imgsortd.adapters.features import build_extractor
from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.store import Store, open_store
from imgsortd.adapters.store_health import BUSY_TIMEOUT_S, foreign_errors
from imgsortd.config import Config
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Op
from imgsortd.errors import FitError, StoreError
from imgsortd.fits import adopt_fit, compute_fit, fit_source, move_sorted
from imgsortd.library import open_library

_LOOK_EVERY_S = 0.2

Progress = Callable[[str], None]


def refit(
    config: Config, n_clusters: int | None, dry_run: bool, progress: Progress
) -> dict[str, Any]:
    """Fit the clusters anew and return the summary.

    Raises
    ------
    FitError
        Too few pictures, or the daemon could not do it; the text says why.
    StoreError
        There is no store yet, or it cannot be written by this user.
    """
    if not config.database.exists():
        raise StoreError(
            f"{config.database}: no such database, so there are no features to fit; "
            f"start the daemon first (imgsortd run -c …)"
        )
    if running_pid(config.state_dir) is not None:
        return _ask_daemon(config, {"n_clusters": n_clusters, "dry_run": dry_run}, progress)
    return _refit_here(config, n_clusters, dry_run, progress)


def _refit_here(
    config: Config, n_clusters: int | None, dry_run: bool, progress: Progress
) -> dict[str, Any]:
    with Locks(config.state_dir, config.inbox if config.op is Op.MOVE else None):
        progress(f"loading {config.model.backbone.product_name}")
        extractor = build_extractor(config.model, config.state_dir)
        store = open_store(config.database)
        try:
            library = open_library(config, store, extractor)
            source = fit_source(library)
            progress(f"fitting {source.n_images:,} pictures")
            number, seed = n_clusters or config.clusters.n_clusters, config.clusters.random_state
            fitted = compute_fit(source, number, seed, progress)
            summary = adopt_fit(library, fitted, FitTrigger.REQUEST, dry_run=dry_run)
            if config.refit.move_sorted and not dry_run:
                progress("moving sorted files")
                move_sorted(library, fitted)
        finally:
            store.close()
    return summary.as_dict()


def _ask_daemon(config: Config, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
    path = config.database
    with foreign_errors(path):
        # The daemon owns the schema and the durability; this connection adds one row.
        store = Store(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S), path)
    try:
        with store.atomic():
            request_id = store.control.ask("refit", params)
        return _wait(config, store, request_id, progress)
    finally:
        store.close()


def _wait(config: Config, store: Store, request_id: int, progress: Progress) -> dict[str, Any]:
    while True:
        with foreign_errors(store.path):
            request = store.control.request(request_id)
        if request.state == "done":
            return request.result
        if request.state == "failed":
            raise FitError(f"refit: {request.result.get('error', 'the daemon gave no reason')}")
        if running_pid(config.state_dir) is None:
            raise FitError("refit: the daemon stopped before it was done; run the command again")
        progress(request.progress or "waiting for the daemon's batch to end")
        time.sleep(_LOOK_EVERY_S)
