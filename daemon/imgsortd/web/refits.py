"""A refit side by side: what each cluster is before it and after it. And the fits there were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from imgsortd.errors import ProposalError
from imgsortd.records import FitState
from imgsortd.refits.changes import Change, ClusterChange, Flows, change_line, describe_flows
from imgsortd.store.database import Store
from imgsortd.store.fits import KeptFit
from imgsortd.web.shown import ShownNames, Thumb, key_of

SAMPLE = 8
_SIDES = 12
_GROUPS = 200

Ints = npt.NDArray[np.int64]
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class ShownFit(KeptFit):
    """A fit, and whether the one before it can be returned to."""

    can_roll_back: bool


@dataclass(frozen=True, slots=True)
class FitHistory:
    """The proposal that waits, and all fits, the newest first."""

    waiting: int | None
    history: list[ShownFit]


@dataclass(frozen=True, slots=True)
class FromReview:
    """Pictures that come from review."""

    files: int
    sample: list[Thumb]


@dataclass(frozen=True, slots=True)
class Side:
    """A cluster before or after a fit; None is review, or several that have no room.

    ``review`` are those of its files that come from there: ``sample`` is of the others.
    """

    cluster: int | None
    folder: str
    files: int
    sample: list[Thumb]
    is_others: bool
    review: FromReview


@dataclass(frozen=True, slots=True)
class ShownChange:
    """What becomes of a cluster, in a line and side by side."""

    kind: str
    line: str
    before: list[Side]
    after: list[Side]


@dataclass(frozen=True, slots=True)
class MoveGroup:
    """The files that would move from one folder to another."""

    old: str
    new: str
    from_review: bool
    total: int
    sample: list[Thumb]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a fit changes; ``churn`` is the share (0 to 1) of pictures with another cluster."""

    fit: ShownFit
    churn: float | None
    would_move: int
    changes: list[ShownChange]
    moves: list[MoveGroup]


def history(store: Store | None) -> FitHistory:
    """Return the proposal that waits and all fits, where there is a database."""
    if store is None:
        return FitHistory(None, [])
    waiting = store.records.waiting()
    back = store.shown.rolls_back()
    fits = [_fit(fit, back) for fit in store.records.list_fits()]
    return FitHistory(None if waiting is None else waiting.fit_id, fits)


def compare(store: Store, fit_id: int) -> Comparison:
    """Return what a fit changes, before and after.

    The numbers are of the fit. Samples are of files as they stand now; a fit that has been in
    force, or that another took the place of, has none.

    Raises
    ------
    ProposalError
        There is no such fit.
    """
    fit = store.records.fit(fit_id)
    if fit is None:
        raise ProposalError(f"there is no fit {fit_id}")
    flows = store.records.flows(fit_id)
    pictures, names = _Pictures(store, fit), ShownNames(store)
    sides = _Sides(flows, pictures, names)
    changes = [sides.of(change) for change in describe_flows(flows)]
    by_size = sorted(pictures.moves.items(), key=lambda move: -len(move[1]))
    groups = [
        MoveGroup(names.folder(old), names.folder(new), old is None, len(ids), pictures.sample(ids))
        for (old, new), ids in by_size[:_GROUPS]
    ]
    pictures.fill()
    shown_fit = _fit(fit, store.shown.rolls_back())
    would_move = sum(len(ids) for ids in pictures.moves.values())
    return Comparison(shown_fit, fit.churn, would_move, changes, groups)


def spread(ids: Ints) -> list[int]:
    """Return at most eight of these, evenly spread, the first of all among them."""
    count = min(SAMPLE, len(ids))
    return [int(ids[len(ids) * number // count]) for number in range(count)]


def _fit(fit: KeptFit, back: int | None) -> ShownFit:
    return ShownFit(**asdict(fit), can_roll_back=fit.fit_id == back)


class _Pictures:
    """Finds the pictures that a cluster has before and after a fit, and takes samples of them.

    Of a fit that is past, nobody knows which pictures it was about.
    """

    def __init__(self, store: Store, fit: KeptFit) -> None:
        self._rows = store.shown
        self._is_open = fit.state in (FitState.PROPOSED, FitState.REJECTED)
        standing = store.records.standing(fit.fit_id) if self._is_open else []
        groups = groupby(standing, lambda file: (file.old_id, file.new_id))
        # Ids of the files that a proposal would move, int64 [n], by old and new cluster.
        self.moves = {key: np.array([file.file_id for file in group]) for key, group in groups}
        self._leaving: dict[int | None, list[Ints]] = defaultdict(list)
        self._coming: dict[int, list[Ints]] = defaultdict(list)
        for (old, new), ids in self.moves.items():
            self._leaving[old].append(ids)
            if old is not None:
                self._coming[new].append(ids)
        self._now: dict[int, Ints] = {}
        self._samples: list[tuple[list[Thumb], list[int]]] = []

    def before(self, cluster_id: int) -> Ints:
        """Return those that it has now."""
        if not self._is_open:
            return _NONE
        if cluster_id not in self._now:
            ids = sorted(self._rows.member_ids(cluster_id))
            self._now[cluster_id] = np.array(ids, dtype=np.int64)
        return self._now[cluster_id]

    def going(self, old: int | None, new: int) -> Ints:
        """Return those that would go from one to the other; those that stay where both are one."""
        if old != new:
            return self.moves.get((old, new), _NONE)
        return np.setdiff1d(self.before(new), np.concatenate([_NONE, *self._leaving[old]]))

    def after(self, cluster_id: int) -> Ints:
        """Return those that it would have, but those from review: first those that stay."""
        return np.concatenate([self.going(cluster_id, cluster_id), *self._coming[cluster_id]])

    def sample(self, ids: Ints) -> list[Thumb]:
        """Return a sample that is empty until :meth:`fill`."""
        sample: list[Thumb] = []
        self._samples.append((sample, spread(ids)))
        return sample

    def fill(self) -> None:
        """Fill all samples with the addresses of their pictures, by a few queries."""
        hashes = self._rows.hashes(sorted({one for _, ids in self._samples for one in ids}))
        for sample, ids in self._samples:
            sample.extend((number, key_of(hashes.get(number))) for number in ids)


class _Sides:
    """Tells each change side by side."""

    def __init__(self, flows: Flows, pictures: _Pictures, names: ShownNames) -> None:
        self._pictures, self._names = pictures, names
        self._sources: dict[int, list[tuple[int | None, int]]] = defaultdict(list)
        self._ends: dict[int | None, list[tuple[int, int]]] = defaultdict(list)
        for (old, new), files in flows.items():
            self._sources[new].append((old, files))
            self._ends[old].append((new, files))

    def of(self, change: ClusterChange) -> ShownChange:
        """Describe a change."""
        own, pictures = change.cluster_id, self._pictures
        before = [self._side(own, change.before, pictures.before(own))]
        after = [self._side(own, change.after, pictures.after(own), change.from_review)]
        ends: Iterable[tuple[int, int]] | None = None
        if change.change is Change.APPEARS:
            before = self._from(own, self._sources[own])
        elif change.change is Change.MERGES:
            review = [(None, change.from_review)] if change.from_review else []
            before = self._from(own, [*change.parts, *review])
        elif change.change is Change.VANISHES:
            ends = sorted(self._ends[own], key=_fewest_last)[:_SIDES]
        elif change.change is Change.SPLITS:
            ends = change.parts
        if ends is not None:
            after = [self._side(new, files, pictures.going(own, new)) for new, files in ends]
        line = change_line(change, self._names.folder)
        return ShownChange(str(change.change), line, before, after)

    def _from(self, own: int, parts: Iterable[tuple[int | None, int]]) -> list[Side]:
        """Return a side for each of the largest sources, and for review; one for all others."""
        ordered = sorted(parts, key=lambda part: (part[0] is not None, -part[1]))
        largest, others = sorted(ordered[:_SIDES], key=_fewest_last), ordered[_SIDES:]
        sides = [self._side(old, files, self._pictures.going(old, own)) for old, files in largest]
        if others:
            ids = np.concatenate([self._pictures.going(old, own) for old, _ in others])
            side = self._side(None, sum(files for _, files in others), ids)
            sides.append(replace(side, folder=f"{len(others)} other folders", is_others=True))
        return sides

    def _side(self, cluster_id: int | None, files: int, ids: Ints, from_review: int = 0) -> Side:
        """Describe a cluster, or review where it is None."""
        coming = _NONE
        if from_review and cluster_id is not None:
            coming = self._pictures.going(None, cluster_id)
        review = FromReview(from_review, self._pictures.sample(coming))
        sample = self._pictures.sample(ids)
        return Side(cluster_id, self._names.folder(cluster_id), files, sample, False, review)


def _fewest_last(part: tuple[int | None, int]) -> int:
    return -part[1]
