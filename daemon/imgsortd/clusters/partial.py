"""Changes of a few clusters, to be proposed: a giant one split, a group in review taken out.

Like a fit, they are computed beside the loop, by a reader of their own, in bounded memory.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from imgsortd.clusters.fit import Fitted, StandingFiles
from imgsortd.clusters.kmeans import LEAST_PICTURES, Fit, bisect
from imgsortd.clusters.routing import ReviewRule, choose, distance_quantiles, nearest
from imgsortd.records import FitTrigger, Model, Vectors
from imgsortd.store.database import open_for_reading
from imgsortd.store.features import Fits

_SAMPLE_ROWS = 20_000
_REVIEW_ROWS = 2000
_NEW = -1
_MEDIAN = 500  # of the quantiles 0, 1/1000 … 1


@dataclass(frozen=True, slots=True)
class PartialSource:
    """What a change of a few clusters is computed from: for SPLIT or for REVIEW.

    Attributes
    ----------
    cluster_id
        The cluster to be split; None for a group in review.
    images
        Its pictures, or those in review.
    most_share
        Share of all pictures that a part may have.
    """

    trigger: FitTrigger
    database: Path
    cluster_id: int | None
    images: int
    most_share: float
    random_state: int
    rule: ReviewRule


@dataclass(frozen=True, slots=True)
class About:
    """What a change of a few clusters is about.

    Attributes
    ----------
    cluster_id
        The cluster that is split; None for a new one.
    images
        Its pictures, or those in review.
    kept_ids
        Cluster id of each label that stays as it is, None for others.
    """

    cluster_id: int | None
    images: int
    kept_ids: tuple[int | None, ...]


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
    with open_for_reading(source.database) as store:
        basis = store.fits.current()  # as it is kept: without the centers that pins add
        if basis is None:
            return None
        compute = _split if source.trigger is FitTrigger.SPLIT else _take_out
        return compute(source, store.fits, basis, StandingFiles.read(store))


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
    parts = [
        (ids, *nearest(vectors, centers), nearest(vectors, basis.centers)[0])
        for ids, vectors in fits.stream_features(basis.extractor)
    ]
    file_ids, labels, distances, old_labels = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    inertia = float(np.square(distances, dtype=np.float64).sum())
    fit = Fit(centers, labels, inertia, algorithm, time.perf_counter() - started)
    quantiles = distance_quantiles(distances, labels)
    return Fitted(file_ids, fit, old_labels, standing.of(file_ids), distances=quantiles)


def mutual_limit(quantiles: Vectors) -> float:
    """Return the distance between two pictures up to which they are near, for this fit.

    Two pictures of a cluster lie √2 times as far from each other as from its center, in
    the square mean: so this is how far pictures of a middling cluster lie apart.

    Parameters
    ----------
    quantiles
        float32 [1001], of the fit's own distances
        (:func:`imgsortd.clusters.routing.distance_quantiles`).
    """
    return math.sqrt(2) * float(quantiles[_MEDIAN])


def coherent_group(features: Vectors, limit: float) -> npt.NDArray[np.intp]:
    """Find the largest group of pictures that lie near each other.

    Agglomerative clustering with average linkage: groups are joined while their pictures
    lie within ``limit`` of each other on average.

    Parameters
    ----------
    features
        float32 [n, d]; n² distances are in memory, so a few thousand at most.

    Returns
    -------
    intp [m]
        Rows of ``features``; empty where no group has five pictures.
    """
    if len(features) >= LEAST_PICTURES:
        groups = fcluster(linkage(features, method="average"), limit, criterion="distance")
        sizes = np.bincount(groups)
        if sizes.max() >= LEAST_PICTURES:
            return np.flatnonzero(groups == sizes.argmax())
    return np.empty(0, dtype=np.intp)
