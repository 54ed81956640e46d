"""A fit's line: stored features → KMeans → ids matched to the old ones → one transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.kmeans import (
    MINI_BATCH_ABOVE_IMAGES,
    PASSES,
    STREAMED,
    Fit,
    fit_centers,
    fit_kmeans,
)
from imgsortd.adapters.store import open_read_only
from imgsortd.adapters.store_files import Files
from imgsortd.adapters.store_fits import Fits
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.adapters.store_records import FitRecord
from imgsortd.core.clusters import churn, match_ids
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import ExtractorId, Model, Move, Vectors
from imgsortd.core.routing import nearest
from imgsortd.errors import FitError
from imgsortd.library import Library
from imgsortd.pipeline import BatchReport, make_moves
from imgsortd.planning import Planner

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
    nearest old center of each, or None before the first fit.
    """

    file_ids: npt.NDArray[np.int64]
    fit: Fit
    old_labels: npt.NDArray[np.intp] | None


@dataclass(frozen=True, slots=True)
class FitSummary:
    """A fit as it is reported. ``churn`` is None for the first fit."""

    fit_id: int | None
    trigger: str
    algorithm: str
    n_images: int
    n_clusters: int
    inertia: float
    churn: float | None
    kept_ids: int
    new_ids: list[int]
    retired_ids: list[int]
    sizes: dict[int, int]
    fit_s: float
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


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
    return Fitted(file_ids, fit, None if old is None else nearest(vectors, old)[0])


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
    inertia, done = 0.0, 0
    for ids, vectors in fits.stream_features(source.extractor):
        found, distances = nearest(vectors, centers)
        inertia += float(np.square(distances, dtype=np.float64).sum())
        file_ids.append(ids)
        labels.append(found)
        if source.old_centers is not None:
            old_labels.append(nearest(vectors, source.old_centers)[0])
        done += len(ids)
        on_rows(PASSES, done)
    if not done:
        raise FitError("all pictures were taken away while they were fitted; nothing is changed")
    fit_s = time.perf_counter() - started
    return Fitted(
        np.concatenate(file_ids),
        Fit(centers, np.concatenate(labels), inertia, STREAMED, fit_s),
        np.concatenate(old_labels) if old_labels else None,
    )


def nearest_sizes(library: Library, model: Model) -> dict[int, int]:
    """Count, for each cluster id, the pictures that lie nearest to its center."""
    sizes = np.zeros(len(model.centers), dtype=np.int64)
    for _, vectors in library.store.fits.stream_features(library.extractor.id):
        sizes += np.bincount(nearest(vectors, model.centers)[0], minlength=len(sizes))
    return dict(zip(model.cluster_ids, sizes.tolist(), strict=True))


def adopt_fit(
    library: Library, fitted: Fitted, trigger: FitTrigger, *, dry_run: bool = False
) -> FitSummary:
    """Match a fit's clusters to the ones in force, and switch to it in one transaction."""
    store, fit = library.store, fitted.fit
    old, overlap = _old_clusters(library, fitted)
    moved: float | None = None
    if old is None:
        start = store.fits.next_cluster_id()
        ids = tuple(range(start, start + len(fit.centers)))
    else:
        next_id = store.fits.next_cluster_id()
        ids = match_ids(*overlap, old.cluster_ids, len(fit.centers), next_id)
        moved = churn(*overlap, old.cluster_ids, ids)
    sizes = np.bincount(fit.labels, minlength=len(fit.centers)).tolist()
    record = FitRecord(
        trigger,
        fit.algorithm,
        len(fit.labels),
        library.config.clusters.random_state,
        fit.inertia,
        moved,
        fit.fit_s,
    )
    if not dry_run:
        with store.atomic():
            model = store.fits.save(library.extractor.id, fit.centers, ids, sizes, record)
        library.model, library.former = model, None  # after the commit: the disk may be full
        fault_point("fit_saved")
    before = set(old.cluster_ids) if old else set()
    return FitSummary(
        fit_id=None if dry_run or library.model is None else library.model.fit_id,
        trigger=trigger,
        algorithm=fit.algorithm,
        n_images=len(fit.labels),
        n_clusters=len(fit.centers),
        inertia=fit.inertia,
        churn=moved,
        kept_ids=len(before & set(ids)),
        new_ids=sorted(set(ids) - before),
        retired_ids=sorted(before - set(ids)),
        sizes=dict(zip(ids, sizes, strict=True)),
        fit_s=fit.fit_s,
        dry_run=dry_run,
    )


_Labels = npt.NDArray[np.intp]


def _old_clusters(library: Library, fitted: Fitted) -> tuple[Model | None, tuple[_Labels, _Labels]]:
    """Return the clusters whose ids are to be kept, and old and new labels of the same files.

    After a change of backbone the old centers say nothing about the new features: what
    a file's old cluster was is told by the folder it stands in.
    """
    former, labels = library.former, fitted.fit.labels
    if former is None:
        if library.model is None:
            return None, (labels, labels)
        assert fitted.old_labels is not None, "the clusters in force are not those at its start"
        return library.model, (fitted.old_labels, labels)
    placed = _placed(library.store.files)
    placed = placed[np.isin(placed[:, 1], former.cluster_ids)]
    _, at, rows = np.intersect1d(
        placed[:, 0], fitted.file_ids, assume_unique=True, return_indices=True
    )
    order = np.argsort(former.cluster_ids)
    found = np.searchsorted(former.cluster_ids, placed[at, 1], sorter=order)
    return former, (order[found], labels[rows])


def _placed(files: Files) -> npt.NDArray[np.int64]:
    """Return file id and cluster id, int64 [n, 2], of all files in clusters' folders."""
    numbers = (number for row in files.placed_clusters() for number in row)
    return np.fromiter(numbers, dtype=np.int64).reshape(-1, 2)


def move_sorted(library: Library, fitted: Fitted) -> BatchReport:
    """Move files that were sorted before to the cluster they now lie nearest to."""
    report = BatchReport()
    assert library.model is not None
    planner = Planner(library.config, library.store, library.mover, library.model)
    report.batch = planner.batch
    moves: list[Move] = []
    with library.store.atomic():
        for file_id, label in _misplaced(library.store.files, library.model, fitted):
            move = planner.reroute(file_id, label)
            if move is not None:
                moves.append(move)
            library.mover.after_each()  # many plans take as long as many moves
    make_moves(library, moves, report)
    report.images = len(moves)
    return report


def _misplaced(files: Files, model: Model, fitted: Fitted) -> list[tuple[int, int]]:
    """Return (file id, label) of files that stand in a cluster other than the nearest."""
    placed = _placed(files)
    _, at, rows = np.intersect1d(
        placed[:, 0], fitted.file_ids, assume_unique=True, return_indices=True
    )
    labels = fitted.fit.labels[rows]
    wrong = np.flatnonzero(placed[at, 1] != np.asarray(model.cluster_ids)[labels])
    return list(zip(placed[at[wrong], 0].tolist(), labels[wrong].tolist(), strict=True))
