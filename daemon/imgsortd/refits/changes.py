"""What the fits were, and what one changes: clusters, and the files that would move."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby, islice

from imgsortd.config.model import Config
from imgsortd.errors import ProposalError
from imgsortd.names import REVIEW_FOLDER, folder_of
from imgsortd.records import FitState
from imgsortd.refits.due import describe_age
from imgsortd.refits.facts import maturity_now
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.fits import FitRecords, KeptFit
from imgsortd.words import counted

Flows = Mapping[tuple[int | None, int], int]
"""Pictures by (old cluster, new cluster); the old one is None where they were in review."""
SHOWN_OF_A_GROUP = 12

_MAIN_SHARE = 0.2
"""A flow counts as a part of a split or merge from this share of the smaller side on."""
_GROUPS = 200
_Parts = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ChangedGroup:
    """Files that a proposal moves from one folder to another one.

    Attributes
    ----------
    old_id, old_folder
        The cluster they are in; None and ``_review`` where they are in review.
    files
        Their names below target, as many as were asked for of ``total``.
    """

    old_id: int | None
    new_id: int
    old_folder: bytes
    new_folder: bytes
    files: tuple[bytes, ...]
    total: int

    def sample(self) -> tuple[bytes, ...]:
        """Return the names to show: spread evenly over the group, its first among them."""
        count = min(SHOWN_OF_A_GROUP, len(self.files))
        return tuple(self.files[len(self.files) * number // count] for number in range(count))


@dataclass(frozen=True, slots=True)
class Proposal(KeptFit):
    """A fit with what it changes.

    Attributes
    ----------
    changes
        What happens to each cluster that does not stay as it is.
    would_move
        Files that would.
    moves
        The same by folder; the largest groups first.
    """

    changes: list[ClusterChange]
    would_move: int
    moves: list[ChangedGroup]


def read_proposal(store: Store, fit: KeptFit, files: int) -> Proposal:
    """Put together what a fit changes, with up to so many file names in each group.

    Of one that has been in force, or that another took the place of, no file would move.
    """
    changes = describe_flows(store.records.flows(fit.fit_id))
    may_move = fit.state in (FitState.PROPOSED, FitState.REJECTED)
    moves = changed_groups(store, fit.fit_id, files) if may_move else []
    return Proposal(
        **asdict(fit), changes=changes, would_move=sum(group.total for group in moves), moves=moves
    )


def changed_groups(store: Store, fit_id: int, files: int) -> list[ChangedGroup]:
    """Return the files that a proposal would move, with up to so many names in each group."""
    names = store.records.named_folders()

    def folder(cluster_id: int | None) -> bytes:
        if cluster_id is None:
            return REVIEW_FOLDER
        return folder_of(cluster_id, names)

    groups = []
    standing = store.records.standing(fit_id)
    for (old_id, new_id), group in groupby(standing, lambda file: (file.old_id, file.new_id)):
        first = tuple(file.dst for file in islice(group, files))
        total = len(first) + sum(1 for _ in group)
        groups.append(ChangedGroup(old_id, new_id, folder(old_id), folder(new_id), first, total))
    return sorted(groups, key=lambda group: (-group.total, group.new_id, group.old_folder))


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
    parts: _Parts = ()
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
    leaving: dict[int, dict[int, int]] = defaultdict(dict)
    coming: dict[int, dict[int, int]] = defaultdict(dict)
    for (old, new), pictures in flows.items():
        after[new] += pictures
        if old is not None:
            before[old] += pictures
            leaving[old][new] = coming[new][old] = pictures
    changes: list[ClusterChange] = []
    for number in {*before, *after}:
        old_size, new_size = before.get(number, 0), after.get(number, 0)
        from_review = flows.get((None, number), 0)
        change = _change_of(old_size, new_size, flows.get((number, number), 0))
        if change is not None:
            changes.append(ClusterChange(number, change, old_size, new_size, (), from_review))
        splits = {
            new: pictures
            for new, pictures in leaving[number].items()
            if new == number or (not before.get(new) and pictures >= _MAIN_SHARE * old_size)
        }
        merges = {
            old: pictures
            for old, pictures in coming[number].items()
            if old == number or (not after.get(old) and pictures >= _MAIN_SHARE * before[old])
        }
        for change, parts in ((Change.SPLITS, splits), (Change.MERGES, merges)):
            if len(parts) > 1:
                ordered = tuple(sorted(parts.items(), key=lambda part: (-part[1], part[0])))
                changes.append(
                    ClusterChange(number, change, old_size, new_size, ordered, from_review)
                )
    order = list(Change)
    return sorted(changes, key=lambda c: (order.index(c.change), c.cluster_id))


def _change_of(before: int, after: int, stay: int) -> Change | None:
    if before == after:
        return None if before == stay else Change.SWAPS
    if not before:
        return Change.APPEARS
    if not after:
        return Change.VANISHES
    return Change.GROWS if after > before else Change.SHRINKS


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
    groups: Sequence[ChangedGroup]

    @property
    def n_files(self) -> int:
        """Files that would move."""
        return sum(group.total for group in self.groups)

    def by_size(self) -> Sequence[ChangedGroup]:
        """Return the groups, the largest first; of very many, the first 200."""
        return sorted(self.groups, key=lambda group: -group.total)[:_GROUPS]


def change_line(
    change: ClusterChange, name_of: Callable[[int], str] = lambda number: f"cluster_{number}"
) -> str:
    """Say in a line what happens to a cluster, by the name that its number is given."""
    name, before, after = name_of(change.cluster_id), change.before, change.after
    parts = ", ".join(f"{name_of(number)} ({size:,})" for number, size in change.parts)
    review = ""
    if change.from_review and change.from_review < after:
        review = f", {change.from_review:,} of them from review"
    elif change.from_review:
        review = ", from review" if after == 1 else ", all of them from review"
    lines = {
        Change.APPEARS: f"{name} appears with {counted(after, 'picture')}{review}",
        Change.VANISHES: f"{name} vanishes, with {counted(before, 'picture')} before",
        Change.SPLITS: f"{name} splits into {parts}",
        Change.MERGES: f"{name} is merged from {parts}",
        Change.GROWS: f"{name} grows from {before:,} to {after:,}{review}",
        Change.SHRINKS: f"{name} shrinks from {before:,} to {after:,}",
        Change.SWAPS: f"{name} keeps {counted(after, 'picture')}, not all the same",
    }
    return lines[change.change]


def list_fits(config: Config) -> list[KeptFit]:
    """Return the fits, the newest first."""
    with open_for_reading(config.database) as store:
        return store.records.list_fits()


def told_age(config: Config) -> str:
    """Say in a sentence whether the library is young or grown; empty before the first fit."""
    with open_for_reading(config.database) as store:
        maturity = maturity_now(store, config.refit.max_churn)
    return "" if maturity is None else describe_age(maturity, config.refit.max_churn)


def names_of(config: Config) -> Callable[[int], str]:
    """Return what tells the folder of a cluster by its number."""
    with open_for_reading(config.database) as store:
        named = store.records.named_folders()
    return lambda number: os.fsdecode(folder_of(number, named))


def show_fit(config: Config, fit_id: int | None, files: int) -> Proposal:
    """Return what a fit, or the proposal that waits, changes.

    Raises
    ------
    ProposalError
        There is none.
    """
    with open_for_reading(config.database) as store:
        return read_proposal(store, find_proposal(store.records, fit_id), files)


def move_groups(config: Config, fit_id: int) -> list[ChangedGroup]:
    """Return all the files that a fit would move, by where from and where to."""
    return show_fit(config, fit_id, sys.maxsize).moves


def find_proposal(records: FitRecords, fit_id: int | None) -> KeptFit:
    """Return the fit of a number, or the proposal that waits.

    Raises
    ------
    ProposalError
        There is none.
    """
    if fit_id is None:
        waiting = records.waiting()
        if waiting is None:
            raise ProposalError("no proposal waits; `imgsortd refits` lists the fits there were")
        return waiting
    kept = records.fit(fit_id)
    if kept is None:
        raise ProposalError(f"there is no fit {fit_id}; `imgsortd refits` lists those there are")
    return kept


def rollback_pair(store: Store) -> tuple[KeptFit, KeptFit]:
    """Return the fit in force and its former one.

    Raises
    ------
    ProposalError
        There is none to return to.
    """
    current = store.records.current_id()
    now = None if current is None else store.records.fit(current)
    if now is None:
        raise ProposalError("there is no fit yet, so none to return to")
    former = None if now.former_id is None else store.records.fit(now.former_id)
    if former is None:
        raise ProposalError(f"fit {now.fit_id} is the first one: there is none to return to")
    return now, former
