"""What a refit that waits for a person's word would change, as its sheet shows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.adapters.store_sheets import SheetRows
from imgsortd.core.routing import REVIEW_FOLDER

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


def read_move_groups(store: Store, fit_id: int) -> tuple[MoveGroup, ...]:
    """Read which files a proposed fit would move, grouped by where from and where to.

    Raises
    ------
    StoreError
        The database cannot be read.
    """
    with foreign_errors(store.path):
        rows = SheetRows(store.connection)
        moves = rows.proposed_moves(fit_id)
        ids = {number for old, new, _ in moves for number in (old, new) if number is not None}
        folders = rows.folders(ids)
    return tuple(
        MoveGroup(
            os.fsdecode(REVIEW_FOLDER if old is None else folders[old]),
            os.fsdecode(folders[new]),
            tuple(names),
        )
        for old, new, names in moves
    )
