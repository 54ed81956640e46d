"""Progress bars for commands that work in stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imgsortd.errors import ImgsortdError
from imgsortd.terminal import err

OnStage = Callable[[str, int, int], None]
"""Told (stage, done, of how many)."""


@contextmanager
def stage_bars(stopped: str, quiet: bool) -> Iterator[OnStage]:
    """Show a bar for each stage; at Ctrl-C raise an error that says ``stopped``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    bar = Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=err,
        transient=True,
        disable=quiet,
    )
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage)
        bar.update(tasks[stage], completed=done, total=total)

    try:
        with bar:
            yield show
    except KeyboardInterrupt:
        raise ImgsortdError(stopped) from None
