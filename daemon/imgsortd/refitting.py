"""``imgsortd refit``: ask the running daemon, or do it under the lock when none runs."""

from __future__ import annotations

from typing import Any

from imgsortd.adapters.features import build_extractor
from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.store import open_store
from imgsortd.adoption import move_sorted, settle_fit
from imgsortd.asking import Progress, ask_daemon
from imgsortd.config import Config
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import FitState
from imgsortd.errors import StoreError
from imgsortd.fits import compute_fit, fit_source
from imgsortd.library import open_library


def refit(
    config: Config,
    n_clusters: int | None,
    dry_run: bool,
    progress: Progress,
    *,
    accept: bool = False,
) -> dict[str, Any]:
    """Fit the clusters anew and return the summary; above ``refit.max_churn`` it is proposed.

    Parameters
    ----------
    accept
        Put it in force whatever it changes.

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
        params = {"n_clusters": n_clusters, "dry_run": dry_run, "accept": accept}
        return ask_daemon(config, "refit", params, progress)
    return _refit_here(config, n_clusters, dry_run, progress, accept)


def _refit_here(
    config: Config, n_clusters: int | None, dry_run: bool, progress: Progress, accept: bool
) -> dict[str, Any]:
    with Locks(config.state_dir):
        progress(f"loading {config.model.backbone.product_name}")
        extractor = build_extractor(config.model, config.state_dir)
        store = open_store(config.database)
        try:
            library = open_library(config, store, extractor)
            source = fit_source(library)
            progress(f"fitting {source.n_images:,} pictures")
            number, seed = n_clusters or config.clusters.wanted, config.clusters.random_state
            fitted = compute_fit(source, number, seed, progress)
            summary = settle_fit(
                library,
                fitted,
                FitTrigger.REQUEST,
                basis=library.model,
                accept=accept,
                dry_run=dry_run,
            )
            if config.refit.move_sorted and summary.state is FitState.ADOPTED:
                progress("moving sorted files")
                move_sorted(library, fitted)
        finally:
            store.close()
    return summary.as_dict()
