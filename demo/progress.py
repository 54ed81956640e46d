"""Watch the daemon through its store, as ``imgsortd status`` does, and show how far it is."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon_process import check_alive, run_command
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from workspace import Workspace

from imgsortd.adapters.store import open_read_only
from imgsortd.config import Config
from imgsortd.errors import ImgsortdError
from imgsortd.status import read_status

_LOOK_EVERY_S = 0.25
_STALL_S = 300.0


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the store: files seen by VGG16 or refused, and files in their folders."""

    read: int
    placed: int
    fitted: bool


def look(config: Config) -> Look:
    """Read the counts."""
    report = read_status(config)
    counts = report.counts
    placed = sum(counts[state] for state in ("sorted", "review", "set_aside", "duplicates"))
    store = open_read_only(config.database)
    try:
        features = store.records.count_features()
    finally:
        store.close()
    read = max(placed, features + counts["set_aside"])
    return Look(read, placed, report.last_fit is not None)


class Monitor:
    """Two bars: pictures that VGG16 has seen, and pictures that are in their folder.

    Parameters
    ----------
    expected
        How many files go in.
    """

    def __init__(
        self,
        workspace: Workspace,
        config: Config,
        process: subprocess.Popen[bytes],
        expected: int,
        console: Console,
    ) -> None:
        self._workspace = workspace
        self._config = config
        self._process = process
        self._expected = expected
        self._started = self._changed = time.monotonic()
        self._next_look = 0.0
        self._last = Look(0, 0, fitted=False)
        self._fit_asked = False
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._read_bar, self._placed_bar = (
            self._progress.add_task(text, total=expected, speed="")
            for text in ("looked at by VGG16", "in their folder")
        )

    @contextmanager
    def bars(self) -> Iterator[None]:
        """Show the bars for as long as the block lasts."""
        with self._progress:
            self._started = self._changed = time.monotonic()
            yield

    def wait(self) -> float:
        """Wait until every file has found its place; return the seconds since the bars began.

        Raises
        ------
        ImgsortdError
            The daemon ended, or nothing moved for minutes; the text has the end of its log.
        """
        while self._last.placed < self._expected:
            self.update()
            time.sleep(_LOOK_EVERY_S / 5)
        return time.monotonic() - self._started

    def update(self) -> None:
        """Look and show, if the last look is long enough ago."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        check_alive(self._workspace, self._process)
        seen = look(self._config)
        if seen != self._last:
            self._changed = now
        self._last = seen
        self._show(seen, now - self._started)
        self._ask_for_fit(seen)
        self._check_stall(now)

    def _show(self, seen: Look, elapsed_s: float) -> None:
        speed = f"{seen.read / elapsed_s:.1f} images/s" if seen.read else ""
        self._progress.update(self._read_bar, completed=seen.read, speed=speed)
        self._progress.update(self._placed_bar, completed=seen.placed)

    def _ask_for_fit(self, seen: Look) -> None:
        """Ask for the first fit where unreadable files leave too few for it to come by itself."""
        if seen.read < self._expected or seen.fitted or self._fit_asked:
            return
        self._fit_asked = True
        store = open_read_only(self._config.database)
        try:
            missing = store.records.count_features() < self._config.clusters.min_images
        finally:
            store.close()
        if missing:
            run_command(self._workspace, "refit", shown=False)

    def _check_stall(self, now: float) -> None:
        if now - self._changed > _STALL_S:
            raise ImgsortdError(
                f"nothing moved for {_STALL_S:g} s: {self._last.read} of {self._expected} files "
                f"looked at, {self._last.placed} in their folder; the end of the daemon's log:\n"
                f"{self._workspace.log_tail()}"
            )
