"""What ``imgsortd undo`` is asked for, and what it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class UndoChoice:
    """What is to be undone: one batch, all since some seconds ago, or else the last one."""

    batch: int | None = None
    since_s: float | None = None


@dataclass(slots=True)
class UndoReport:
    """What came of it, or would come.

    Attributes
    ----------
    batches
        The batches that were undone, newest first.
    made
        The batches of this undo, by which it can be undone.
    returned, taken_back, placed
        Files moved back into the inbox; copies and links removed whose source stands
        there; files brought (back) into a folder of target.
    left
        Files that were left as they are, with the reason.
    fit_in_force
        The fit that is in force again, where the files had followed another one; None
        where the fit is as it was.
    """

    dry_run: bool
    batches: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    returned: int = 0
    taken_back: int = 0
    placed: int = 0
    left: list[dict[str, str]] = field(default_factory=list)
    fit_in_force: int | None = None

    @property
    def undone(self) -> int:
        """Files that were undone."""
        return self.returned + self.taken_back + self.placed

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)
