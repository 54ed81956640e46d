"""``imgsortd undo``."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any

import typer
from pydantic_core import PydanticCustomError
from typer import Option

from imgsortd.cli.shared import ConfigOption, JsonOption, spinning
from imgsortd.cli.terminal import DEFAULT_CONFIG, out, print_json
from imgsortd.config import load_config
from imgsortd.config.values import duration_s
from imgsortd.errors import UndoError
from imgsortd.words import printable

_NAMES_SHOWN = 5


def undo(
    config: ConfigOption = DEFAULT_CONFIG,
    last: Annotated[bool, Option("--last", help="The newest batch (the default).")] = False,
    batch: Annotated[
        int | None, Option(min=1, help="The batch of this number, see the log.")
    ] = None,
    since: Annotated[str | None, Option(help="All batches since so long ago: 30m, 1h, 2d.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what it would do.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Return files to where they came from; undone again by another undo."""
    from imgsortd.daemon.here import undo as take_back
    from imgsortd.moves.undo import UndoChoice

    if sum((last, batch is not None, since is not None)) > 1:
        raise typer.BadParameter("give one of --last, --batch and --since")
    settings = load_config(config)
    choice = UndoChoice(batch, None if since is None else _seconds(since))
    with spinning("undo") as tell:
        report = take_back(settings, choice, dry_run=dry_run, progress=tell)
    if as_json:
        print_json(report)
    else:
        _show(report)
    if not (report["returned"] or report["taken_back"] or report["placed"]):
        raise UndoError("nothing was undone" if not dry_run else "nothing would be undone")


def _seconds(text: str) -> float:
    try:
        seconds = duration_s(text)
    except PydanticCustomError:
        seconds = None
    if not isinstance(seconds, float) or seconds <= 0:
        raise typer.BadParameter(f"--since expects a duration such as 30m, 1h or 2d, got {text!r}")
    return seconds


def _show(report: dict[str, Any]) -> None:
    batches = ", ".join(str(number) for number in report["batches"])
    would = "would be undone" if report["dry_run"] else "undone"
    if not (report["returned"] or report["taken_back"] or report["placed"]):
        would = f"not {would}"
    out.print(f"batch {batches} {would}" if len(report["batches"]) == 1 else f"{would}: {batches}")
    for key, text in (
        ("returned", "back in the inbox, where they stay"),
        ("taken_back", "copies or links removed, their sources stand in the inbox"),
        ("placed", "brought to their folders in target"),
    ):
        if report[key]:
            out.print(f"  {report[key]:,} {text}")
    if report["fit_in_force"] is not None:
        would = "would be" if report["dry_run"] else "is"
        out.print(f"  fit {report['fit_in_force']} {would} in force again")
    reasons: dict[str, list[str]] = defaultdict(list)
    for file in report["left"]:
        reasons[file["reason"]].append(printable(file["file"]))
    for reason, files in reasons.items():
        more = f" and {len(files) - _NAMES_SHOWN:,} more" if len(files) > _NAMES_SHOWN else ""
        names = ", ".join(files[:_NAMES_SHOWN])
        out.print(f"  {len(files):,} left, {reason}: {names}{more}", markup=False)
    made = report["made"]
    if len(made) == 1:
        out.print(f"to undo this: imgsortd undo --batch {made[0]}")
    elif made:
        out.print(f"this made batches {', '.join(str(number) for number in made)}")
