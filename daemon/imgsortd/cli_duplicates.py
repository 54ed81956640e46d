"""``imgsortd duplicates``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.config import load_config
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json, printable

_FILES_SHOWN = 20


def duplicates(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="For --keep and --forget: files of the library.", show_default=False),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    near: Annotated[bool, typer.Option("--near", help="Near-duplicates only.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Equal bytes only.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="FILES are all wanted: never report them together again.")
    ] = False,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Take --keep back: among FILES, or all of one FILE."),
    ] = False,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="First hash the pictures that were sorted before hashes."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report pictures that are there twice, or nearly; nothing is ever moved or deleted by it."""
    from imgsortd.duplicating import duplicates as find_duplicates

    if sum((near, exact, keep, forget)) > 1:
        raise typer.BadParameter("give one of --near, --exact, --keep and --forget")
    if bool(files) != (keep or forget):
        raise typer.BadParameter("--keep and --forget need FILES, and nothing else takes any")
    if complete and (exact or keep or forget):
        raise typer.BadParameter("--complete goes with --near or alone")
    settings = load_config(config)
    if files:
        _decide(settings, files, forget, as_json)
        return
    with err.status("duplicates", spinner="dots") as spinner:
        completed = None
        if complete:
            from imgsortd.duplicating import complete as make_hashes

            completed = make_hashes(settings, spinner.update)
        report = find_duplicates(settings, exact=not near, near=not exact, progress=spinner.update)
    if as_json:
        print_json({**report, "completed": completed})
    else:
        _show(report, completed)


def _decide(settings: Any, files: list[Path], forget: bool, as_json: bool) -> None:
    from imgsortd.duplicating import decide_files

    with err.status("duplicates", spinner="dots") as spinner:
        report = decide_files(settings, files, forget=forget, progress=spinner.update)
    if as_json:
        print_json(report)
        return
    verb = "forgotten" if forget else "kept for good"
    out.print(f"{_count(report['pairs'], 'pair')} {verb}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _show(report: dict[str, Any], completed: dict[str, int] | None) -> None:
    if completed is not None and completed["unreadable"]:
        out.print(f"{_count(completed['unreadable'], 'picture')} could not be read to be hashed")
    for title, groups in (("same bytes", report["exact"]), ("nearly the same", report["near"])):
        for group in groups or ():
            _show_group(title, group)
    for title, groups in (("equal", report["exact"]), ("near", report["near"])):
        if groups is not None:
            out.print(f"{_count(len(groups), 'group')} of {title} duplicates")
    if report["kept_pairs"]:
        out.print(f"kept by your word and not reported: {_count(report['kept_pairs'], 'pair')}")
    if report.get("lacking"):
        out.print(
            f"without a hash yet and not compared: {_count(report['lacking'], 'picture')}; "
            f"imgsortd duplicates --complete makes them"
        )
    if report.get("crowded"):
        out.print(
            f"like so many others (plain colours, pages) that only the nearest were compared: "
            f"{_count(report['crowded'], 'picture')}"
        )


def _show_group(title: str, group: dict[str, Any]) -> None:
    pairs = group.get("pairs")
    told = ""
    if pairs:
        bits, cosine = max(p["bits"] for p in pairs), min(p["cosine"] for p in pairs)
        told = f", up to {bits} of 64 bits differ, cosine {cosine:.3f} or more"
    out.print(f"{title}: {len(group['files'])} files{told}")
    for file in group["files"][:_FILES_SHOWN]:
        size = "" if file["size_bytes"] is None else f"  {file['size_bytes'] / 1e3:,.0f} kB"
        original = "  the original" if file.get("original") else ""
        out.print(printable(f"  {file['file']}{size}{original}"), markup=False)
    if len(group["files"]) > _FILES_SHOWN:
        out.print(f"  and {len(group['files']) - _FILES_SHOWN:,} more")
