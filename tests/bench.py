"""One journalled move at a time, on a real store and real folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgsortd.moves.mover import Mover
from imgsortd.moves.roots import MARKER
from imgsortd.records import Candidate, FileState, Move, MoveResult, Op, Root, Route
from imgsortd.store.database import CommittedJournal, open_for_writing
from imgsortd.system import filesystem
from support import make_config, roots_of


class Bench:
    """Plans and applies moves as the pipeline does. Close it at the end."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.config = make_config(folder, **changes)
        self.inbox, self.target = self.config.inbox, self.config.target
        self.store = open_for_writing(self.config.database)
        self.roots = roots_of(self.config, self.store)
        self.mover = Mover(self.inbox, self.target, CommittedJournal(self.store), self.roots)

    def close(self) -> None:
        self.store.close()

    def put(self, name: str, data: bytes = b"picture") -> Path:
        """Write a file into the inbox, last changed in 2001."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(1_000_000_000_000_000_001, 1_000_000_000_123_456_789))
        return path

    def plan(self, name: str, dst: str, op: Op = Op.MOVE) -> Move:
        """Plan to bring a file of the inbox to ``dst`` under target."""
        with open(self.inbox / name, "rb") as file:
            stamp = filesystem.stamp_of(os.fstat(file.fileno()))
            sha256 = filesystem.sha256_of(file.fileno())
        with self.store.atomic():
            (arrival,) = self.store.files.arrive([(os.fsencode(name), stamp)])
            candidate = Candidate(arrival.candidate.file_id, os.fsencode(name), stamp)
            self.store.files.set_read(candidate, sha256)
            route = Route(candidate.file_id, FileState.SORTED, b"cluster_0", 0, 0.5)
            planned = Move(
                0,
                candidate.file_id,
                op,
                Root.INBOX,
                candidate.name,
                stamp,
                sha256,
                dst.encode(),
            )
            return self.store.journal.plan(planned, route, batch=1)

    def apply(self, *moves: Move, again: bool = False) -> list[MoveResult]:
        """Carry out moves and close them."""
        results = self.mover.apply(moves, again=again)
        with self.store.atomic():
            self.store.journal.close(results)
        return results

    def recover(self) -> list[MoveResult]:
        """Apply what is unfinished again, as after a crash."""
        return self.apply(*self.store.journal.unfinished(), again=True)

    def names(self) -> tuple[list[str], list[str]]:
        """Return the files of the inbox and of target, hidden ones too, but for the marker."""
        return self._below(self.inbox), self._below(self.target)

    @staticmethod
    def _below(root: Path) -> list[str]:
        paths = (path for path in root.rglob("*") if not path.is_dir() and path.name != MARKER)
        return sorted(str(path.relative_to(root)) for path in paths)


def at(label: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Return a fault point that does something, once, instead of dying."""
    left = [act]

    def fault_point(passed: str) -> None:
        if passed == label and left:
            left.pop()()

    return fault_point
