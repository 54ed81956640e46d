"""A fit's line: stored features → centers → every picture labelled, by the old centers too."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.kmeans import Fit
from imgsortd.adapters.store import open_read_only
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.core.records import KRange, Model, Vectors
from imgsortd.core.review import distance_quantiles
from imgsortd.core.routing import nearest
from imgsortd.errors import FitError
from imgsortd.fit_rows import FitSource, Pins, Rows, StreamedRows, Tell, WholeRows
from imgsortd.fit_ways import Found, find, label_rows
from imgsortd.library import Library

__all__ = ["FitSource", "Fitted", "compute_fit", "fit_source", "nearest_sizes"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit and the files it labels: one row each, never their features.

    ``file_ids`` is int64 [n], ``fit.labels`` intp [n]; ``old_labels``, intp [n], is the
    nearest old center of each, or None before the first fit; ``distances``, float32 [1001],
    are the quantiles of its own distances, or None where every picture is alone.
    ``fixed_ids`` says, label → cluster id, which clusters have pins.
    """

    file_ids: npt.NDArray[np.int64]
    fit: Fit
    old_labels: npt.NDArray[np.intp] | None
    distances: Vectors | None = None
    fixed_ids: dict[int, int] = field(default_factory=dict)


def fit_source(library: Library) -> FitSource:
    """Say what a fit is to be made of: all sorted and waiting files; no picture is read."""
    model = library.model
    return FitSource(
        library.config.database,
        library.extractor.id,
        None if model is None else model.centers,
        library.store.fits.count_features(),
        old_ids=() if model is None else model.cluster_ids,
    )


def compute_fit(
    source: FitSource,
    n_clusters: int | KRange,
    random_state: int,
    tell: Tell = lambda _: None,
) -> Fitted:
    """Fit the centers; shares nothing with the loop, so that it may run beside it.

    Parameters
    ----------
    n_clusters
        How many; those of folders that a person has made come on top. Or a range in which
        the number is chosen.

    Raises
    ------
    FitError
        Fewer pictures than clusters, or a feature that is not a finite number.
    StoreError
        The features cannot be read.
    """
    started = time.perf_counter()
    store = open_read_only(source.database)
    try:
        with foreign_errors(source.database):
            is_whole = source.n_images <= source.whole_up_to
            rows = (
                WholeRows(store.fits, source.extractor)
                if is_whole
                else StreamedRows(
                    store.fits, source.extractor, source.n_images, source.whole_up_to, tell
                )
            )
            pins = Pins(*store.fits.pinned_features(source.extractor))
            found = find(source, rows, pins, n_clusters, random_state)
            return _labelled(source, rows, pins, found, started)
    finally:
        store.close()


def _labelled(source: FitSource, rows: Rows, pins: Pins, found: Found, started: float) -> Fitted:
    """Label every picture by its nearest center, and a pinned one by its pin."""
    labelled = list(label_rows(source, rows, found, pins))
    if not labelled:
        raise FitError("all pictures were taken away while they were fitted; nothing is changed")
    ids, labels, distances, old_labels = (
        np.concatenate(column) for column in zip(*labelled, strict=True)
    )
    inertia = found.inertia
    if inertia is None:
        inertia = float(np.square(distances, dtype=np.float64).sum())
    fit_s = time.perf_counter() - started
    return Fitted(
        ids,
        Fit(found.centers, labels, inertia, found.algorithm, fit_s),
        None if source.old_centers is None else old_labels,
        distance_quantiles(distances, labels),
        found.fixed_ids,
    )


def nearest_sizes(library: Library, model: Model) -> dict[int, int]:
    """Count, for each cluster id, the pictures that lie nearest to its center."""
    sizes = np.zeros(len(model.centers), dtype=np.int64)
    for _, vectors in library.store.fits.stream_features(library.extractor.id):
        sizes += np.bincount(nearest(vectors, model.centers)[0], minlength=len(sizes))
    return dict(zip(model.cluster_ids, sizes.tolist(), strict=True))
