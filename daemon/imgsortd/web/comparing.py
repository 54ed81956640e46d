"""A refit side by side: what each cluster is before it and after it. And the fits there were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_proposals import KeptFit
from imgsortd.adapters.store_web import WebRows
from imgsortd.config import Config
from imgsortd.core.flows import Change, ClusterChange, Flows, describe_flows
from imgsortd.core.records import FitState
from imgsortd.errors import ProposalError
from imgsortd.refit_changes import change_line
from imgsortd.web.names import ShownNames
from imgsortd.web.plain import key_of, plain

SAMPLE = 8
_SIDES = 12
_GROUPS = 200

Ints = npt.NDArray[np.int64]
_NONE = np.empty(0, dtype=np.int64)
_Id = TypeVar("_Id", int, int | None)


def history(_config: Config, store: Store | None) -> dict[str, Any]:
    """Return the proposal that waits and all fits, the newest first, as plain values for JSON.

    Parameters
    ----------
    store
        None where there is no database yet.
    """
    if store is None:
        return {"waiting": None, "history": []}
    waiting = store.proposals.waiting()
    back = WebRows(store.connection).rolls_back()
    return {
        "waiting": None if waiting is None else waiting.fit_id,
        "history": [_fit(fit, back) for fit in store.proposals.list_fits()],
    }


def compare(_config: Config, store: Store, fit_id: int) -> dict[str, Any]:
    """Return what a fit changes, before and after, as plain values for JSON.

    The numbers are of the fit. Samples are of files as they stand now; a fit that has been in
    force, or that another took the place of, has none.

    Raises
    ------
    ProposalError
        There is no such fit.
    """
    fit = store.proposals.fit(fit_id)
    if fit is None:
        raise ProposalError(f"there is no fit {fit_id}")
    flows = store.proposals.flows(fit_id)
    rows, names = WebRows(store.connection), ShownNames(store)
    moves = _moves(store, fit)
    pictures = (_Pictures if _is_open(fit) else _NoPictures)(rows, moves)
    sides_of = _Sides(flows, pictures, names)
    changes = [sides_of.of(change) for change in describe_flows(flows)]
    by_size = sorted(moves.items(), key=lambda move: -len(move[1]))
    groups = [
        {
            "old": names.folder(old),
            "new": names.folder(new),
            "from_review": old is None,
            "total": len(ids),
            "sample": spread(ids),
        }
        for (old, new), ids in by_size[:_GROUPS]
    ]
    sides = [side for change in changes for end in ("before", "after") for side in change[end]]
    _with_keys(rows, [*sides, *(side["review"] for side in sides), *groups])
    return {
        "fit": _fit(fit, rows.rolls_back()),
        "churn": fit.churn,
        "would_move": sum(len(ids) for ids in moves.values()),
        "changes": changes,
        "moves": groups,
    }


def spread(ids: Ints) -> list[int]:
    """Return at most eight of these, evenly spread, the first of all among them."""
    count = min(SAMPLE, len(ids))
    return [int(ids[len(ids) * number // count]) for number in range(count)]


def _fit(fit: KeptFit, back: int | None) -> dict[str, Any]:
    found: dict[str, Any] = plain(asdict(fit))
    return {**found, "can_roll_back": fit.fit_id == back}


def _is_open(fit: KeptFit) -> bool:
    return fit.state in (FitState.PROPOSED, FitState.REJECTED)


def _moves(store: Store, fit: KeptFit) -> dict[tuple[int | None, int], Ints]:
    """Return the files that a proposal would move, int64 [n], by old and new cluster."""
    if not _is_open(fit):
        return {}
    groups = groupby(store.proposals.standing(fit.fit_id), lambda file: (file.old_id, file.new_id))
    return {key: np.array([file.file_id for file in group]) for key, group in groups}


class _Pictures:
    """Finds the pictures that a cluster has before and after a fit; none of one that is past."""

    def __init__(self, rows: WebRows, moves: Mapping[tuple[int | None, int], Ints]) -> None:
        self._rows, self._moves = rows, moves
        self._leaving: dict[int | None, list[Ints]] = defaultdict(list)
        self._coming: dict[int, list[Ints]] = defaultdict(list)
        self._from_review: dict[int, Ints] = {}
        for (old, new), ids in moves.items():
            self._leaving[old].append(ids)
            if old is None:
                self._from_review[new] = ids
            else:
                self._coming[new].append(ids)
        self._now: dict[int, Ints] = {}

    def before(self, cluster_id: int) -> Ints:
        """Return those that it has now."""
        if cluster_id not in self._now:
            ids = sorted(self._rows.member_ids(cluster_id))
            self._now[cluster_id] = np.array(ids, dtype=np.int64)
        return self._now[cluster_id]

    def going(self, old: int | None, new: int) -> Ints:
        """Return those that would go from one to the other; those that stay where both are one."""
        if old != new:
            return self._moves.get((old, new), _NONE)
        return np.setdiff1d(self.before(new), np.concatenate([_NONE, *self._leaving[old]]))

    def after(self, cluster_id: int) -> Ints:
        """Return those that it would have, but those from review: first those that stay."""
        return np.concatenate([self.going(cluster_id, cluster_id), *self._coming[cluster_id]])

    def from_review(self, cluster_id: int) -> Ints:
        """Return those that it would have from review."""
        return self._from_review.get(cluster_id, _NONE)


class _NoPictures(_Pictures):
    """Of a fit that is past, nobody knows which pictures it was about."""

    def before(self, cluster_id: int) -> Ints:
        return _NONE


class _Sides:
    """Tells each change side by side."""

    def __init__(self, flows: Flows, pictures: _Pictures, names: ShownNames) -> None:
        self._pictures, self._names = pictures, names
        self._sources: dict[int, list[tuple[int | None, int]]] = defaultdict(list)
        self._ends: dict[int | None, list[tuple[int, int]]] = defaultdict(list)
        for (old, new), files in flows.items():
            self._sources[new].append((old, files))
            self._ends[old].append((new, files))

    def of(self, change: ClusterChange) -> dict[str, Any]:
        """Describe a change as plain values; the samples are ids yet."""
        own, pictures = change.cluster_id, self._pictures
        before = [self._side(own, change.before, pictures.before(own))]
        after = [self._side(own, change.after, pictures.after(own), change.from_review)]
        if change.change is Change.APPEARS:
            before = self._from(own, self._sources[own])
        elif change.change is Change.MERGES:
            review = [(None, change.from_review)] if change.from_review else []
            before = self._from(own, [*change.parts, *review])
        elif change.change is Change.VANISHES:
            after = self._to(own, _largest(self._ends[own]))
        elif change.change is Change.SPLITS:
            after = self._to(own, change.parts)
        return {
            "kind": str(change.change),
            "line": change_line(change, self._names.folder),
            "before": before,
            "after": after,
        }

    def _from(self, own: int, parts: Iterable[tuple[int | None, int]]) -> list[dict[str, Any]]:
        """Return a side for each of the largest sources, and for review; one for all others."""
        shown = sorted(parts, key=lambda part: (part[0] is not None, -part[1]))
        others = shown[_SIDES:]
        shown = sorted(shown[:_SIDES], key=lambda part: -part[1])
        sides = [self._side(old, files, self._pictures.going(old, own)) for old, files in shown]
        if others:
            ids = np.concatenate([self._pictures.going(old, own) for old, _ in others])
            side = self._side(None, sum(files for _, files in others), ids)
            sides.append({**side, "folder": f"{len(others)} other folders", "is_others": True})
        return sides

    def _to(self, own: int, parts: Iterable[tuple[int, int]]) -> list[dict[str, Any]]:
        return [self._side(new, files, self._pictures.going(own, new)) for new, files in parts]

    def _side(
        self, cluster_id: int | None, files: int, ids: Ints, from_review: int = 0
    ) -> dict[str, Any]:
        """Describe a cluster, or review where it is None.

        ``review`` are those of its files that come from there: ``sample`` is of the others.
        """
        coming = _NONE if cluster_id is None else self._pictures.from_review(cluster_id)
        return {
            **self._names.place(cluster_id),
            "files": files,
            "sample": spread(ids),
            "is_others": False,
            "review": {"files": from_review, "sample": spread(coming if from_review else _NONE)},
        }


def _largest(parts: Iterable[tuple[_Id, int]]) -> list[tuple[_Id, int]]:
    return sorted(parts, key=lambda part: -part[1])[:_SIDES]


def _with_keys(rows: WebRows, sides: Sequence[dict[str, Any]]) -> None:
    """Put beside each picture of the samples what its address has, all by a few queries."""
    hashes = rows.hashes(sorted({number for side in sides for number in side["sample"]}))
    for side in sides:
        side["sample"] = [[number, key_of(hashes.get(number))] for number in side["sample"]]
