"""What a fit changes: its clusters get the ids of the old ones, and files may follow them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.store_files import Files
from imgsortd.batch_report import BatchReport
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import FitState, Model, Move
from imgsortd.fits import Fitted
from imgsortd.library import Library
from imgsortd.matching import (
    About,
    Matched,
    changes_of,
    flows_of,
    match_fit,
    placed_clusters,
    record_of,
    sizes_of,
)
from imgsortd.partial_fits import PartialFit
from imgsortd.pipeline import make_moves
from imgsortd.planning import Planner

_PING_EVERY = 1000


@dataclass(frozen=True, slots=True)
class FitSummary:
    """A fit as it is reported. ``churn`` is None for the first fit.

    ``state`` tells whether it is in force (``adopted``) or waits as a proposal
    (``proposed``); None for a dry run.
    """

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
    state: FitState | None = FitState.ADOPTED
    max_churn: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def adopt_fit(
    library: Library, fitted: Fitted, trigger: FitTrigger, *, dry_run: bool = False
) -> FitSummary:
    """Match a fit's clusters to the ones in force, and switch to it in one transaction."""
    matched = match_fit(library, fitted)
    return _adopt(library, matched, trigger, dry_run)


def settle_fit(
    library: Library,
    fitted: Fitted,
    trigger: FitTrigger,
    *,
    basis: Model | None,
    accept: bool = False,
    dry_run: bool = False,
) -> FitSummary:
    """Put a fit in force, or keep it as a proposal where it changes too much.

    Parameters
    ----------
    basis
        The model that was in force when the fit began: ``fitted.old_labels`` are its labels.
    accept
        Whether a person has said that it is to be in force, whatever it changes.
    """
    matched = match_fit(library, fitted, basis)
    limit = library.config.refit.max_churn
    waits = library.model is not None and limit is not None and (matched.churn or 0.0) > limit
    if accept or not waits:
        return _adopt(library, matched, trigger, dry_run)
    return _propose(library, matched, trigger, None, dry_run)


def propose_change(library: Library, change: PartialFit, trigger: FitTrigger) -> FitSummary:
    """Keep a change of a few clusters as a proposal."""
    matched = match_fit(library, change.fitted, change.basis, change.about)
    return _propose(library, matched, trigger, change.about, False)


def _adopt(library: Library, matched: Matched, trigger: FitTrigger, dry_run: bool) -> FitSummary:
    store, fit = library.store, matched.fitted.fit
    if not dry_run:
        record = record_of(library, matched, trigger)
        with store.atomic():
            model = store.fits.save(
                library.extractor.id, fit.centers, matched.ids, sizes_of(matched), record
            )
            store.proposals.add_flows(model.fit_id, flows_of(matched, None))
        switch_to(library, model)
    fit_id = None if dry_run or library.model is None else library.model.fit_id
    return _summary(library, matched, trigger, fit_id, None if dry_run else FitState.ADOPTED)


def switch_to(library: Library, model: Model) -> None:
    """Route by this model from now on; call after the commit, for the disk may be full."""
    library.model, library.former = model, None
    fault_point("fit_saved")


def _propose(
    library: Library,
    matched: Matched,
    trigger: FitTrigger,
    about: About | None,
    dry_run: bool,
) -> FitSummary:
    store, fit = library.store, matched.fitted.fit
    if dry_run:
        return _summary(library, matched, trigger, None, None)
    record = record_of(library, matched, trigger, about)
    with store.atomic():
        model = store.fits.keep(
            library.extractor.id,
            fit.centers,
            matched.ids,
            sizes_of(matched),
            record,
            FitState.PROPOSED,
        )
        store.proposals.replace_waiting(model.fit_id)
        changes = _pinging(library, changes_of(matched, about))
        store.proposals.add_changes(model.fit_id, changes)
        store.proposals.add_flows(model.fit_id, flows_of(matched, about))
    fault_point("fit_proposed")
    return _summary(library, matched, trigger, model.fit_id, FitState.PROPOSED)


def _pinging(
    library: Library, changes: Iterator[tuple[int, int | None, int]]
) -> Iterator[tuple[int, int | None, int]]:
    """Pass changes on; a million of them take as long as many moves."""
    for number, change in enumerate(changes):
        if number % _PING_EVERY == 0:
            library.mover.after_each()
        yield change


def _summary(
    library: Library,
    matched: Matched,
    trigger: FitTrigger,
    fit_id: int | None,
    state: FitState | None,
) -> FitSummary:
    fit, before, after = matched.fitted.fit, set(matched.old_ids), set(matched.ids)
    return FitSummary(
        fit_id=fit_id,
        trigger=trigger,
        algorithm=fit.algorithm,
        n_images=len(fit.labels),
        n_clusters=len(fit.centers),
        inertia=fit.inertia,
        churn=matched.churn,
        kept_ids=len(before & after),
        new_ids=sorted(after - before),
        retired_ids=sorted(before - after),
        sizes=dict(zip(matched.ids, sizes_of(matched), strict=True)),
        fit_s=fit.fit_s,
        dry_run=state is None,
        state=state,
        max_churn=library.config.refit.max_churn,
    )


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
    placed = placed_clusters(files)
    _, at, rows = np.intersect1d(
        placed[:, 0], fitted.file_ids, assume_unique=True, return_indices=True
    )
    labels = fitted.fit.labels[rows]
    wrong = np.flatnonzero(placed[at, 1] != np.asarray(model.cluster_ids)[labels])
    return list(zip(placed[at[wrong], 0].tolist(), labels[wrong].tolist(), strict=True))
