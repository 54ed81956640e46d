"""A person's word on a fit: accept or reject a proposal, return to the former fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from imgsortd.clusters.in_force import InForce, review_rule
from imgsortd.clusters.routing import ReviewRule, choose, nearest
from imgsortd.config.model import Config
from imgsortd.errors import ProposalError
from imgsortd.moves.making import Moves
from imgsortd.records import ExtractorId, FitState, Model
from imgsortd.refits.adopting import (
    Adoption,
    FilesToFollow,
    OnMoved,
    ToFollow,
    moves_files,
    to_follow,
)
from imgsortd.refits.changes import find_proposal, rollback_pair
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.fits import ROLLED_BACK, KeptFit

_ANEW = "`imgsortd refit` makes a new one of the pictures there are now"


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


class Decisions:
    """Takes a person's word on fits; ``move`` says whether files do, None as configured."""

    def __init__(
        self,
        store: Store,
        extractor: ExtractorId,
        in_force: InForce,
        moves: Moves,
        adoption: Adoption,
    ) -> None:
        self._store, self._extractor, self._in_force = store, extractor, in_force
        self._moves, self._adoption = moves, adoption

    def accept(
        self, fit_id: int | None, *, move: bool | None = None, on_moved: OnMoved | None = None
    ) -> Decided:
        """Put a proposal in force; files move to where it shows them, and out of review always.

        Raises
        ------
        ProposalError
            It is none, or was made of other features, or for another fit than the one in force.
        """
        store = self._store
        kept = find_proposal(store.records, fit_id)
        model = self._acceptable(kept)
        move = moves_files(self._adoption.config, True, move)
        flows = store.records.flows(kept.fit_id)
        decided = Decided("accepted", kept.fit_id, kept.fit_id, n_images=kept.n_images)
        decided.changed = sum(files for (old, new), files in flows.items() if old != new)
        with store.atomic():
            store.records.put_in_force(kept.fit_id)
            images = store.records.count_features()
            store.records.decide(kept.fit_id, FitState.ADOPTED, images)
            changes = store.records.standing(kept.fit_id, only_review=not move)
            assert kept.former_id is not None, "a fit that followed none is in force already"
            following = self._adoption.plan_following(model, to_follow(changes), kept.former_id)
        return self._take_effect(model, following, decided, on_moved)

    def rollback(self, *, move: bool | None = None, on_moved: OnMoved | None = None) -> Decided:
        """Return to the fit that the one in force has followed, and files to where they stood.

        Raises
        ------
        ProposalError
            There is none, or it was made of other features.
        """
        store = self._store
        now, former = rollback_pair(store)
        _check_all_have_followed(store)
        model, current = store.fits.model(former.fit_id), store.fits.model(now.fit_id)
        self._check_extractor(model)
        move = moves_files(self._adoption.config, True, move)
        decided = Decided(ROLLED_BACK, now.fit_id, former.fit_id)
        decided.refit_batches = store.records.batches_of(now.fit_id)
        rule, ping = self._in_force.rule, self._moves.mover.after_each
        changes = moved_back(store, current, model, rule, ping) if move else []
        with store.atomic():
            images = store.records.count_features()
            store.records.switch(now.fit_id, former.fit_id, images)
            following = self._adoption.plan_following(model, changes, now.fit_id)
        return self._take_effect(model, following, decided, on_moved)

    def _acceptable(self, kept: KeptFit) -> Model:
        records = self._store.records
        if kept.state not in (FitState.PROPOSED, FitState.REJECTED) or kept.in_force:
            raise ProposalError(f"fit {kept.fit_id} is {_state(kept)}; {_ANEW}")
        _check_all_have_followed(self._store)
        if kept.former_id != records.current_id() or self._in_force.model is None:
            raise ProposalError(
                f"fit {kept.fit_id} was made to follow fit {kept.former_id}, but fit "
                f"{records.current_id()} is in force now; {_ANEW}"
            )
        model = self._store.fits.model(kept.fit_id)
        self._check_extractor(model)
        return model

    def _check_extractor(self, model: Model) -> None:
        if model.extractor != self._extractor:
            raise ProposalError(
                f"fit {model.fit_id} was made of {model.extractor}, but the "
                f"configuration now gives {self._extractor}; {_ANEW}"
            )

    def _take_effect(
        self, model: Model, following: FilesToFollow, decided: Decided, on_moved: OnMoved | None
    ) -> Decided:
        self._in_force.switch(model)
        report = self._adoption.follow(following, on_moved)
        decided.moved = report.sorted + report.duplicates + report.review
        decided.batch, decided.left = report.batch or None, list(report.errors)
        if report.batch:
            decided.following = self._store.records.count_following(report.batch)
        return decided


def reject(store: Store, fit_id: int | None) -> Decided:
    """Let a proposal go: it is not made again before the triggers say so anew.

    Raises
    ------
    ProposalError
        It is no proposal that waits.
    """
    kept = find_proposal(store.records, fit_id)
    if kept.state is not FitState.PROPOSED:
        raise ProposalError(f"fit {kept.fit_id} is {_state(kept)}; only a proposal can be rejected")
    with store.atomic():
        images = store.records.count_features()
        store.records.decide(kept.fit_id, FitState.REJECTED, images)
    return Decided("rejected", kept.fit_id, store.records.current_id(), n_images=kept.n_images)


def moved_back(
    store: Store, now: Model, former: Model, rule: ReviewRule, ping: Callable[[], None]
) -> list[ToFollow]:
    """Return (file id, its cluster now, its former one) of files to move by a rollback.

    What the fit has moved goes to where it stood, review among it. What has arrived since,
    and stands in the folder of the cluster that is nearest now, goes to where the former fit
    would have put it. None is for review.
    """
    records = store.records
    back: dict[int, ToFollow] = {
        one.file_id: (one.file_id, one.new_id, one.old_id)
        for one in records.standing(now.fit_id, moved=True)
    }
    since = (
        change
        for change in model_changes(store, now, former, rule, ping)
        if change[0] not in back and records.stands_in(change[0], change[1])
    )
    return [*back.values(), *since]


def model_changes(
    store: Store, now: Model, to: Model, rule: ReviewRule, ping: Callable[[], None]
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
        ping()  # a million pictures take longer than systemd waits


def _check_all_have_followed(store: Store) -> None:
    if still := store.records.count_following():
        current = store.records.current_id()
        raise ProposalError(
            f"{still:,} files are still to follow fit {current}; ask again when they have "
            f"(`imgsortd status` says what holds them up)"
        )


def _state(kept: KeptFit) -> str:
    if kept.in_force:
        return "in force already"
    return f"{kept.state}: {kept.note}" if kept.note else f"{kept.state}"


def preview_rollback(config: Config, move: bool | None) -> dict[str, Any]:
    """Say what a rollback would do: how many pictures belong to another cluster, and move, then."""
    moves = moves_files(config, True, move)
    with open_for_reading(config.database) as store:
        now, former = rollback_pair(store)
        models = store.fits.model(now.fit_id), store.fits.model(former.fit_id)
        if models[0].extractor != models[1].extractor:
            raise ProposalError(
                f"fit {former.fit_id} was made of other features than fit {now.fit_id}, "
                f"so that it cannot route what is stored now"
            )
        rule = review_rule(config)
        changes = model_changes(store, *models, rule, lambda: None)
        return Decided(
            "would be rolled back",
            now.fit_id,
            former.fit_id,
            changed=sum(1 for _ in changes),
            n_images=store.records.count_features(),
            moved=len(moved_back(store, *models, rule, lambda: None)) if moves else 0,
            refit_batches=store.records.batches_of(now.fit_id),
            dry_run=True,
        ).as_dict()
