"""``imgsortd refits`` and ``imgsortd rollback``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from imgsortd.cli.shared import ConfigOption, JsonOption, spinning, stage_bars
from imgsortd.cli.terminal import DEFAULT_CONFIG, err, out, print_json
from imgsortd.config import load_config
from imgsortd.names import base_name
from imgsortd.words import printable

refits_app = typer.Typer(
    help="The fits of the clusters: those there were, and a proposal that waits.",
    rich_markup_mode=None,
)

_GROUPS_SHOWN = 20
_LEFT_SHOWN = 3
NumberArgument = Annotated[
    int | None,
    Argument(metavar="[N]", min=1, help="Number of the fit. Default: the one that waits."),
]
MoveOption = Annotated[
    bool | None,
    Option(
        "--move/--keep-files",
        help="Whether sorted files move where it shows them (undo returns them), or only what "
        "arrives and what is in review goes by it. Default: they move, but for "
        "refit.move_sorted: false.",
    ),
]


@refits_app.callback(invoke_without_command=True)
def refits(
    context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """List the fits, the newest first; the default of `imgsortd refits`."""
    if context.invoked_subcommand is None:
        list_(config, as_json)


@refits_app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the fits, the newest first."""
    from rich.table import Table

    from imgsortd.refits.changes import list_fits, told_age

    settings = load_config(config)
    fits = list_fits(settings)
    if as_json:
        print_json(fits)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("fit", "pictures", "clusters", "change"):
        table.add_column(title, justify="right")
    for title in ("when", "trigger", "state"):
        table.add_column(title)
    for fit in fits:
        state = "in force" if fit.in_force else f"{fit.state}" + (f", {fit.note}" * bool(fit.note))
        numbers = (str(fit.fit_id), f"{fit.n_images:,}", str(fit.n_clusters), _percent(fit.churn))
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(fit.created_at))
        table.add_row(*numbers, when, str(fit.trigger), state)
    out.print(table if fits else "no fit yet")
    if fits:
        out.print(f"library {told_age(settings)}")


@refits_app.command()
def show(
    number: NumberArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    files: Annotated[int, Option(min=0, help="Names shown of each group of files.")] = 3,
    html: Annotated[Path | None, Option(help="Write a page with the pictures here, too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a fit changes: clusters that come, go, split, merge; files that would move."""
    from imgsortd.refits.changes import RefitChanges, change_line, move_groups, names_of, show_fit

    settings = load_config(config)
    proposal = show_fit(settings, number, files)
    name_of = names_of(settings)
    lines = tuple(change_line(change, name_of) for change in proposal.changes)
    number, is_proposed = proposal.fit_id, proposal.state == "proposed"
    if html is not None:
        from imgsortd.reports.sheet_files import write_refit_sheet

        title = f"Fit {number}: what it changes"
        changes = RefitChanges(title, lines, move_groups(settings, number))
        with stage_bars(f"stopped; {html} is as it was", quiet=as_json) as bars:
            report = write_refit_sheet(settings, changes, html, on_progress=bars)
        err.print(f"{report.file}: {report.pictures:,} pictures", markup=False)
    if as_json:
        print_json(proposal)
        return
    state = "in force" if proposal.in_force else proposal.state
    note = f" ({proposal.note})" if proposal.note else ""
    churn = "" if proposal.churn is None else f", {_percent(proposal.churn)} change cluster"
    out.print(
        f"fit {number}, {state}{note}: {proposal.n_images:,} pictures in "
        f"{proposal.n_clusters} clusters by {proposal.algorithm} ({proposal.trigger}){churn}"
    )
    for line in lines:
        out.print(printable(f"  {line}"), markup=False)
    if proposal.would_move:
        how = "" if settings.refit.move_sorted else " with accept --move"
        out.print(f"{proposal.would_move:,} files would move{how}:")
    elif is_proposed:
        out.print("no file would move")
    groups = proposal.moves
    for group in groups[:_GROUPS_SHOWN]:
        old, new = os.fsdecode(group.old_folder), os.fsdecode(group.new_folder)
        line = f"  {group.total:,} from {old} to {new}"
        names = [os.fsdecode(base_name(name)) for name in group.files]
        more = " …" if len(names) < group.total else ""
        out.print(printable(line + (f": {', '.join(names)}{more}" if names else "")), markup=False)
    if len(groups) > _GROUPS_SHOWN:
        rest = sum(group.total for group in groups[_GROUPS_SHOWN:])
        out.print(f"  {rest:,} more between {len(groups) - _GROUPS_SHOWN} other pairs of folders")
    if is_proposed:
        out.print(f"imgsortd refits accept {number}, or imgsortd refits reject {number}")


@refits_app.command()
def accept(
    number: NumberArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    move: MoveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a proposal in force, and move files where `refits show` shows them."""
    _decide("accept", number, config, move, as_json)


@refits_app.command()
def reject(
    number: NumberArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let a proposal go; the next one comes when the triggers say so anew."""
    _decide("reject", number, config, False, as_json)


def rollback(
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what it would do, change nothing.")
    ] = False,
    move: MoveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Return to the fit before the one in force; a second time, to the one before that.

    Files that followed it go back to where they stood. `imgsortd refits accept N` brings fit N
    back.
    """
    if not dry_run:
        _decide("rollback", None, config, move, as_json)
        return
    from imgsortd.refits.decisions import preview_rollback

    report = preview_rollback(load_config(config), move)
    if as_json:
        print_json(report)
    else:
        _show_decided(report)


def _decide(verb: str, number: int | None, config: Path, move: bool | None, as_json: bool) -> None:
    from imgsortd.daemon.here import decide

    settings = load_config(config)
    with spinning(verb) as tell:
        report = decide(settings, verb, number, move, tell)
    if as_json:
        print_json(report)
    else:
        _show_decided(report)


def _show_decided(report: dict[str, Any]) -> None:
    number, in_force = report["fit_id"], report["in_force"]
    now, belong = "is in force", "now belong"
    if report["dry_run"]:
        now, belong = "would be in force", "would belong"
    out.print(f"fit {number} {report['decision']}; fit {in_force} {now}")
    if report["changed"]:
        out.print(f"  {report['changed']:,} pictures {belong} to another cluster")
    if report["moved"] and report["dry_run"]:
        out.print(f"  {report['moved']:,} files would go back to where they stood")
    elif report["moved"]:
        command = f"imgsortd undo --batch {report['batch']}"
        out.print(f"  {report['moved']:,} files moved; to return them: {command}")
    for line in report["left"][:_LEFT_SHOWN]:
        out.print(printable(f"  not yet moved, tried again: {line}"), markup=False)
    if report["following"]:
        following = f"{report['following']:,} files are still to be moved"
        out.print(f"  {following}, and follow by themselves")
    for batch in [] if report["moved"] else report["refit_batches"]:
        out.print(f"  what fit {number} moved is returned by imgsortd undo --batch {batch}")
    if report["decision"] == "rolled back":
        out.print(f"  to go back to fit {number}: imgsortd refits accept {number}")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
