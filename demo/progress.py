"""Watch the daemon through its store, as ``imgsortd status`` does, and show how far it is."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon_process import check_alive, run_command
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from screen import out, say, shown
from workspace import Workspace

from imgsortd.config.model import Config
from imgsortd.errors import ImgsortdError
from imgsortd.reports.status import status_of
from imgsortd.store.database import open_for_reading

_LOOK_EVERY_S = 0.25
_STALL_S = 300.0
_EVERY = 1_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the store.

    Attributes
    ----------
    pictures
        Files that a fit would be made of.
    read
        Files that VGG16 has seen, and those that are refused or stuck.
    placed
        Files in their folders.
    stuck
        Files that could not be read as they stand, and stay in the inbox for now: half a
        picture might still be written on.
    next_fit
        When the next fit is, in the words of ``imgsortd status``.
    last_fit
        What the first one was made of; empty before.
    """

    pictures: int
    read: int
    placed: int
    stuck: int
    next_fit: str
    last_fit: str


def look(config: Config) -> Look:
    """Read the counts, all of one moment."""
    with open_for_reading(config.database, one_moment=True) as store:
        report = status_of(config, store)
        pictures = store.records.count_features()
        stuck = len(store.files.unread(_EVERY))
    counts, fit = report.counts, report.last_fit
    placed = sum(counts[state] for state in ("sorted", "review", "set_aside", "duplicates"))
    made = ""
    if fit is not None:
        made = f"{fit.n_images:,} pictures in {fit.n_clusters} clusters by {fit.algorithm}"
    read = max(placed, pictures + counts["set_aside"]) + stuck
    return Look(pictures, read, placed, stuck, report.next_fit, made)


class _Bars(Progress):
    """Bars with a line below them."""

    line = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is shown."""
        yield self.make_tasks_table(self.tasks)
        if self.line:
            yield Text(f"  {self.line}", style="dim", no_wrap=True, overflow="ellipsis")


class Monitor:
    """Two bars, and the words of ``imgsortd status`` on when the first fit is.

    The bars are of the pictures that VGG16 has seen, and of those that are in their folder.

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
    ) -> None:
        self._workspace = workspace
        self._config = config
        self._process = process
        self._expected = expected
        self._started = self._changed = time.monotonic()
        self._next_look = 0.0
        self._last = Look(0, 0, 0, 0, "", "")
        self._read_s = 0.0
        self._said: set[str | None] = set()
        self._fit_asked = False
        self._bars = _Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=out,
        )
        self._read_bar, self._placed_bar = (
            self._bars.add_task(text, total=expected, speed="")
            for text in ("looked at by VGG16", "in their folder")
        )

    @contextmanager
    def bars(self) -> Iterator[None]:
        """Show the bars for as long as the block lasts."""
        with self._bars:
            self._started = self._changed = time.monotonic()
            yield

    def wait(self) -> str:
        """Wait until every file has found its place; say how long it took.

        Those that are stuck are not waited for: the daemon gives them ten minutes.

        Raises
        ------
        ImgsortdError
            The daemon ended, or nothing moved for minutes; the text has the end of its log.
        """
        while not self._is_done:
            self.update()
            time.sleep(_LOOK_EVERY_S / 5)
        took_s = time.monotonic() - self._started
        return (
            f"looked at in {self._read_s:.0f} s, {self._speed}; "
            f"in their folder after {took_s:.0f} s"
        )

    @property
    def stuck(self) -> int:
        """How many files stay in the inbox for now."""
        return self._last.stuck

    @property
    def _is_done(self) -> bool:
        last = self._last
        waited_for = self._expected - (last.stuck if last.last_fit else 0)
        return last.placed >= waited_for

    @property
    def _speed(self) -> str:
        return f"{self._last.read / self._read_s:.1f} images/s" if self._read_s else ""

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
        if seen.read > self._last.read:
            self._read_s = now - self._started
        self._last = seen
        self._show(seen)
        self._tell(seen, now - self._started)
        self._ask_for_fit(seen)
        self._check_stall(now)

    def _show(self, seen: Look) -> None:
        self._bars.line = "" if seen.last_fit else f"no fit yet: {seen.next_fit}"
        self._bars.update(self._read_bar, completed=seen.read, speed=self._speed)
        self._bars.update(self._placed_bar, completed=seen.placed)

    def _tell(self, seen: Look, elapsed_s: float) -> None:
        """Leave a line above the bars where the first fit is waited for anew, or made."""
        at = f"{elapsed_s:.0f} s"
        if seen.last_fit:
            if None not in self._said:
                self._said.add(None)
                say(at, f"first fit: {seen.last_fit}")
            return
        what_for = re.sub(r"[\d,]+", "", seen.next_fit)
        if seen.read >= self._expected:
            what_for += " all"  # the last word on it, though it was said of the first few too
        if what_for not in self._said:
            self._said.add(what_for)
            say(at, seen.next_fit)

    def _ask_for_fit(self, seen: Look) -> None:
        """Ask for the first fit where unreadable files leave too few for it to come by itself."""
        if seen.read < self._expected or seen.last_fit or self._fit_asked:
            return
        if seen.pictures < self._config.clusters.min_images:
            self._fit_asked = True
            say("", f"no more can be read; imgsortd refit -c {shown(self._workspace.config_file)}")
            run_command(self._workspace, "refit", shown=False)

    def _check_stall(self, now: float) -> None:
        limit_s = _STALL_S + self._config.clusters.quiet_s
        if now - self._changed > limit_s:
            raise ImgsortdError(
                f"nothing moved for {limit_s:g} s: {self._last.read} of {self._expected} files "
                f"looked at, {self._last.placed} in their folder; the end of the daemon's log:\n"
                f"{self._workspace.log_tail()}"
            )
