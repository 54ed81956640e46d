"""What a refit does to the clusters, told from the pictures that flow between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MAIN_SHARE = 0.2
"""A flow counts as a part of a split or merge from this share of the smaller side on."""

Flows = Mapping[tuple[int | None, int], int]
"""Pictures by (old cluster, new cluster); the old one is None where they were in review."""


class Change(StrEnum):
    """What becomes of a cluster, the most telling first."""

    APPEARS = "appears"
    VANISHES = "vanishes"
    SPLITS = "splits"
    MERGES = "merges"
    GROWS = "grows"
    SHRINKS = "shrinks"
    SWAPS = "swaps"  # as many pictures leave as come


@dataclass(frozen=True, slots=True)
class ClusterChange:
    """What happens to one cluster.

    Attributes
    ----------
    before, after
        Pictures in it before and after; 0 where it is not there.
    parts
        For a split: the pictures of each cluster that its own go to, itself included.
        For a merge: those of each cluster that its new ones come from. Largest first.
        Empty for all else.
    from_review
        Pictures of ``after`` that come out of review.
    """

    cluster_id: int
    change: Change
    before: int
    after: int
    parts: tuple[tuple[int, int], ...] = ()
    from_review: int = 0


def describe_flows(flows: Flows) -> list[ClusterChange]:
    """Tell what changes, in the order of :class:`Change`, then by number; all else stays.

    A cluster *splits* when at least a fifth of its pictures go to a cluster that is new,
    and *merges* when it takes in at least a fifth of the pictures of one that vanishes.
    A cluster without a picture before is new; one without a picture afterwards vanishes.
    """
    before: dict[int, int] = defaultdict(int)
    after: dict[int, int] = defaultdict(int)
    # Of a thousand clusters there may be a million flows: each is looked at a few times only.
    leaving: dict[int, dict[tuple[int | None, int], int]] = defaultdict(dict)
    coming: dict[int, dict[tuple[int | None, int], int]] = defaultdict(dict)
    for (old, new), pictures in flows.items():
        after[new] += pictures
        coming[new][old, new] = pictures
        if old is not None:
            before[old] += pictures
            leaving[old][old, new] = pictures
    changes: list[ClusterChange] = []
    for cluster_id in {*before, *after}:
        old_size, new_size = before.get(cluster_id, 0), after.get(cluster_id, 0)
        from_review = flows.get((None, cluster_id), 0)
        sizes = (cluster_id, old_size, new_size)
        changes.extend(_own_changes(*sizes, from_review, flows))
        for change, parts in (
            (Change.SPLITS, _split(cluster_id, leaving[cluster_id], before)),
            (Change.MERGES, _merge(cluster_id, coming[cluster_id], before, after)),
        ):
            if len(parts) > 1:
                changes.append(
                    ClusterChange(cluster_id, change, old_size, new_size, parts, from_review)
                )
    order = list(Change)
    return sorted(changes, key=lambda c: (order.index(c.change), c.cluster_id))


def _own_changes(
    cluster_id: int, before: int, after: int, from_review: int, flows: Flows
) -> list[ClusterChange]:
    if before == after:
        if before == flows.get((cluster_id, cluster_id), 0):
            return []
        change = Change.SWAPS
    elif not before:
        change = Change.APPEARS
    elif not after:
        change = Change.VANISHES
    else:
        change = Change.GROWS if after > before else Change.SHRINKS
    return [ClusterChange(cluster_id, change, before, after, from_review=from_review)]


def _split(cluster_id: int, flows: Flows, before: Mapping[int, int]) -> _Parts:
    size = before.get(cluster_id, 0)
    if not size:
        return ()
    parts = {
        new: pictures
        for (old, new), pictures in flows.items()
        if old == cluster_id
        and (new == cluster_id or (not before.get(new) and pictures >= MAIN_SHARE * size))
    }
    return _largest_first(parts)


def _merge(
    cluster_id: int, flows: Flows, before: Mapping[int, int], after: Mapping[int, int]
) -> _Parts:
    parts = {
        old: pictures
        for (old, new), pictures in flows.items()
        if new == cluster_id
        and old is not None
        and (old == cluster_id or (not after.get(old) and pictures >= MAIN_SHARE * before[old]))
    }
    return _largest_first(parts)


_Parts = tuple[tuple[int, int], ...]


def _largest_first(parts: Mapping[int, int]) -> _Parts:
    return tuple(sorted(parts.items(), key=lambda part: (-part[1], part[0])))
