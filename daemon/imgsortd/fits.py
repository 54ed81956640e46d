"""A fit's line: stored features → KMeans → ids matched to the old ones → one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.kmeans import (
    MINI_BATCH_ABOVE_IMAGES,
    PASSES,
    STREAMED,
    Fit,
    fit_centers,
    fit_kmeans,
)
from imgsortd.adapters.store import open_read_only
from imgsortd.adapters.store_fits import Fits
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.core.records import ExtractorId, Model, Vectors
from imgsortd.core.review import distance_quantiles
from imgsortd.core.routing import nearest
from imgsortd.errors import FitError
from imgsortd.library import Library

Tell = Callable[[str], None]
"""Told in words how far a fit has come."""


@dataclass(frozen=True, slots=True)
class FitSource:
    """What a fit is made of: all that its thread needs, and nothing that the loop works on.

    Attributes
    ----------
    database
        The SQLite file, opened anew by the fit, for reading.
    old_centers
        Those in force, float32 [k, d]; None before the first fit.
    n_images
        Pictures in the fit, more or less: some may come or go until it has read them.
    whole_up_to
        Pictures up to which all features are in memory at once; above, they are streamed.
    """

    database: Path
    extractor: ExtractorId
    old_centers: Vectors | None
    n_images: int
    whole_up_to: int = MINI_BATCH_ABOVE_IMAGES


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit and the files it labels: one row each, never their features.

    ``file_ids`` is int64 [n], ``fit.labels`` intp [n]; ``old_labels``, intp [n], is the
    nearest old center of each, or None before the first fit; ``distances``, float32 [1001],
    are the quantiles of its own distances, or None where every picture is alone.
    """

    file_ids: npt.NDArray[np.int64]
    fit: Fit
    old_labels: npt.NDArray[np.intp] | None
    distances: Vectors | None = None


def fit_source(library: Library) -> FitSource:
    """Say what a fit is to be made of: all sorted and waiting files; no picture is read."""
    return FitSource(
        library.config.database,
        library.extractor.id,
        None if library.model is None else library.model.centers,
        library.store.fits.count_features(),
    )


def compute_fit(
    source: FitSource, n_clusters: int, random_state: int, tell: Tell = lambda _: None
) -> Fitted:
    """Fit the centers; shares nothing with the loop, so that it may run beside it.

    Raises
    ------
    FitError
        Fewer pictures than clusters, or a feature that is not a finite number.
    StoreError
        The features cannot be read.
    """
    store = open_read_only(source.database)
    try:
        with foreign_errors(source.database):
            if source.n_images <= source.whole_up_to:
                return _fit_whole(source, store.fits, n_clusters, random_state)
            return _fit_streamed(source, store.fits, n_clusters, random_state, tell)
    finally:
        store.close()


def _fit_whole(source: FitSource, fits: Fits, n_clusters: int, random_state: int) -> Fitted:
    file_ids, vectors = fits.load_features(source.extractor)
    fit = fit_kmeans(vectors, n_clusters, random_state)
    old = source.old_centers
    distances = np.linalg.norm(vectors - fit.centers[fit.labels], axis=1)
    return Fitted(
        file_ids,
        fit,
        None if old is None else nearest(vectors, old)[0],
        distance_quantiles(distances, fit.labels),
    )


def _fit_streamed(
    source: FitSource, fits: Fits, n_clusters: int, random_state: int, tell: Tell
) -> Fitted:
    def on_rows(number: int, done: int) -> None:
        total = max(source.n_images, done)
        tell(f"pass {number} of {PASSES}, {done:,} of {total:,} pictures")

    def parts() -> Iterator[Vectors]:
        return (vectors for _, vectors in fits.stream_features(source.extractor))

    started = time.perf_counter()
    tell(f"first clusters of {source.whole_up_to:,} of {source.n_images:,} pictures")
    centers = fit_centers(parts, n_clusters, random_state, source.whole_up_to, on_rows)
    file_ids: list[npt.NDArray[np.int64]] = []
    labels: list[npt.NDArray[np.intp]] = []
    old_labels: list[npt.NDArray[np.intp]] = []
    all_distances: list[Vectors] = []
    done = 0
    for ids, vectors in fits.stream_features(source.extractor):
        found, distances = nearest(vectors, centers)
        all_distances.append(distances)
        file_ids.append(ids)
        labels.append(found)
        if source.old_centers is not None:
            old_labels.append(nearest(vectors, source.old_centers)[0])
        done += len(ids)
        on_rows(PASSES, done)
    if not done:
        raise FitError("all pictures were taken away while they were fitted; nothing is changed")
    fit_s = time.perf_counter() - started
    fit_labels, distances = np.concatenate(labels), np.concatenate(all_distances)
    inertia = float(np.square(distances, dtype=np.float64).sum())
    return Fitted(
        np.concatenate(file_ids),
        Fit(centers, fit_labels, inertia, STREAMED, fit_s),
        np.concatenate(old_labels) if old_labels else None,
        distance_quantiles(distances, fit_labels),
    )


def nearest_sizes(library: Library, model: Model) -> dict[int, int]:
    """Count, for each cluster id, the pictures that lie nearest to its center."""
    sizes = np.zeros(len(model.centers), dtype=np.int64)
    for _, vectors in library.store.fits.stream_features(library.extractor.id):
        sizes += np.bincount(nearest(vectors, model.centers)[0], minlength=len(sizes))
    return dict(zip(model.cluster_ids, sizes.tolist(), strict=True))
