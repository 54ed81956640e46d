"""KMeans by scikit-learn: whole up to 50,000 pictures, in mini-batches above."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from imgsortd.core.records import Vectors
from imgsortd.errors import FitError

MINI_BATCH_ABOVE_IMAGES = 50_000
_MINI_BATCH_ROWS = 4096


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
        ``KMeans`` or ``MiniBatchKMeans``.
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
    if len(features) < n_clusters:
        raise FitError(
            f"cannot make {n_clusters} clusters of {len(features)} pictures; "
            f"ask for at most {len(features)} (-k, or clusters.n_clusters), or add pictures"
        )
    if not np.isfinite(features).all():
        raise FitError("a stored feature is not a finite number; extract anew in a new state_dir")
    whole = len(features) <= MINI_BATCH_ABOVE_IMAGES
    started = time.perf_counter()
    if whole:
        estimator = KMeans(n_clusters, random_state=random_state)
    else:
        estimator = MiniBatchKMeans(
            n_clusters, random_state=random_state, batch_size=_MINI_BATCH_ROWS
        )
    with warnings.catch_warnings():
        # Fewer distinct pictures than clusters leaves folders empty; that is no fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(features)
    return Fit(
        np.ascontiguousarray(estimator.cluster_centers_, dtype=np.float32),
        estimator.labels_.astype(np.intp),
        float(estimator.inertia_),
        type(estimator).__name__,
        time.perf_counter() - started,
    )
