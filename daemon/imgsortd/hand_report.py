"""What came of a request that names files: how many were moved, and why others were left."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from imgsortd.adapters.placing import CHANGED
from imgsortd.adapters.store import Store
from imgsortd.core.records import Move, MovePhase
from imgsortd.errors import PlacingError
from imgsortd.returning import NOT_THERE, NOT_YET

MOST_FILES = 5_000
_HIGHEST_ID = 2**63 - 1
_ENDS = {MovePhase.GONE: NOT_THERE, MovePhase.CHANGED: CHANGED}


def check_ids(files: object) -> list[int]:
    """Return the rows that a request names, each once.

    Raises
    ------
    PlacingError
        It is no list of numbers, or one that is empty or too long.
    """
    if not isinstance(files, list) or not all(map(_is_id, files)):
        raise PlacingError(f"files must be a list of file numbers, got {_shown(files)}")
    if not 0 < len(files) <= MOST_FILES:
        raise PlacingError(f"files must name 1 to {MOST_FILES:,} files, got {len(files):,}")
    return list(dict.fromkeys(files))


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value <= _HIGHEST_ID


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


@dataclass(slots=True)
class HandReport:
    """What has become of the files so far.

    Attributes
    ----------
    done
        Pictures that were moved.
    left
        Files that stay where they are: ``id``, ``file`` and ``reason`` of each.
    """

    done: int = 0
    left: list[dict[str, Any]] = field(default_factory=list)

    def leave(self, file_id: int, place: bytes, reason: str) -> None:
        """Note a file that is left, and why."""
        self.left.append({"id": file_id, "file": os.fsdecode(place), "reason": reason})

    def count(self, store: Store, moves: Sequence[Move]) -> None:
        """Note what has become of planned moves, as their rows say."""
        for move in moves:
            phase, error = store.placings.outcome(move.move_id)
            if phase is MovePhase.DONE:
                self.done += 1
            else:
                not_yet = f"{NOT_YET} ({error})" if error else NOT_YET
                end = _ENDS.get(phase)
                self.leave(move.file_id, move.src, (error or end) if end else not_yet)
