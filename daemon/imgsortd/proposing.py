"""What the fits were, and what a proposal changes: read from the store alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_proposals import ChangedFile, KeptFit
from imgsortd.core.flows import ClusterChange, describe_flows
from imgsortd.core.records import FitState
from imgsortd.core.routing import REVIEW_FOLDER, cluster_folder


@dataclass(frozen=True, slots=True)
class ChangedGroup:
    """Files that a proposal moves from one folder to another one.

    Attributes
    ----------
    old_id, old_folder
        The cluster they are in; None and ``_review`` where they are in review.
    files
        Their names below target, as many as were asked for.
    total
        How many there are.
    """

    old_id: int | None
    new_id: int
    old_folder: bytes
    new_folder: bytes
    files: tuple[bytes, ...]
    total: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON; names as text with surrogates."""
        return {
            "old_id": self.old_id,
            "new_id": self.new_id,
            "old_folder": os.fsdecode(self.old_folder),
            "new_folder": os.fsdecode(self.new_folder),
            "files": [os.fsdecode(name) for name in self.files],
            "total": self.total,
        }


@dataclass(frozen=True, slots=True)
class Proposal:
    """A fit with what it changes.

    Attributes
    ----------
    changes
        What happens to each cluster that does not stay as it is.
    moves
        Files that would move, by folder; the largest groups first.
    """

    fit: KeptFit
    changes: list[ClusterChange]
    moves: list[ChangedGroup]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            **asdict(self.fit),
            "changes": [asdict(change) for change in self.changes],
            "would_move": sum(group.total for group in self.moves),
            "moves": [group.as_dict() for group in self.moves],
        }


def read_proposal(store: Store, fit: KeptFit, files: int) -> Proposal:
    """Put together what a fit changes, with up to so many file names in each group.

    Of one that has been in force, or that another took the place of, no file would move.
    """
    changes = describe_flows(store.proposals.flows(fit.fit_id))
    if fit.state not in (FitState.PROPOSED, FitState.REJECTED):
        return Proposal(fit, changes, [])
    return Proposal(fit, changes, changed_groups(store, fit.fit_id, files))


def changed_groups(store: Store, fit_id: int, files: int) -> list[ChangedGroup]:
    """Return the files that a proposal would move, grouped by old and new folder.

    This is what a sheet of thumbnails is made from.

    Parameters
    ----------
    files
        Names in each group at most; ``total`` counts them all.
    """
    names = store.records.named_folders()

    def folder(cluster_id: int | None) -> bytes:
        if cluster_id is None:
            return REVIEW_FOLDER
        return names.get(cluster_id) or cluster_folder(cluster_id)

    groups = [
        ChangedGroup(old_id, new_id, folder(old_id), folder(new_id), *_taken(group, files))
        for (old_id, new_id), group in groupby(
            store.proposals.standing(fit_id), lambda file: (file.old_id, file.new_id)
        )
    ]
    return sorted(groups, key=lambda group: (-group.total, group.new_id, group.old_folder))


def _taken(group: Iterator[ChangedFile], files: int) -> tuple[tuple[bytes, ...], int]:
    first = tuple(file.dst for file in islice(group, files))
    return first, len(first) + sum(1 for _ in group)
