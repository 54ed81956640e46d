"""What a fit changes: its clusters get the ids of the old ones, and files may follow them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.store_files import Files
from imgsortd.adapters.store_records import FitRecord
from imgsortd.core.clusters import churn, match_ids
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Model, Move
from imgsortd.fits import Fitted
from imgsortd.library import Library
from imgsortd.pipeline import BatchReport, make_moves
from imgsortd.planning import Planner


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


def adopt_fit(
    library: Library, fitted: Fitted, trigger: FitTrigger, *, dry_run: bool = False
) -> FitSummary:
    """Match a fit's clusters to the ones in force, and switch to it in one transaction."""
    store, fit = library.store, fitted.fit
    old, overlap = _old_clusters(library, fitted)
    moved: float | None = None
    if old is None:
        start = store.fits.next_cluster_id()
        none = fit.labels[:0]
        ids = match_ids(none, none, (), len(fit.centers), start, fitted.fixed_ids)
    else:
        next_id = store.fits.next_cluster_id()
        ids = match_ids(*overlap, old.cluster_ids, len(fit.centers), next_id, fitted.fixed_ids)
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
        distances=None if fitted.distances is None else fitted.distances.astype("<f4").tobytes(),
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
