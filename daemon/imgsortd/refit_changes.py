"""What a refit that waits for a person's word would change, as its sheet and its lines say it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imgsortd.core.flows import Change, ClusterChange
from imgsortd.proposing import ChangedGroup

SHOWN_OF_A_GROUP = 12
_GROUPS = 200


@dataclass(frozen=True, slots=True)
class MoveGroup:
    """Files that would move from one folder to another; names are relative to target."""

    old: str
    new: str
    names: tuple[bytes, ...]

    def sample(self) -> tuple[bytes, ...]:
        """Return the names to show: spread evenly over the group, its first among them."""
        count = min(SHOWN_OF_A_GROUP, len(self.names))
        return tuple(self.names[len(self.names) * number // count] for number in range(count))


@dataclass(frozen=True, slots=True)
class RefitChanges:
    """All that the sheet says.

    Attributes
    ----------
    title
        Such as ``Refit 12: what it would change``.
    lines
        Which clusters appear, vanish, split and merge; as plain text.
    """

    title: str
    lines: tuple[str, ...]
    groups: tuple[MoveGroup, ...]

    @property
    def n_files(self) -> int:
        """Files that would move."""
        return sum(len(group.names) for group in self.groups)

    def by_size(self) -> Sequence[MoveGroup]:
        """Return the groups, the largest first; of very many, the first 200."""
        return sorted(self.groups, key=lambda group: -len(group.names))[:_GROUPS]


def as_move_groups(groups: Sequence[ChangedGroup]) -> tuple[MoveGroup, ...]:
    """Return the groups of a proposal, with all their files, as a sheet shows them."""
    return tuple(
        MoveGroup(os.fsdecode(group.old_folder), os.fsdecode(group.new_folder), group.files)
        for group in groups
    )


def change_line(
    change: ClusterChange, name_of: Callable[[int], str] = lambda number: f"cluster_{number}"
) -> str:
    """Say in a line what happens to a cluster.

    Parameters
    ----------
    name_of
        Gives a cluster's number the name it is to be called by.
    """
    name, before, after = name_of(change.cluster_id), change.before, change.after
    parts = ", ".join(f"{name_of(number)} ({size:,})" for number, size in change.parts)
    review = _of_review(change)
    lines = {
        Change.APPEARS: f"{name} appears with {_pictures(after)}{review}",
        Change.VANISHES: f"{name} vanishes, with {_pictures(before)} before",
        Change.SPLITS: f"{name} splits into {parts}",
        Change.MERGES: f"{name} is merged from {parts}",
        Change.GROWS: f"{name} grows from {before:,} to {after:,}{review}",
        Change.SHRINKS: f"{name} shrinks from {before:,} to {after:,}",
        Change.SWAPS: f"{name} keeps {_pictures(after)}, not all the same",
    }
    return lines[change.change]


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _of_review(change: ClusterChange) -> str:
    """Say how many of a cluster's pictures come from review; empty where none does."""
    if not change.from_review:
        return ""
    if change.from_review < change.after:
        return f", {change.from_review:,} of them from review"
    return ", from review" if change.after == 1 else ", all of them from review"
