"""``imgsortd refits`` and ``imgsortd rollback``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.cli_progress import stage_bars
from imgsortd.config import Config, load_config
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json, printable

refits_app = typer.Typer(
    help="The fits of the clusters: those there were, and a proposal that waits.",
    rich_markup_mode=None,
)

_GROUPS_SHOWN = 20
_LEFT_SHOWN = 3
NumberArgument = Annotated[
    int | None,
    typer.Argument(metavar="[N]", min=1, help="Number of the fit. Default: the one that waits."),
]
MoveOption = Annotated[
    bool | None,
    typer.Option(
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
    from dataclasses import asdict

    from rich.table import Table

    from imgsortd.refits import list_fits, told_age

    settings = load_config(config)
    fits = list_fits(settings)
    if as_json:
        print_json([asdict(fit) for fit in fits])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("fit", "pictures", "clusters", "change"):
        table.add_column(title, justify="right")
    for title in ("when", "trigger", "state"):
        table.add_column(title)
    for fit in fits:
        state = "in force" if fit.in_force else f"{fit.state}" + (f", {fit.note}" * bool(fit.note))
        table.add_row(
            str(fit.fit_id),
            f"{fit.n_images:,}",
            str(fit.n_clusters),
            _percent(fit.churn),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(fit.created_at)),
            str(fit.trigger),
            state,
        )
    out.print(table if fits else "no fit yet")
    if fits:
        out.print(f"library {told_age(settings)}")


@refits_app.command()
def show(
    number: NumberArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    files: Annotated[
        int, typer.Option("--files", min=0, help="Names shown of each group of files.")
    ] = 3,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with the pictures here, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a fit changes: clusters that come, go, split, merge; files that would move."""
    from imgsortd.refit_changes import change_line
    from imgsortd.refits import names_of, show_fit

    settings = load_config(config)
    found = show_fit(settings, number, files)
    proposal, name_of = found.as_dict(), names_of(settings)
    lines = tuple(change_line(change, name_of) for change in found.changes)
    if html is not None:
        _write_page(settings, found.fit.fit_id, lines, html, quiet=as_json)
    if as_json:
        print_json(proposal)
        return
    _show_head(proposal)
    for line in lines:
        out.print(printable(f"  {line}"), markup=False)
    if proposal["would_move"]:
        how = "" if settings.refit.move_sorted else " with accept --move"
        out.print(f"{proposal['would_move']:,} files would move{how}:")
    elif proposal["state"] == "proposed":
        out.print("no file would move")
    groups = proposal["moves"]
    for group in groups[:_GROUPS_SHOWN]:
        line = f"  {group['total']:,} from {group['old_folder']} to {group['new_folder']}"
        names = [os.path.basename(name) for name in group["files"]]
        more = " …" if len(names) < group["total"] else ""
        out.print(printable(line + (f": {', '.join(names)}{more}" if names else "")), markup=False)
    if len(groups) > _GROUPS_SHOWN:
        rest = sum(group["total"] for group in groups[_GROUPS_SHOWN:])
        out.print(f"  {rest:,} more between {len(groups) - _GROUPS_SHOWN} other pairs of folders")
    if proposal["state"] == "proposed":
        number = proposal["fit_id"]
        out.print(f"imgsortd refits accept {number}, or imgsortd refits reject {number}")


def _write_page(
    config: Config, number: int, lines: tuple[str, ...], path: Path, *, quiet: bool
) -> None:
    from imgsortd.refit_changes import RefitChanges
    from imgsortd.refits import move_groups
    from imgsortd.sheets import write_refit_sheet

    title = f"Fit {number}: what it changes"
    changes = RefitChanges(title, lines, move_groups(config, number))
    with stage_bars(f"stopped; {path} is as it was", quiet=quiet) as show:
        report = write_refit_sheet(config, changes, path, on_progress=show)
    err.print(f"{report.file}: {report.pictures:,} pictures", markup=False)


def _show_head(proposal: dict[str, Any]) -> None:
    state = "in force" if proposal["in_force"] else proposal["state"]
    note = f" ({proposal['note']})" if proposal["note"] else ""
    change = proposal["churn"]
    out.print(
        f"fit {proposal['fit_id']}, {state}{note}: {proposal['n_images']:,} pictures in "
        f"{proposal['n_clusters']} clusters by {proposal['algorithm']} ({proposal['trigger']})"
        + ("" if change is None else f", {_percent(change)} change cluster")
    )


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
        bool, typer.Option("--dry-run", help="Say what it would do, change nothing.")
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
    from imgsortd.refits import preview_rollback

    report = preview_rollback(load_config(config), move)
    if as_json:
        print_json(report)
    else:
        _show_decided(report)


def _decide(verb: str, number: int | None, config: Path, move: bool | None, as_json: bool) -> None:
    from imgsortd.refits import decide

    settings = load_config(config)
    with err.status(verb, spinner="dots") as spinner:
        report = decide(settings, verb, number, move, spinner.update)
    if as_json:
        print_json(report)
    else:
        _show_decided(report)


def _show_decided(report: dict[str, Any]) -> None:
    number, in_force = report["fit_id"], report["in_force"]
    out.print(f"fit {number} {report['decision']}; fit {in_force} " + _now(report["dry_run"]))
    if report["changed"]:
        verb = "would belong" if report["dry_run"] else "now belong"
        out.print(f"  {report['changed']:,} pictures {verb} to another cluster")
    if report["moved"] and report["dry_run"]:
        out.print(f"  {report['moved']:,} files would go back to where they stood")
    elif report["moved"]:
        out.print(
            f"  {report['moved']:,} files moved; to return them: "
            f"imgsortd undo --batch {report['batch']}"
        )
    for line in report["left"][:_LEFT_SHOWN]:
        out.print(printable(f"  not yet moved, tried again: {line}"), markup=False)
    if report["following"]:
        out.print(
            f"  {report['following']:,} files are still to be moved, and follow by themselves"
        )
    for batch in [] if report["moved"] else report["refit_batches"]:
        out.print(f"  what fit {number} moved is returned by imgsortd undo --batch {batch}")
    if report["decision"] == "rolled back":
        out.print(f"  to go back to fit {number}: imgsortd refits accept {number}")


def _now(dry_run: bool) -> str:
    return "would be in force" if dry_run else "is in force"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
