"""What the rows say of the next fit: counts, drift, age; without NumPy, for ``status`` asks too."""

from __future__ import annotations

import time

from imgsortd.config.model import Config
from imgsortd.records import Start
from imgsortd.refits.due import (
    QUANTILE,
    Drift,
    FitFacts,
    Maturity,
    RefitRule,
    age_of,
    fit_age_s,
    measure_drift,
    start_of,
)
from imgsortd.store.database import Store


def refit_rule(config: Config) -> RefitRule:
    """Return when a fit is due, as configured."""
    clusters, refit = config.clusters, config.refit
    return RefitRule(
        clusters.min_images, refit.interval, refit.growth, clusters.quiet_s, clusters.wait_most
    )


def fit_facts(store: Store, window: int | None = None) -> FitFacts:
    """Return what the decision about the next fit needs to know.

    Parameters
    ----------
    window
        Arrivals that drift is measured by; None where it is not asked for.
    """
    base, count = store.records.base(), store.records.count_features()
    if base is None:
        return FitFacts(count, unread=store.records.count_unread())
    drift = None if window is None else drift_now(store, window)
    return FitFacts(count, base.images, fit_age_s(base.at, time.time()), drift)


def drift_now(store: Store, window: int) -> Drift | None:
    """Compare the latest arrivals with the fit in force; None where it kept no distances."""
    latest = store.records.latest_arrivals(window, QUANTILE)
    if latest is None:
        return None
    return measure_drift(window, latest.distances, latest.quantile, latest.in_review)


def maturity_now(store: Store, max_churn: float | None) -> Maturity | None:
    """Tell whether the library is young; None before the first fit."""
    return _maturity_and_start(store, max_churn)[0]


def start_now(store: Store, max_churn: float | None) -> Start:
    """Tell where a fit begins now."""
    return _maturity_and_start(store, max_churn)[1]


def _maturity_and_start(store: Store, max_churn: float | None) -> tuple[Maturity | None, Start]:
    images = store.records.fitted_images()
    adopted, count = store.records.adopted(), store.records.count_features()
    maturity = None if images is None else age_of(adopted, images, count, max_churn)
    return maturity, start_of(maturity, adopted, count)
