"""A fit's line: stored features → centers → every picture labelled, by the old centers too.

And what stands in review is asked for, so that a proposal can say what it would take out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.kmeans import Fit
from imgsortd.adapters.store import open_read_only
from imgsortd.adapters.store_fits import Fits
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.core.lifecycle import Start
from imgsortd.core.pins import routing_model
from imgsortd.core.records import KRange, Model, Vectors
from imgsortd.core.review import choose, distance_quantiles
from imgsortd.core.routing import nearest
from imgsortd.errors import FitError
from imgsortd.fit_rows import (
    IN_REVIEW,
    FitSource,
    Hands,
    Ids,
    Rows,
    StreamedRows,
    Tell,
    WholeRows,
)
from imgsortd.fit_ways import Found, find, label_rows
from imgsortd.library import Library

__all__ = ["FitSource", "Fitted", "compute_fit", "fit_source", "nearest_sizes"]


_ASKED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit and the files it labels: one row each, never their features.

    Attributes
    ----------
    file_ids
        int64 [n]; ``fit.labels``, intp [n], are of these.
    old_labels
        intp [n], the nearest old center of each; None before the first fit.
    stands
        int64 [n], the cluster in whose folder each stood when the fit began; IN_REVIEW, NOWHERE
        or BY_HAND (:mod:`imgsortd.fit_rows`).
    taken
        intp [m], rows in review that routing by this fit would take out, to their label.
    distances
        float32 [1001], the quantiles of its own distances, or None where every picture is
        alone.
    fixed_ids
        Label → cluster id, of clusters with pins or a name, or kept as they were.
    """

    file_ids: Ids
    fit: Fit
    old_labels: npt.NDArray[np.intp] | None
    stands: Ids
    taken: npt.NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    distances: Vectors | None = None
    fixed_ids: dict[int, int] = field(default_factory=dict)


def fit_source(library: Library, start: Start = Start.FORMER) -> FitSource:
    """Say what a fit is to be made of: all sorted and waiting files; no picture is read."""
    model = library.model
    return FitSource(
        library.config.database,
        library.extractor.id,
        None if model is None else model.centers,
        library.store.fits.count_features(),
        old_ids=() if model is None else model.cluster_ids,
        start=start,
        rule=library.review_rule,
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
            hands = Hands.read(store, source.extractor)
            found = find(source, rows, hands, n_clusters, random_state)
            return _labelled(source, store.fits, rows, hands, found, started)
    finally:
        store.close()


def _labelled(
    source: FitSource, fits: Fits, rows: Rows, hands: Hands, found: Found, started: float
) -> Fitted:
    """Label every picture by its nearest center, and a pinned one by its pin."""
    labelled = list(label_rows(source, rows, found, hands))
    if not labelled:
        raise FitError("all pictures were taken away while they were fitted; nothing is changed")
    ids, labels, distances, old_labels = (
        np.concatenate(column) for column in zip(*labelled, strict=True)
    )
    inertia = found.inertia
    if inertia is None:
        inertia = float(np.square(distances, dtype=np.float64).sum())
    quantiles = distance_quantiles(distances, labels)
    stands = hands.standing.of(ids)
    taken = _take_out(source, fits, found, hands, quantiles, (ids, labels, stands))
    fit_s = time.perf_counter() - started
    return Fitted(
        ids,
        Fit(found.centers, labels, inertia, found.algorithm, fit_s),
        None if source.old_centers is None else old_labels,
        stands,
        taken,
        quantiles,
        found.fixed_ids,
    )


def _take_out(
    source: FitSource,
    fits: Fits,
    found: Found,
    hands: Hands,
    quantiles: Vectors | None,
    pictures: tuple[Ids, npt.NDArray[np.intp], Ids],
) -> npt.NDArray[np.intp]:
    """Return the rows in review that routing by the new centers takes out; give them its labels."""
    ids, labels, stands = pictures
    label_of = {number: label for label, number in found.fixed_ids.items()}
    numbers = tuple(range(len(found.centers)))
    model = Model(0, source.extractor, found.centers, numbers, quantiles)
    pinned_to = [label_of[number] for number in hands.cluster_ids.tolist()]
    routing = routing_model(model, hands.vectors, pinned_to)
    rows = np.flatnonzero(stands == IN_REVIEW)
    order = np.argsort(ids[rows])
    taken: list[int] = []
    for start in range(0, len(rows), _ASKED_AT_ONCE):
        asked = rows[order[start : start + _ASKED_AT_ONCE]]
        known, vectors = fits.features_of(source.extractor, ids[asked].tolist())
        own = asked[np.searchsorted(ids[asked], known)]
        for row, choice in zip(own.tolist(), choose(vectors, routing, source.rule), strict=True):
            if choice.cluster_id is not None:
                labels[row] = choice.cluster_id
                taken.append(row)
    return np.array(taken, dtype=np.intp)


def nearest_sizes(library: Library, model: Model) -> dict[int, int]:
    """Count, for each cluster id, the pictures that lie nearest to its center."""
    sizes = np.zeros(len(model.centers), dtype=np.int64)
    for _, vectors in library.store.fits.stream_features(library.extractor.id):
        sizes += np.bincount(nearest(vectors, model.centers)[0], minlength=len(sizes))
    return dict(zip(model.cluster_ids, sizes.tolist(), strict=True))
