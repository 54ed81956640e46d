"""A fit's line: stored features → KMeans → ids matched to the old ones → one transaction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.kmeans import Fit, fit_kmeans
from imgsortd.adapters.store_records import FitRecord
from imgsortd.core.clusters import churn, match_ids
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Move, Vectors
from imgsortd.core.routing import nearest
from imgsortd.pipeline import BatchReport, Library, make_moves
from imgsortd.planning import Planner


@dataclass(frozen=True, slots=True)
class FitData:
    """Stored features for one fit: file ids, int64 [n], and vectors, float32 [n, d]."""

    file_ids: npt.NDArray[np.int64]
    vectors: Vectors


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


def load_fit_data(library: Library) -> FitData:
    """Load all stored features of sorted and waiting files; no picture is read."""
    return FitData(*library.store.fits.load_features(library.extractor.id))


def compute_fit(data: FitData, n_clusters: int, random_state: int) -> Fit:
    """Fit the centers; needs no store, so that it may run beside the loop."""
    return fit_kmeans(data.vectors, n_clusters, random_state)


def adopt_fit(
    library: Library, data: FitData, fit: Fit, trigger: FitTrigger, *, dry_run: bool = False
) -> FitSummary:
    """Match a fit's clusters to the ones in force, and switch to it in one transaction."""
    old, store = library.model, library.store
    moved: float | None = None
    if old is None:
        start = store.fits.next_cluster_id()
        ids = tuple(range(start, start + len(fit.centers)))
    else:
        old_labels, _ = nearest(data.vectors, old.centers)
        ids = match_ids(
            old_labels,
            fit.labels,
            old.cluster_ids,
            len(fit.centers),
            store.fits.next_cluster_id(),
        )
        moved = churn(old_labels, fit.labels, old.cluster_ids, ids)
    sizes = np.bincount(fit.labels, minlength=len(fit.centers)).tolist()
    record = FitRecord(
        trigger,
        fit.algorithm,
        len(data.vectors),
        library.config.clusters.random_state,
        fit.inertia,
        moved,
        fit.fit_s,
    )
    if not dry_run:
        with store.atomic():
            model = store.fits.save(library.extractor.id, fit.centers, ids, sizes, record)
        library.model = model  # not before the commit: it may fail on a full disk
        fault_point("fit_saved")
    before = set(old.cluster_ids) if old else set()
    return FitSummary(
        fit_id=None if dry_run or library.model is None else library.model.fit_id,
        trigger=trigger,
        algorithm=fit.algorithm,
        n_images=len(data.vectors),
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


def move_sorted(library: Library, data: FitData, fit: Fit) -> BatchReport:
    """Move files that were sorted before to the cluster they now lie nearest to."""
    report = BatchReport()
    assert library.model is not None
    planner = Planner(library.config, library.store, library.mover, library.model)
    moves: list[Move] = []
    with library.store.atomic():
        for file_id, label in zip(data.file_ids.tolist(), fit.labels.tolist(), strict=True):
            move = planner.reroute(file_id, label)
            if move is not None:
                moves.append(move)
    make_moves(library, moves, report)
    report.images = len(moves)
    return report
