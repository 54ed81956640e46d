"""A person's word on a fit: accept or reject a proposal, return to the former fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_proposals import ROLLED_BACK, KeptFit, Proposals
from imgsortd.adoption import (
    Following,
    OnMoved,
    make_following,
    moves_files,
    note_switch,
    plan_following,
    switch_to,
)
from imgsortd.core.records import ExtractorId, FitState, Model
from imgsortd.core.review import ReviewRule, choose
from imgsortd.core.routing import nearest
from imgsortd.errors import ProposalError
from imgsortd.library import Library


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
        Files that were moved, or would be, and the batch by which that can be undone.
    left
        Why some could not be moved yet; they are tried again.
    following
        Files that are still to be moved.
    refit_batches
        After a rollback: the batch that the fit moved files in.
    """

    decision: str
    fit_id: int
    in_force: int | None
    changed: int = 0
    n_images: int = 0
    moved: int = 0
    batch: int | None = None
    left: list[str] = field(default_factory=list)
    following: int = 0
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
    library: Library,
    fit_id: int | None,
    *,
    move: bool | None = None,
    on_moved: OnMoved | None = None,
) -> Decided:
    """Put a proposal in force; files move to where it shows them, and out of review always.

    Parameters
    ----------
    move
        Whether sorted files move; None for what the configuration says.

    Raises
    ------
    ProposalError
        It is none, or was made of other features, or for another fit than the one in force.
    """
    store = library.store
    kept = find_proposal(store.proposals, fit_id)
    model = _acceptable(library, kept)
    move = moves_files(library, True, move)
    flows = store.proposals.flows(kept.fit_id)
    decided = Decided("accepted", kept.fit_id, kept.fit_id, n_images=kept.n_images)
    decided.changed = sum(files for (old, new), files in flows.items() if old != new)
    with store.atomic():
        store.proposals.put_in_force(kept.fit_id)
        images = store.records.count_features()
        store.proposals.decide(kept.fit_id, FitState.ADOPTED, images)
        changes = store.proposals.standing(kept.fit_id, only_review=not move)
        following = plan_following(
            library, model, ((one.file_id, one.old_id, one.new_id) for one in changes)
        )
        assert kept.former_id is not None, "a fit that followed none is in force already"
        note_switch(library, following, kept.fit_id, kept.former_id)
    switch_to(library, model)
    _make(library, following, decided, on_moved)
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


def rollback(
    library: Library, *, move: bool | None = None, on_moved: OnMoved | None = None
) -> Decided:
    """Return to the fit that the one in force has followed, and files to where they stood.

    Parameters
    ----------
    move
        Whether files move; None for what the configuration says.

    Raises
    ------
    ProposalError
        There is none, or it was made of other features.
    """
    store = library.store
    now, former = rollback_pair(store)
    _check_all_have_followed(store)
    model, current = store.fits.model(former.fit_id), store.fits.model(now.fit_id)
    _check_extractor(library, model)
    move = moves_files(library, True, move)
    decided = Decided(ROLLED_BACK, now.fit_id, former.fit_id)
    decided.refit_batches = store.proposals.batches_of(now.fit_id)
    rule, ping = library.review_rule, library.mover.after_each
    changes = moved_back(store, current, model, rule, ping) if move else []
    with store.atomic():
        images = store.records.count_features()
        store.proposals.switch(now.fit_id, former.fit_id, images)
        following = plan_following(library, model, changes)
        note_switch(library, following, former.fit_id, now.fit_id)
    switch_to(library, model)
    _make(library, following, decided, on_moved)
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


def moved_back(
    store: Store,
    now: Model,
    former: Model,
    rule: ReviewRule,
    after_each: Callable[[], None] = lambda: None,
) -> list[tuple[int, int | None, int | None]]:
    """Return (file id, its cluster now, its former one) of files to move by a rollback.

    What the fit has moved goes to where it stood, review among it. What has arrived since,
    and stands in the folder of the cluster that is nearest now, goes to where the former fit
    would have put it. None is for review.
    """
    proposals = store.proposals
    back: dict[int, tuple[int, int | None, int | None]] = {
        one.file_id: (one.file_id, one.new_id, one.old_id)
        for one in proposals.standing(now.fit_id, moved=True)
    }
    since = (
        change
        for change in model_changes(store, now, former, rule, after_each)
        if change[0] not in back and proposals.stands_in(change[0], change[1])
    )
    return [*back.values(), *since]


def model_changes(
    store: Store,
    now: Model,
    to: Model,
    rule: ReviewRule,
    after_each: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, int, int | None]]:
    """Yield (file id, nearest cluster now, cluster then) of pictures where they differ.

    None is for review, where a picture is far from all clusters of the other fit.
    """
    ids, ids_then = np.asarray(now.cluster_ids), np.asarray(to.cluster_ids)
    for file_ids, vectors in store.fits.stream_features(now.extractor):
        before = ids[nearest(vectors, now.centers)[0]]
        after = ids_then[nearest(vectors, to.centers)[0]]
        rows = np.flatnonzero(before != after)
        for row, choice in zip(rows.tolist(), choose(vectors[rows], to, rule), strict=True):
            yield int(file_ids[row]), int(before[row]), choice.cluster_id
        after_each()  # a million pictures take longer than systemd waits


def _acceptable(library: Library, kept: KeptFit) -> Model:
    proposals = library.store.proposals
    if kept.state not in (FitState.PROPOSED, FitState.REJECTED) or kept.in_force:
        raise ProposalError(f"fit {kept.fit_id} is {_state(kept)}; {_ANEW}")
    _check_all_have_followed(library.store)
    if kept.former_id != proposals.current_id() or library.model is None:
        raise ProposalError(
            f"fit {kept.fit_id} was made to follow fit {kept.former_id}, but fit "
            f"{proposals.current_id()} is in force now; {_ANEW}"
        )
    model = library.store.fits.model(kept.fit_id)
    _check_extractor(library, model)
    return model


def _check_all_have_followed(store: Store) -> None:
    if still := store.proposals.count_following():
        current = store.proposals.current_id()
        raise ProposalError(
            f"{still:,} files are still to follow fit {current}; ask again when they have "
            f"(`imgsortd status` says what holds them up)"
        )


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


def _make(
    library: Library, following: Following, decided: Decided, on_moved: OnMoved | None
) -> None:
    report = make_following(library, following, on_moved)
    decided.moved = report.sorted + report.duplicates + report.review
    decided.batch, decided.left = report.batch or None, report.errors
    if report.batch:
        decided.following = library.store.proposals.count_following(report.batch)
