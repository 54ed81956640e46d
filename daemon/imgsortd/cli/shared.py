"""What several commands have: options, a spinner, bars of progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from typer import Option

from imgsortd.cli.terminal import err
from imgsortd.errors import ImgsortdError
from imgsortd.records import Progress, StageProgress
from imgsortd.words import printable

ConfigOption = Annotated[
    Path, Option("-c", "--config", help="The configuration file.", show_default=True)
]
AdoptOption = Annotated[
    bool,
    Option("--adopt", help="Take a target over that belongs to another library, as it stands."),
]
JsonOption = Annotated[bool, Option("--json", help="Print JSON instead of text.")]


@contextmanager
def spinning(what: str) -> Iterator[Progress]:
    """Show that something is under way, and what is told of it."""
    with err.status(what, spinner="dots") as spinner:
        yield lambda text: spinner.update(printable(text))


@contextmanager
def stage_bars(stopped: str, quiet: bool) -> Iterator[StageProgress]:
    """Show a bar for each stage; at Ctrl-C raise an error that says ``stopped``."""
    from rich import progress as rich

    name, count = rich.TextColumn("{task.description:<8}"), rich.MofNCompleteColumn()
    bar = rich.Progress(name, rich.BarColumn(), count, console=err, transient=True, disable=quiet)
    tasks: dict[str, rich.TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage)
        bar.update(tasks[stage], completed=done, total=total)

    try:
        with bar:
            yield show
    except KeyboardInterrupt:
        raise ImgsortdError(stopped) from None
