"""A person's word on a fit: accept or reject a proposal, return to the former fit.

The switch and the plans of all moves are one transaction: a crash leaves either nothing,
or planned moves that the next start makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_proposals import ROLLED_BACK, KeptFit, Proposals
from imgsortd.adoption import switch_to
from imgsortd.batch_report import BatchReport
from imgsortd.core.records import ExtractorId, FitState, Model, Move
from imgsortd.core.routing import nearest
from imgsortd.errors import ProposalError
from imgsortd.library import Library
from imgsortd.pipeline import make_moves
from imgsortd.planning import Planner

OnMoved = Callable[[str, BatchReport], None]


@dataclass(slots=True)
class Decided:
    """What came of a decision, or would come (``dry_run``).

    Attributes
    ----------
    fit_id
        The fit that was accepted, rejected or rolled back.
    in_force
        The fit in force now.
    changed
        Pictures that have another cluster than before.
    moved, batch
        Files that were moved, and the batch by which that can be undone.
    left
        Why some could not be moved yet; they are tried again.
    refit_batches
        After a rollback: the batches that the fit moved files in, to be undone if wanted.
    """

    decision: str
    fit_id: int
    in_force: int | None
    changed: int = 0
    n_images: int = 0
    moved: int = 0
    batch: int | None = None
    left: list[str] = field(default_factory=list)
    refit_batches: list[int] = field(default_factory=list)
    dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def find_proposal(proposals: Proposals, fit_id: int | None) -> KeptFit:
    """Return the fit of a number, or the proposal that waits.

    Raises
    ------
    ProposalError
        There is none.
    """
    if fit_id is None:
        waiting = proposals.waiting()
        if waiting is None:
            raise ProposalError("no proposal waits; `imgsortd refits` lists the fits there were")
        return waiting
    kept = proposals.fit(fit_id)
    if kept is None:
        raise ProposalError(f"there is no fit {fit_id}; `imgsortd refits` lists those there are")
    return kept


def accept(
    library: Library, fit_id: int | None, *, move: bool = False, on_moved: OnMoved | None = None
) -> Decided:
    """Put a proposal in force; move files where it is to, and out of review always.

    Raises
    ------
    ProposalError
        It is none, or was made of other features, or for another fit than the one in force.
    """
    store = library.store
    kept = find_proposal(store.proposals, fit_id)
    model = _acceptable(library, kept)
    move = move or library.config.refit.move_sorted
    flows = store.proposals.flows(kept.fit_id)
    decided = Decided("accepted", kept.fit_id, kept.fit_id, n_images=kept.n_images)
    decided.changed = sum(files for (old, new), files in flows.items() if old != new)
    with store.atomic():
        store.proposals.put_in_force(kept.fit_id)
        store.proposals.decide(kept.fit_id, FitState.ADOPTED)
        changes = (
            (change.file_id, change.old_id, change.new_id)
            for change in store.proposals.standing(kept.fit_id, only_review=not move)
        )
        moves = _plan(library, model, changes, decided)
    switch_to(library, model)
    _make(library, moves, decided, on_moved)
    return decided


def reject(store: Store, fit_id: int | None) -> Decided:
    """Let a proposal go: it is not made again before the triggers say so anew.

    Raises
    ------
    ProposalError
        It is no proposal that waits.
    """
    kept = find_proposal(store.proposals, fit_id)
    if kept.state is not FitState.PROPOSED:
        raise ProposalError(f"fit {kept.fit_id} is {_state(kept)}; only a proposal can be rejected")
    with store.atomic():
        images = store.records.count_features()
        store.proposals.decide(kept.fit_id, FitState.REJECTED, images)
    return Decided("rejected", kept.fit_id, store.proposals.current_id(), n_images=kept.n_images)


def rollback(library: Library, *, move: bool = False, on_moved: OnMoved | None = None) -> Decided:
    """Return to the fit that the one in force has followed.

    Raises
    ------
    ProposalError
        There is none, or it was made of other features.
    """
    store = library.store
    now, former = rollback_pair(store)
    model, current = store.fits.model(former.fit_id), store.fits.model(now.fit_id)
    _check_extractor(library, model)
    decided = Decided(ROLLED_BACK, now.fit_id, former.fit_id)
    decided.refit_batches = store.proposals.batches_of(now.fit_id)
    changes = moved_back(library, current, model) if move else []
    with store.atomic():
        images = store.records.count_features()
        store.proposals.decide(now.fit_id, FitState.REJECTED, images, ROLLED_BACK)
        store.proposals.put_in_force(former.fit_id)
        moves = _plan(library, model, changes, decided)
    switch_to(library, model)
    _make(library, moves, decided, on_moved)
    return decided


def rollback_pair(store: Store) -> tuple[KeptFit, KeptFit]:
    """Return the fit in force and its former one.

    Raises
    ------
    ProposalError
        There is none to return to.
    """
    current = store.proposals.current_id()
    now = None if current is None else store.proposals.fit(current)
    if now is None:
        raise ProposalError("there is no fit yet, so none to return to")
    former = None if now.former_id is None else store.proposals.fit(now.former_id)
    if former is None:
        raise ProposalError(f"fit {now.fit_id} is the first one: there is none to return to")
    return now, former


def moved_back(library: Library, now: Model, former: Model) -> list[tuple[int, int, int]]:
    """Return (file id, its cluster now, its former one) of files to move by a rollback.

    They stand in the folder of the cluster that is nearest now, and were nearer to
    another one before.
    """
    proposals = library.store.proposals
    return [
        change
        for change in model_changes(library.store, now, former, library.mover.after_each)
        if proposals.stands_in(change[0], change[1])
    ]


def model_changes(
    store: Store, now: Model, to: Model, after_each: Callable[[], None] = lambda: None
) -> Iterable[tuple[int, int, int]]:
    """Yield (file id, nearest cluster now, nearest then) of pictures where they differ."""
    ids, ids_then = np.asarray(now.cluster_ids), np.asarray(to.cluster_ids)
    for file_ids, vectors in store.fits.stream_features(now.extractor):
        before = ids[nearest(vectors, now.centers)[0]]
        after = ids_then[nearest(vectors, to.centers)[0]]
        for row in np.flatnonzero(before != after):
            yield int(file_ids[row]), int(before[row]), int(after[row])
        after_each()  # a million pictures take longer than systemd waits


def _acceptable(library: Library, kept: KeptFit) -> Model:
    proposals = library.store.proposals
    if kept.state not in (FitState.PROPOSED, FitState.REJECTED) or kept.in_force:
        raise ProposalError(f"fit {kept.fit_id} is {_state(kept)}; {_ANEW}")
    if kept.former_id != proposals.current_id() or library.model is None:
        raise ProposalError(
            f"fit {kept.fit_id} was made to follow fit {kept.former_id}, but fit "
            f"{proposals.current_id()} is in force now; {_ANEW}"
        )
    model = library.store.fits.model(kept.fit_id)
    _check_extractor(library, model)
    return model


_ANEW = "`imgsortd refit` makes a new one of the pictures there are now"


def _state(kept: KeptFit) -> str:
    if kept.in_force:
        return "in force already"
    return f"{kept.state}: {kept.note}" if kept.note else f"{kept.state}"


def _check_extractor(library: Library, model: Model) -> None:
    if model.extractor != library.extractor.id:
        raise ProposalError(
            f"fit {model.fit_id} was made of {_features(model.extractor)}, but the configuration "
            f"now gives {_features(library.extractor.id)}; {_ANEW}"
        )


def _features(extractor: ExtractorId) -> str:
    digest = extractor.weights_digest[:12]
    return f"{extractor.layer} features of weights {digest} ({extractor.backbone})"


def _plan(
    library: Library,
    model: Model,
    changes: Iterable[tuple[int, int | None, int]],
    decided: Decided,
) -> list[Move]:
    """Plan moves of files to the folders of their new clusters; what is gone is left out."""
    planner = Planner(library.config, library.store, library.mover, model)
    decided.batch = planner.batch
    label_of = {cluster_id: label for label, cluster_id in enumerate(model.cluster_ids)}
    moves = []
    for file_id, old_id, new_id in list(changes):
        if library.store.journal.is_moving(file_id):
            continue  # on its way to where it was sent before
        plan = planner.take_out if old_id is None else planner.reroute
        moves.append(plan(file_id, label_of[new_id]))
        library.mover.after_each()
    return [move for move in moves if move is not None]


def _make(library: Library, moves: list[Move], decided: Decided, on_moved: OnMoved | None) -> None:
    if not moves:
        decided.batch = None
        return
    report = BatchReport(batch=decided.batch or 0, images=len(moves))
    make_moves(library, moves, report)
    decided.moved, decided.left = report.sorted + report.duplicates, report.errors
    if on_moved is not None:
        on_moved("sorted moved", report)
