"""A fit comes into force, or waits as a proposal; in force, files may follow it.

The switch and the plans of all moves are one transaction: a crash leaves either nothing, or
planned moves that the next start makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from imgsortd.adapters.faults import fault_point
from imgsortd.batch_report import BatchReport
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import KEPT, DuplicatePolicy, FitState, Model, Move, Op
from imgsortd.fits import Fitted
from imgsortd.library import Library
from imgsortd.matching import About, Matched, changes_of, flows_of, match_fit, record_of, sizes_of
from imgsortd.partial_fits import PartialFit
from imgsortd.pipeline import make_moves, planner_of

OnMoved = Callable[[str, BatchReport], None]
_PING_EVERY = 1000
_NO_NEW_VIEW = (FitTrigger.BACKBONE, FitTrigger.REBUILD)
"""Fits of what is sorted already, in other features or after a loss."""


@dataclass(frozen=True, slots=True)
class FitSummary:
    """A fit as it is reported. ``churn`` is None for the first fit.

    Attributes
    ----------
    state
        Whether it is in force (``adopted``) or waits as a proposal (``proposed``); None for a
        dry run.
    moved, batch
        Files that were moved along, and the batch by which that can be undone.
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
    moved: int = 0
    batch: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Following:
    """Moves of files that follow a fit: planned, and all of one batch."""

    moves: list[Move]
    batch: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a fit; ``following`` are the moves that are planned with it, if any."""

    summary: FitSummary
    following: Following | None = None

    def moved(self, report: BatchReport) -> FitSummary:
        """Return the summary with what the moves came to."""
        files = report.sorted + report.duplicates
        return replace(self.summary, moved=files, batch=report.batch if files else None)


def adopt_fit(
    library: Library, fitted: Fitted, trigger: FitTrigger, *, dry_run: bool = False
) -> FitSummary:
    """Match a fit's clusters to the folders, and switch to it in one transaction."""
    matched = match_fit(library, fitted)
    if dry_run:
        return _summary(library, matched, trigger, None, None)
    return _adopt(library, matched, trigger, moves=False).summary


def settle_fit(
    library: Library,
    fitted: Fitted,
    trigger: FitTrigger,
    *,
    basis: Model | None,
    accept: bool = False,
    keep_files: bool = False,
    dry_run: bool = False,
) -> Settled:
    """Put a fit in force, or keep it as a proposal where it changes too much.

    The files that follow it are planned then, and not moved (:func:`make_following`).

    Parameters
    ----------
    basis
        The model that was in force when the fit began: ``fitted.old_labels`` are its labels.
    accept
        Whether a person has said that it is to be in force, whatever it changes.
    keep_files
        Whether files stay where they stand, whatever the configuration says.
    """
    matched = match_fit(library, fitted, basis)
    if dry_run:
        return Settled(_summary(library, matched, trigger, None, None))
    maturity = library.maturity()
    is_young = maturity is not None and maturity.is_young
    limit = library.config.refit.max_churn
    asks = library.model is not None and limit is not None and (matched.churn or 0.0) > limit
    if asks and not accept and (trigger is FitTrigger.REQUEST or not is_young):
        return Settled(_propose(library, matched, trigger, None))
    is_new = fitted.fit.algorithm != KEPT and trigger not in _NO_NEW_VIEW
    moves = not keep_files and moves_files(library, accept or is_new)
    return _adopt(library, matched, trigger, moves=moves)


def moves_files(library: Library, is_called_for: bool, asked: bool | None = None) -> bool:
    """Tell whether files follow a fit into force; links are never moved again.

    Parameters
    ----------
    is_called_for
        What it is by itself: a person's word, or clusters that are new.
    asked
        What a person has asked for; None for what ``refit.move_sorted`` says.
    """
    config = library.config
    if config.op is Op.SYMLINK:
        return False
    wanted = config.refit.move_sorted if asked is None else asked
    return is_called_for if wanted == "auto" else wanted


def propose_change(library: Library, change: PartialFit, trigger: FitTrigger) -> FitSummary:
    """Keep a change of a few clusters as a proposal."""
    matched = match_fit(library, change.fitted, change.basis, change.about)
    return _propose(library, matched, trigger, change.about)


def _adopt(
    library: Library,
    matched: Matched,
    trigger: FitTrigger,
    *,
    moves: bool,
) -> Settled:
    store = library.store
    with store.atomic():
        model = _keep(library, matched, trigger, None, FitState.ADOPTED)
        store.proposals.put_in_force(model.fit_id)
        following = None
        if moves and (library.model or library.former) is not None:
            store.proposals.add_changes(model.fit_id, _pinging(library, changes_of(matched)))
            changes = store.proposals.standing(model.fit_id)
            following = plan_following(
                library, model, ((one.file_id, one.old_id, one.new_id) for one in changes)
            )
            if library.model is not None:  # to other features there is no way back
                note_switch(library, following, model.fit_id, library.model.fit_id)
    switch_to(library, model)
    summary = _summary(library, matched, trigger, model.fit_id, FitState.ADOPTED)
    return Settled(summary, following)


def _keep(
    library: Library,
    matched: Matched,
    trigger: FitTrigger,
    about: About | None,
    state: FitState,
) -> Model:
    store = library.store
    model = store.fits.keep(
        library.extractor.id,
        matched.fitted.fit.centers,
        matched.ids,
        sizes_of(matched),
        record_of(library, matched, trigger, about),
        state,
    )
    if library.config.duplicates is not DuplicatePolicy.KEEP:  # they will not stay in the library
        images = len(matched.fitted.file_ids) - store.files.count_twins()
        store.proposals.decide(model.fit_id, state, images)
    store.proposals.add_flows(model.fit_id, flows_of(matched))
    return model


def switch_to(library: Library, model: Model) -> None:
    """Route by this model from now on; call after the commit, for the disk may be full."""
    library.model, library.former = model, None
    fault_point("fit_saved")


def plan_following(
    library: Library, model: Model, changes: Iterable[tuple[int, int | None, int | None]]
) -> Following:
    """Plan moves of files to the folders of their clusters; call in the switch's transaction.

    Parameters
    ----------
    changes
        (file id, the cluster in whose folder it stands, its new one); None for review. What is
        gone, pinned or on its way is left out.
    """
    planner = planner_of(library, model)
    moves = []
    for file_id, old_id, new_id in list(changes):
        if library.store.journal.is_moving(file_id):
            continue  # on its way to where it was sent before
        move = planner.follow(file_id, old_id, new_id)
        moves += [] if move is None else [move]
        library.mover.after_each()  # many plans take as long as many moves
    return Following(moves, planner.batch)


def note_switch(library: Library, following: Following, fit_id: int, former_id: int) -> None:
    """Keep which switch files follow, where any do; call in the switch's transaction.

    A batch without a move has no number of its own: the next one gets it.
    """
    if following.moves:
        library.store.proposals.note_switch(following.batch, fit_id, former_id)


def make_following(
    library: Library, following: Following | None, on_moved: OnMoved | None = None
) -> BatchReport:
    """Make the moves that were planned with a switch.

    Parameters
    ----------
    on_moved
        Told (event, report) of them.
    """
    if following is None or not following.moves:
        return BatchReport()
    report = BatchReport(batch=following.batch, images=len(following.moves))
    make_moves(library, following.moves, report)
    if on_moved is not None:
        on_moved("sorted moved", report)
    return report


def _propose(
    library: Library, matched: Matched, trigger: FitTrigger, about: About | None
) -> FitSummary:
    store = library.store
    with store.atomic():
        model = _keep(library, matched, trigger, about, FitState.PROPOSED)
        store.proposals.replace_waiting(model.fit_id)
        if library.config.op is not Op.SYMLINK:  # links are never moved again
            store.proposals.add_changes(model.fit_id, _pinging(library, changes_of(matched)))
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
