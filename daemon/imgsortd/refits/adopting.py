"""A fit comes into force, or waits as a proposal; in force, files may follow it.

The switch and the plans of all moves are one transaction: a crash leaves either nothing, or
planned moves that the next start makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from imgsortd.clusters.fit import Fitted, Ids
from imgsortd.clusters.ids import HAND_WEIGHT, churn, match_ids
from imgsortd.clusters.in_force import InForce
from imgsortd.clusters.partial import About, PartialFit
from imgsortd.config.model import Config
from imgsortd.moves.making import Moves
from imgsortd.records import (
    IN_REVIEW,
    KEPT,
    NOWHERE,
    BatchReport,
    DuplicatePolicy,
    ExtractorId,
    FitState,
    FitTrigger,
    Model,
    Move,
    Op,
)
from imgsortd.refits.facts import maturity_now
from imgsortd.store.database import Store
from imgsortd.store.fits import ChangedFile, FitRecord
from imgsortd.system.faults import fault_point

OnMoved = Callable[[str, BatchReport], None]
"""Told (event, report) of files that followed a fit."""
FileChange = tuple[int, int | None, int]
"""File id, the cluster in whose folder it stands, None for review, and its new one."""
ToFollow = tuple[int, int | None, int | None]
"""The same, where the new one may be review, too."""
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
class FilesToFollow:
    """Moves of files that follow a fit: planned, and all of one batch."""

    moves: list[Move]
    batch: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a fit; ``following`` are the moves that are planned with it, if any."""

    summary: FitSummary
    following: FilesToFollow | None = None

    def moved(self, report: BatchReport) -> FitSummary:
        """Return the summary with what the moves came to."""
        files = report.sorted + report.duplicates
        return replace(self.summary, moved=files, batch=report.batch if files else None)


class Adoption:
    """Puts fits in force, or keeps them as proposals, and lets files follow."""

    def __init__(
        self, config: Config, store: Store, extractor: ExtractorId, in_force: InForce, moves: Moves
    ) -> None:
        self.config, self._store, self._extractor = config, store, extractor
        self._in_force, self._moves = in_force, moves

    def adopt(self, fitted: Fitted, trigger: FitTrigger, *, dry_run: bool = False) -> FitSummary:
        """Match a fit's clusters to the folders, and switch to it in one transaction."""
        matched = match_fit(self._store, self._in_force, fitted)
        if dry_run:
            return self._summary(matched, trigger, None, None)
        return self._adopt(matched, trigger, moves=False).summary

    def settle(
        self,
        fitted: Fitted,
        trigger: FitTrigger,
        *,
        basis: Model | None,
        accept: bool = False,
        keep_files: bool = False,
        dry_run: bool = False,
    ) -> Settled:
        """Put a fit in force, or keep it as a proposal where it changes too much.

        The files that follow it are planned then, and not moved (:meth:`follow`).

        Parameters
        ----------
        basis
            The model that was in force when the fit began: ``fitted.old_labels`` are its labels.
        accept
            Whether a person has said that it is to be in force, whatever it changes.
        keep_files
            Whether files stay where they stand, whatever the configuration says.
        """
        matched = match_fit(self._store, self._in_force, fitted, basis)
        if dry_run:
            return Settled(self._summary(matched, trigger, None, None))
        limit = self.config.refit.max_churn
        maturity = maturity_now(self._store, limit)
        is_young = maturity is not None and maturity.is_young
        changes_much = limit is not None and (matched.churn or 0.0) > limit
        asks = self._in_force.model is not None and changes_much
        if asks and not accept and (trigger is FitTrigger.REQUEST or not is_young):
            return Settled(self._propose(matched, trigger, None))
        is_new = fitted.fit.algorithm != KEPT and trigger not in _NO_NEW_VIEW
        moves = not keep_files and moves_files(self.config, accept or is_new)
        return self._adopt(matched, trigger, moves=moves)

    def propose(self, change: PartialFit, trigger: FitTrigger) -> FitSummary:
        """Keep a change of a few clusters as a proposal."""
        matched = match_fit(self._store, self._in_force, change.fitted, change.basis, change.about)
        return self._propose(matched, trigger, change.about)

    def _adopt(self, matched: Matched, trigger: FitTrigger, *, moves: bool) -> Settled:
        store = self._store
        with store.atomic():
            model = self._keep(matched, trigger, None, FitState.ADOPTED)
            store.records.put_in_force(model.fit_id)
            following = None
            if moves and (self._in_force.model or self._in_force.former) is not None:
                store.records.add_changes(model.fit_id, self._pinging(matched.changes()))
                changes = store.records.standing(model.fit_id)
                # To other features there is no way back.
                following = self.plan_following(model, to_follow(changes), self._in_force.fit_id)
        self._in_force.switch(model)
        summary = self._summary(matched, trigger, model.fit_id, FitState.ADOPTED)
        return Settled(summary, following)

    def _keep(
        self, matched: Matched, trigger: FitTrigger, about: About | None, state: FitState
    ) -> Model:
        store, fit, distances = self._store, matched.fitted.fit, matched.fitted.distances
        record = FitRecord(
            trigger,
            fit.algorithm,
            len(fit.labels),
            self.config.clusters.random_state,
            fit.inertia,
            matched.churn,
            fit.fit_s,
            distances=None if distances is None else distances.astype("<f4").tobytes(),
            about_id=about.cluster_id if about else None,
            about_images=about.images if about else None,
        )
        sizes = list(matched.sizes().values())
        model = store.fits.keep(self._extractor, fit.centers, matched.ids, sizes, record, state)
        # Where doubles are not kept, they will not stay in the library.
        if self.config.duplicates is not DuplicatePolicy.KEEP:
            images = len(matched.fitted.file_ids) - store.files.count_twins()
            store.records.decide(model.fit_id, state, images)
        store.records.add_flows(model.fit_id, matched.flows())
        return model

    def plan_following(
        self, model: Model, changes: Iterable[ToFollow], former_id: int | None
    ) -> FilesToFollow:
        """Plan moves of files to the folders of their clusters; call in the switch's transaction.

        Parameters
        ----------
        changes
            What is gone, pinned or on its way is left out.
        former_id
            The fit in force before; kept with the moves, if there are any. A batch without a move
            has no number of its own: the next one gets it.
        """
        planner = self._moves.planner(model.fit_id)
        moves = []
        for file_id, old_id, new_id in list(changes):
            if self._store.journal.is_moving(file_id):
                continue  # on its way to where it was sent before
            move = planner.follow(file_id, old_id, new_id)
            moves += [] if move is None else [move]
            self._moves.mover.after_each()  # many plans take as long as many moves
        if moves and former_id is not None:
            self._store.records.note_switch(planner.numbered(), model.fit_id, former_id)
        return FilesToFollow(moves, planner.batch)

    def follow(
        self, following: FilesToFollow | None, on_moved: OnMoved | None = None
    ) -> BatchReport:
        """Make the moves that were planned with a switch."""
        if following is None or not following.moves:
            return BatchReport()
        made = self._moves.make(following.moves)
        report = BatchReport(batch=following.batch, images=len(following.moves)) + made
        if on_moved is not None:
            on_moved("sorted moved", report)
        return report

    def _propose(self, matched: Matched, trigger: FitTrigger, about: About | None) -> FitSummary:
        store = self._store
        with store.atomic():
            model = self._keep(matched, trigger, about, FitState.PROPOSED)
            store.records.replace_waiting(model.fit_id)
            if self.config.op is not Op.SYMLINK:  # links are never moved again
                store.records.add_changes(model.fit_id, self._pinging(matched.changes()))
        fault_point("fit_proposed")
        return self._summary(matched, trigger, model.fit_id, FitState.PROPOSED)

    def _pinging(self, changes: Iterator[FileChange]) -> Iterator[FileChange]:
        """Pass changes on; a million of them take as long as many moves."""
        for number, change in enumerate(changes):
            if number % _PING_EVERY == 0:
                self._moves.mover.after_each()
            yield change

    def _summary(
        self, matched: Matched, trigger: FitTrigger, fit_id: int | None, state: FitState | None
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
            sizes=matched.sizes(),
            fit_s=fit.fit_s,
            dry_run=state is None,
            state=state,
            max_churn=self.config.refit.max_churn,
        )


@dataclass(frozen=True, slots=True)
class Matched:
    """A fit whose labels have ids.

    Attributes
    ----------
    ids
        Cluster id of each label.
    old_ids
        The clusters that there were.
    begins
        int64 [n], the cluster in whose folder each file stands, or will by the fit before where
        it waits in the inbox; IN_REVIEW, NOWHERE or BY_HAND for others.
    ends
        int64 [n], the same by this fit: ``begins`` for those that stay.
    churn
        Share (0 to 1) of the pictures in clusters' folders and in review that change: they
        lie nearest to another cluster by this fit than by the one before, or it takes them
        out of review. None for the first one.
    """

    fitted: Fitted
    ids: tuple[int, ...]
    old_ids: tuple[int, ...]
    begins: Ids
    ends: Ids
    churn: float | None

    def changes(self) -> Iterator[FileChange]:
        """Yield the files to be moved."""
        begins, file_ids = self.begins, self.fitted.file_ids
        for row in np.flatnonzero(begins != self.ends).tolist():
            old = int(begins[row])
            yield int(file_ids[row]), None if old == IN_REVIEW else old, int(self.ends[row])

    def flows(self) -> dict[tuple[int | None, int], int]:
        """Count the pictures that go from each folder to each, or stay; old None for review."""
        placed = self.ends >= 0
        pairs = np.stack([self.begins[placed], self.ends[placed]], axis=1)
        pairs, counts = np.unique(pairs, axis=0, return_counts=True)
        return {
            (None if old == IN_REVIEW else old, new): number
            for (old, new), number in zip(pairs.tolist(), counts.tolist(), strict=True)
        }

    def sizes(self) -> dict[int, int]:
        """Count the pictures of each cluster, in the order of the labels."""
        sizes = np.bincount(self.fitted.fit.labels, minlength=len(self.ids))
        return dict(zip(self.ids, sizes.tolist(), strict=True))


def moves_files(config: Config, is_called_for: bool, asked: bool | None = None) -> bool:
    """Tell whether files follow a fit into force; links are never moved again.

    Parameters
    ----------
    is_called_for
        What it is by itself: a person's word, or clusters that are new.
    asked
        What a person has asked for; None for what ``refit.move_sorted`` says.
    """
    if config.op is Op.SYMLINK:
        return False
    wanted = config.refit.move_sorted if asked is None else asked
    return is_called_for if wanted == "auto" else wanted


def to_follow(changes: Iterable[ChangedFile]) -> Iterator[ToFollow]:
    """Yield where each file stands, and where it is to go."""
    return ((one.file_id, one.old_id, one.new_id) for one in changes)


def match_fit(
    store: Store,
    in_force: InForce,
    fitted: Fitted,
    basis: Model | None = None,
    about: About | None = None,
) -> Matched:
    """Give the labels of a fit their cluster ids, kept where they go on from old clusters.

    Parameters
    ----------
    basis
        The model that ``fitted.old_labels`` are of; None for the one in force.
    about
        What a change of a few clusters is about: it leaves pictures of all others where they
        stand.
    """
    before = basis or in_force.model
    former = in_force.former or before
    # After a change of backbone the old centers say nothing of the new features.
    nearest_before: Ids | None = None
    if in_force.former is None and before is not None:
        assert fitted.old_labels is not None, "the clusters in force are not those at its start"
        nearest_before = np.asarray(before.cluster_ids, dtype=np.int64)[fitted.old_labels]
    ids = _ids(store, fitted, nearest_before, about)
    after = np.asarray(ids, dtype=np.int64)[fitted.fit.labels]
    stands = begins = fitted.stands
    if nearest_before is not None:
        begins = np.where(stands == NOWHERE, nearest_before, stands)
    goes = begins >= 0
    if about is not None:
        assert nearest_before is not None
        goes &= nearest_before != after
    goes[fitted.taken] = True
    changed = None
    if former is not None:
        old = np.where(stands >= 0, stands if nearest_before is None else nearest_before, after)
        old[fitted.taken] = IN_REVIEW  # whatever is nearest, it goes to another folder
        changed = churn(old[stands >= IN_REVIEW], after[stands >= IN_REVIEW])
    old_ids = () if former is None else tuple(sorted(set(former.cluster_ids)))
    return Matched(fitted, ids, old_ids, begins, np.where(goes, after, begins), changed)


def _ids(
    store: Store, fitted: Fitted, nearest_before: Ids | None, about: About | None
) -> tuple[int, ...]:
    """Return the cluster id of each label, by what stands in the folders.

    What waits in the inbox, or was routed there since the fit in force, has a say only where no
    other has: it may be of another kind.
    """
    fixed = dict(fitted.fixed_ids)
    if about is not None:
        fixed |= {label: kept for label, kept in enumerate(about.kept_ids) if kept is not None}
    stands, labels = fitted.stands, fitted.fit.labels
    old = stands.copy()
    if nearest_before is not None:
        waits = stands < IN_REVIEW
        old[waits] = nearest_before[waits]
    rows = np.flatnonzero(old >= 0)
    by_hand = store.records.by_hand()
    weights = np.where(np.isin(old[rows], by_hand), HAND_WEIGHT, 1) * (len(rows) + 1)
    last_file = store.records.last_file()
    is_new = stands[rows] < 0
    if last_file is not None:
        is_new |= fitted.file_ids[rows] > last_file
    weights[is_new] = 1
    known, at = np.unique(old[rows], return_inverse=True)
    return match_ids(
        at.astype(np.intp),
        labels[rows],
        tuple(known.tolist()),
        len(fitted.fit.centers),
        store.fits.next_cluster_id(),
        fixed,
        weights,
    )
