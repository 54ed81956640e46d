"""KMeans by scikit-learn: whole up to 50,000 pictures, streamed in mini-batches above."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from imgsortd.core.records import Vectors
from imgsortd.errors import FitError

MINI_BATCH_ABOVE_IMAGES = 50_000
STREAMED = MiniBatchKMeans.__name__
_MINI_BATCH_ROWS = 4096
_PASSES = 3
_LEAST_GAIN = 1e-3

PASSES = _PASSES + 1
"""Times that a streamed fit goes through all pictures at most, its labelling included."""

Stream = Callable[[], Iterable[Vectors]]
"""Starts anew at each call: float32 [m, d] parts, in an order that is the same each time."""

OnRows = Callable[[int, int], None]
"""Told (pass, from 1; pictures seen in it)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted centers.

    Attributes
    ----------
    centers
        float32 [k, d].
    labels
        intp [n], the row in ``centers`` of each fitted feature.
    inertia
        Sum of squared distances to the nearest center.
    algorithm
        ``KMeans``, ``MiniBatchKMeans``, or one of :mod:`imgsortd.core.clustering`.
    fit_s
        Seconds the fit took.
    """

    centers: Vectors
    labels: npt.NDArray[np.intp]
    inertia: float
    algorithm: str
    fit_s: float


def fit_kmeans(features: Vectors, n_clusters: int, random_state: int) -> Fit:
    """Fit centers as the article does: ``KMeans(n_clusters, random_state=random_state)``.

    Parameters
    ----------
    features
        float32 [n, d], in an order that does not change between runs.

    Raises
    ------
    FitError
        Fewer pictures than clusters, or a feature that is not a finite number.
    """
    check_features(features, n_clusters)
    started = time.perf_counter()
    estimator = _fitted(KMeans(n_clusters, random_state=random_state), features)
    return Fit(
        np.ascontiguousarray(estimator.cluster_centers_, dtype=np.float32),
        estimator.labels_.astype(np.intp),
        float(estimator.inertia_),
        type(estimator).__name__,
        time.perf_counter() - started,
    )


def fit_centers(
    stream: Stream, n_clusters: int, random_state: int, sample_rows: int, on_rows: OnRows
) -> Vectors:
    """Fit centers to more features than are to be in memory at once.

    Parameters
    ----------
    stream
        The features, so ordered that the first ones are a fair sample of all.
    sample_rows
        Features to start from, at least ``n_clusters``; these stay in memory.

    Returns
    -------
    float32 [k, d]
        Mini-batch k-means (Sculley 2010): fitted on the sample, then moved by every
        feature, in up to three passes, until the sample's mean squared distance falls
        by less than 1/1000.

    Raises
    ------
    FitError
        As :func:`fit_kmeans`.
    """
    sample = _first(stream(), max(sample_rows, n_clusters))
    check_features(sample, n_clusters)
    start = _fitted(
        MiniBatchKMeans(n_clusters, random_state=random_state, batch_size=_MINI_BATCH_ROWS), sample
    )
    # A new estimator, since the first one counts the sample's rows once for each time it drew
    # them, and would hardly move. Centers of small clusters are not drawn anew: ids would be lost.
    running = MiniBatchKMeans(
        n_clusters,
        init=start.cluster_centers_,
        n_init=1,
        random_state=random_state,
        reassignment_ratio=0.0,
        compute_labels=False,
    )
    running.partial_fit(sample)
    before = -float(running.score(sample))
    for number in range(1, _PASSES + 1):
        done = 0
        for features in stream():
            refuse_no_numbers(features)
            running.partial_fit(features)
            done += len(features)
            on_rows(number, done)
        after = -float(running.score(sample))
        if before - after < _LEAST_GAIN * before:
            break
        before = after
    return np.ascontiguousarray(running.cluster_centers_, dtype=np.float32)


def _first(parts: Iterable[Vectors], rows: int) -> Vectors:
    """Return float32 [rows or fewer, d]."""
    taken: list[Vectors] = []
    left = rows
    for part in parts:
        taken.append(part[:left])
        left -= len(taken[-1])
        if left == 0:
            break
    return np.concatenate(taken) if taken else np.empty((0, 1), dtype=np.float32)


def check_features(features: Vectors, n_clusters: int) -> None:
    """Raise :class:`FitError` for fewer rows than clusters, or a value that is no number."""
    if len(features) < n_clusters:
        raise FitError(
            f"cannot make {n_clusters} clusters of {len(features)} pictures; "
            f"ask for at most {len(features)} (-k, or clusters.n_clusters), or add pictures"
        )
    refuse_no_numbers(features)


def refuse_no_numbers(features: Vectors) -> None:
    """Raise :class:`FitError` for a value that is not a finite number."""
    if not np.isfinite(features).all():
        raise FitError("a stored feature is not a finite number; extract anew in a new state_dir")


def _fitted(estimator: Any, features: Vectors) -> Any:
    with warnings.catch_warnings():
        # Fewer distinct pictures than clusters leaves folders empty; that is no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(features)
    return estimator
