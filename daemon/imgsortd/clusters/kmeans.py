"""KMeans by scikit-learn: of all pictures, streamed in mini-batches, or bisecting one cluster."""

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

from imgsortd.clusters.routing import center_distances
from imgsortd.errors import FitError
from imgsortd.records import Vectors
from imgsortd.store.features import Part

MINI_BATCH_ABOVE_IMAGES = 50_000
STREAMED = MiniBatchKMeans.__name__
PASSES = 4
"""Times that a streamed fit goes through all pictures at most, its labelling included."""
LEAST_PICTURES = 5
"""A part of fewer is no cluster, but a few odd pictures."""

_MINI_BATCH_ROWS = 4096
_LEAST_GAIN = 1e-3
_LEAST_SEPARATION = 0.05
_MOST_PARTS = 64


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
        ``KMeans``, ``MiniBatchKMeans``, or one of :mod:`imgsortd.clusters.sample`.
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
    sample: Vectors,
    stream: Callable[[], Iterable[Part]],
    n_clusters: int,
    random_state: int,
    on_rows: Callable[[int, int, int], None],
) -> Vectors:
    """Fit centers to more features than are to be in memory at once.

    Parameters
    ----------
    sample
        Features to start from, float32 [m, d]: a fair sample of all.
    stream
        Gives all of them anew at each call, in an order that is the same each time.
    on_rows
        Told (pass, from 1; pictures seen in it; passes at most).

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
    for number in range(1, PASSES):
        done = 0
        for _, features in stream():
            refuse_no_numbers(features)
            running.partial_fit(features)
            done += len(features)
            on_rows(number, done, PASSES)
        after = -float(running.score(sample))
        if before - after < _LEAST_GAIN * before:
            break
        before = after
    return np.ascontiguousarray(running.cluster_centers_, dtype=np.float32)


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


def bisect(features: Vectors, most_pictures: float, random_state: int) -> list[Vectors]:
    """Split pictures until no part has more than so many, or none of those falls apart.

    Bisecting k-means: 2-means again and again on the largest (Steinbach, Karypis and Kumar, "A
    comparison of document clustering techniques", 2000).

    Parameters
    ----------
    features
        float32 [n, d], of one cluster.

    Returns
    -------
    list of float32 [m, d]
        The parts, the largest first; one where the pictures do not fall apart.
    """
    done: list[Vectors] = []
    parts = [features]
    while parts and len(done) + len(parts) < _MOST_PARTS:
        parts.sort(key=len)
        largest = parts.pop()
        if len(largest) <= most_pictures:
            done.append(largest)
            break
        halves = _halves(largest, random_state)
        if halves is None:
            done.append(largest)
        else:
            parts.extend(halves)
    return sorted([*done, *parts], key=len, reverse=True)


def _halves(features: Vectors, random_state: int) -> tuple[Vectors, Vectors] | None:
    """Return two parts, or None where they would not be two clusters.

    They are when pictures lie nearer to their own center than to the other one: by 5 % of
    the farther distance on average (the silhouette in its simplified form, with centers
    for the mean over pictures; Vendramin, Campello and Hruschka, 2010).
    """
    try:
        fit = fit_kmeans(features, 2, random_state)
    except FitError:
        return None
    is_second: npt.NDArray[np.bool_] = fit.labels == 1
    if min(is_second.sum(), (~is_second).sum()) < LEAST_PICTURES:
        return None
    distances = np.sort(center_distances(features, fit.centers), axis=1)
    far = distances[:, 1]
    silhouettes = (far - distances[:, 0]) / np.where(far > 0, far, 1)
    if float(silhouettes.mean()) < _LEAST_SEPARATION:
        return None
    return features[~is_second], features[is_second]
