"""Changes of a few clusters, to be proposed: a giant one split, a group in review taken out.

Like a fit, they are computed beside the loop, by a reader of their own, in bounded memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imgsortd.adapters.bisecting import bisect
from imgsortd.adapters.kmeans import Fit
from imgsortd.adapters.store import open_read_only
from imgsortd.adapters.store_fits import Fits
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.core.grouping import LEAST_PICTURES, coherent_group, mutual_limit
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Model, Vectors
from imgsortd.core.review import ReviewRule, choose, distance_quantiles
from imgsortd.core.routing import nearest
from imgsortd.fit_rows import StandingFiles
from imgsortd.fits import Fitted
from imgsortd.matching import About

_SAMPLE_ROWS = 20_000
_REVIEW_ROWS = 2000
_NEW = -1


@dataclass(frozen=True, slots=True)
class PartialSource:
    """What a change of a few clusters is computed from.

    Attributes
    ----------
    trigger
        SPLIT or REVIEW.
    cluster_id
        The cluster to be split; None for a group in review.
    images
        Its pictures, or those in review.
    most_share
        Share of all pictures that a part may have.
    rule
        When a picture goes to review.
    """

    trigger: FitTrigger
    database: Path
    cluster_id: int | None
    images: int
    most_share: float
    random_state: int
    rule: ReviewRule


@dataclass(frozen=True, slots=True)
class PartialFit:
    """A change of a few clusters, and the model that it is a change of."""

    basis: Model
    fitted: Fitted
    about: About


def compute_partial(source: PartialSource) -> PartialFit | None:
    """Compute the change; None where there is none to propose.

    Raises
    ------
    StoreError
        The features cannot be read.
    """
    store = open_read_only(source.database)
    try:
        with foreign_errors(source.database):
            basis = store.fits.current()  # as it is kept: without the centers that pins add
            if basis is None:
                return None
            split = source.trigger is FitTrigger.SPLIT
            standing = StandingFiles.read(store)
            return (_split if split else _take_out)(source, store.fits, basis, standing)
    finally:
        store.close()


def _split(
    source: PartialSource, fits: Fits, basis: Model, standing: StandingFiles
) -> PartialFit | None:
    started = time.perf_counter()
    sample, in_it, in_all = _sample(source, fits, basis)
    if not in_it:
        return None
    # The sample is of the cluster alone: as many of it as would be the largest share of all.
    most = source.most_share * in_all * len(sample) / in_it
    parts = bisect(sample, most, source.random_state)
    if len(parts) < 2:
        return None
    others = np.asarray(basis.cluster_ids) != source.cluster_id
    means = [part.mean(axis=0, keepdims=True) for part in parts]
    centers = np.concatenate([basis.centers[others], *means]).astype(np.float32)
    fitted = _label(fits, basis, centers, standing, "bisecting KMeans", started)
    kept = (*np.asarray(basis.cluster_ids)[others].tolist(), *[None] * len(parts))
    return PartialFit(basis, fitted, About(source.cluster_id, source.images, kept))


def _sample(source: PartialSource, fits: Fits, basis: Model) -> tuple[Vectors, int, int]:
    """Return some features of the cluster, how many it has, and how many there are of all.

    They come in the order of their hashes, so that the first ones are a random sample.
    """
    ids = np.asarray(basis.cluster_ids)
    taken: list[Vectors] = [np.empty((0, basis.centers.shape[1]), dtype=np.float32)]
    room, in_it, in_all = _SAMPLE_ROWS, 0, 0
    for _, vectors in fits.stream_features(basis.extractor):
        rows = np.flatnonzero(ids[nearest(vectors, basis.centers)[0]] == source.cluster_id)
        in_it += len(rows)
        in_all += len(vectors)
        taken.append(vectors[rows[:room]])
        room -= len(taken[-1])
    return np.concatenate(taken), in_it, in_all


def _take_out(
    source: PartialSource, fits: Fits, basis: Model, standing: StandingFiles
) -> PartialFit | None:
    started = time.perf_counter()
    if basis.distances is None:
        return None
    file_ids, vectors = fits.load_review(basis.extractor, _REVIEW_ROWS)
    rows = coherent_group(vectors, mutual_limit(basis.distances))
    if not len(rows):
        return None
    center = vectors[rows].mean(axis=0, keepdims=True)
    own = np.linalg.norm(vectors[rows] - center, axis=1)
    if own.mean() >= nearest(vectors[rows], basis.centers)[1].mean():
        return None  # together, but nearer to a cluster there is than to each other
    centers = np.concatenate([basis.centers, center]).astype(np.float32)
    # What routing by the new center would send to it goes along; of the group, what it would
    # send back to review stays.
    model = replace(basis, centers=centers, cluster_ids=(*basis.cluster_ids, _NEW))
    chosen = [choice.cluster_id == _NEW for choice in choose(vectors, model, source.rule)]
    taken = file_ids[np.asarray(chosen)]
    if len(taken) < LEAST_PICTURES:
        return None
    fitted = _label(fits, basis, centers, standing, "average linkage", started)
    fitted = replace(fitted, taken=np.flatnonzero(np.isin(fitted.file_ids, taken)))
    fitted.fit.labels[fitted.taken] = len(centers) - 1
    return PartialFit(basis, fitted, About(None, source.images, (*basis.cluster_ids, None)))


def _label(
    fits: Fits,
    basis: Model,
    centers: Vectors,
    standing: StandingFiles,
    algorithm: str,
    started: float,
) -> Fitted:
    parts = []
    for ids, vectors in fits.stream_features(basis.extractor):
        parts.append((ids, *nearest(vectors, centers), nearest(vectors, basis.centers)[0]))
    file_ids = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    distances = np.concatenate([part[2] for part in parts])
    old_labels = np.concatenate([part[3] for part in parts])
    inertia = float(np.square(distances, dtype=np.float64).sum())
    fit = Fit(centers, labels, inertia, algorithm, time.perf_counter() - started)
    quantiles = distance_quantiles(distances, labels)
    return Fitted(file_ids, fit, old_labels, standing.of(file_ids), distances=quantiles)
