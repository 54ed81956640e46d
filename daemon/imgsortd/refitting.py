"""``imgsortd refit``: ask the running daemon, or do it under the lock when none runs."""

from __future__ import annotations

from typing import Any

from imgsortd.adapters.features import build_extractor
from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.store import open_store
from imgsortd.adoption import make_following, settle_fit
from imgsortd.asking import Progress, ask_daemon
from imgsortd.config import Config
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.errors import StoreError
from imgsortd.fits import compute_fit, fit_source
from imgsortd.library import open_library
from imgsortd.pipeline import recover


def refit(
    config: Config,
    n_clusters: int | None,
    dry_run: bool,
    progress: Progress,
    *,
    accept: bool = False,
    keep_files: bool = False,
) -> dict[str, Any]:
    """Fit the clusters anew and return the summary; above ``refit.max_churn`` it is proposed.

    Parameters
    ----------
    accept
        Put it in force whatever it changes.
    keep_files
        Let files stay where they stand.

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
        params = {
            "n_clusters": n_clusters,
            "dry_run": dry_run,
            "accept": accept,
            "keep_files": keep_files,
        }
        return ask_daemon(config, "refit", params, progress)
    how = {"accept": accept, "keep_files": keep_files, "dry_run": dry_run}
    return _refit_here(config, n_clusters, progress, how)


def _refit_here(
    config: Config, n_clusters: int | None, progress: Progress, how: dict[str, bool]
) -> dict[str, Any]:
    with Locks(config.state_dir):
        progress(f"loading {config.model.backbone.product_name}")
        extractor = build_extractor(config.model, config.state_dir)
        store = open_store(config.database)
        try:
            library = open_library(config, store, extractor)
            recover(library)
            source = fit_source(library, library.start())
            progress(f"fitting {source.n_images:,} pictures")
            number, seed = n_clusters or config.clusters.wanted, config.clusters.random_state
            fitted = compute_fit(source, number, seed, progress)
            basis, trigger = library.model, FitTrigger.REQUEST
            settled = settle_fit(library, fitted, trigger, basis=basis, **how)
            progress("moving files along")
            summary = settled.moved(make_following(library, settled.following))
        finally:
            store.close()
    return summary.as_dict()
