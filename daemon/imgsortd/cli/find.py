"""``imgsortd similar``, ``explain``, ``duplicates`` and ``sheet``: to find and see pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from imgsortd.cli.shared import ConfigOption, JsonOption, spinning, stage_bars
from imgsortd.cli.terminal import DEFAULT_CONFIG, err, out, print_json
from imgsortd.config import load_config
from imgsortd.words import counted, printable

# other commands need not load what these do
if TYPE_CHECKING:
    from imgsortd.reports.duplicates import Duplicates, StoredFile
    from imgsortd.reports.explain import Explanation, ReviewLimits
    from imgsortd.reports.similar import SimilarFile
    from imgsortd.reports.subjects import ToldCluster, ToldFile

FileArgument = Annotated[
    Path, Argument(help="A file of the library, or any other picture.", show_default=False)
]

_FILES_SHOWN = 20


def similar(
    file: FileArgument,
    count: Annotated[
        int, Option("-n", "--count", min=1, max=10_000, help="How many to name.")
    ] = 20,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Name the pictures most like one: over the whole library, by the stored features."""
    from imgsortd.reports.similar import similar as find_similar

    settings = load_config(config)
    with spinning("similar") as tell:
        report = find_similar(settings, file, count, tell)
    if as_json:
        print_json(report)
        return
    if report.model_loaded:
        err.print("the model was loaded for it: it has no stored features")
    for one in report.similar:
        out.print(_picture(one), markup=False)
    if not report.similar:
        out.print("there is no other picture in the library")


def _picture(one: SimilarFile) -> str:
    cluster = _cluster(one) if one.cluster is not None else one.state.replace("_", " ")
    same = "  same bytes" if one.same_bytes else ""
    return printable(f"{one.distance:.3f}  {one.file}  {cluster}{same}")


def _cluster(one: ToldFile | ToldCluster) -> str:
    plain = f"cluster {one.cluster}"
    if one.name:
        return f"{plain} {one.name!r}"
    return plain if one.folder == f"cluster_{one.cluster}" else f"{plain} {one.folder!r}"


def explain(
    file: FileArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Say where a file is and why: its cluster, the nearest ones, review, the like pictures."""
    from imgsortd.reports.explain import explain as find_reasons

    settings = load_config(config)
    with spinning("explain") as tell:
        report = find_reasons(settings, file, tell)
    if as_json:
        print_json(report)
        return
    for line in [*_of_library(report), *_of_features(report)]:
        out.print(printable(line), markup=False)


def _of_library(report: Explanation) -> list[str]:
    known = report.library
    if known is None:
        changed = ", where another picture was sorted" if report.changed else ""
        return [f"{report.file}: not in the library{changed}"]
    lines = [f"{known.file}: {known.state.replace('_', ' ')}"]
    if known.cluster is not None:
        lines[0] += f", {_cluster(known)}"
    if not known.is_this_file:
        lines.insert(0, f"{report.file}: not in the library, but these bytes are:")
    if not known.stands_there:
        lines.append("it no longer stands there: its owner took it away or moved it")
    if report.changed and known.is_this_file:
        lines.append("it was changed since; what follows is of the picture that was sorted")
    if known.reason:
        lines.append(f"because: {known.reason}")
    if known.pin:
        where = known.pin.folder if known.pin.cluster is None else _cluster(known.pin)
        lines.append(f"pinned to {where} by a person, {_at(known.pin.at)}")
    if known.moved:
        verb = "brought back by an undo" if known.moved.by_undo else known.moved.op
        lines.append(f"batch {known.moved.batch}: {verb}, {_at(known.moved.at)}")
    if fit := known.fit:
        facts = f"{fit.trigger}, {fit.clusters} clusters"
        lines.append(f"by fit {fit.id} ({facts}) of {_at(fit.created_at)}")
    if known.goes_with:
        lines.append(f"goes with {known.goes_with.file}")
    lines += [f"with it goes {one.file}" for one in known.companions]
    return lines + [f"same bytes: {path}" for path in known.same_bytes]


def _at(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s):%Y-%m-%d %H:%M:%S}"


def _of_features(report: Explanation) -> list[str]:
    lines = []
    now, limits = report.now, report.limits
    if now is not None and limits is not None:
        known = report.library
        would = "now it would go" if known else "it would go"
        if known and known.pin:
            would = "but for the pin, it would go"
        where = f"to review: {now.reason}" if now.review else f"to {_cluster(now)}"
        lines.append(f"{would} {where}")
        lines.append("nearest clusters:")
        lines += [f"  {one.distance:.3f}  {_cluster(one)}" for one in report.clusters]
        lines.append(f"review: {_limits(limits)}")
    elif report.similar:
        lines.append("there was no fit yet: it waits for the first one")
    if report.similar:
        lines.append("most like it:")
        lines += [f"  {_picture(one)}" for one in report.similar]
    if report.model_loaded:
        lines.append("(the model was loaded for it: it has no stored features)")
    return lines


def _limits(limits: ReviewLimits) -> str:
    parts = []
    if limits.farthest is not None and limits.quantile is not None:
        share = f"{100 * limits.quantile:g} %"
        parts.append(f"farther than {limits.farthest:.3f} ({share} of the fit were within)")
    if limits.margin is not None:
        parts.append(f"two clusters within {100 * limits.margin:g} % of one another")
    return "; ".join(parts) if parts else "off"


def duplicates(
    files: Annotated[
        list[Path] | None,
        Argument(help="For --keep and --forget: files of the library.", show_default=False),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    near: Annotated[bool, Option("--near", help="Near-duplicates only.")] = False,
    exact: Annotated[bool, Option("--exact", help="Equal bytes only.")] = False,
    keep: Annotated[
        bool, Option("--keep", help="FILES are all wanted: never report them together again.")
    ] = False,
    forget: Annotated[
        bool, Option("--forget", help="Take --keep back: among FILES, or all of one FILE.")
    ] = False,
    complete: Annotated[
        bool, Option("--complete", help="First hash the pictures that were sorted before hashes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Report pictures that are there twice, or nearly; nothing is ever moved or deleted by it."""
    from imgsortd.reports.duplicates import duplicates as find_duplicates
    from imgsortd.reports.duplicates import hashes_of

    if sum((near, exact, keep, forget)) > 1:
        raise typer.BadParameter("give one of --near, --exact, --keep and --forget")
    if bool(files) != (keep or forget):
        raise typer.BadParameter("--keep and --forget need FILES, and nothing else takes any")
    if complete and (exact or keep or forget):
        raise typer.BadParameter("--complete goes with --near or alone")
    settings = load_config(config)
    with spinning("duplicates") as tell:
        if files:
            from imgsortd.daemon.here import keep as keep_together

            kept = keep_together(settings, hashes_of(settings, files), forget=forget, progress=tell)
        else:
            completed = None
            if complete:
                from imgsortd.daemon.here import complete as make_hashes

                completed = make_hashes(settings, tell)
            report = find_duplicates(settings, exact=not near, near=not exact, progress=tell)
    if files and as_json:
        print_json(kept)
    elif files:
        verb = "forgotten" if forget else "kept for good"
        out.print(f"{counted(kept['pairs'], 'pair')} {verb}")
    elif as_json:
        print_json(report, completed=completed)
    else:
        _show(report, completed)


def _show(report: Duplicates, completed: dict[str, int] | None) -> None:
    from imgsortd.reports.duplicates import NearDuplicates

    if completed is not None and completed["unreadable"]:
        out.print(f"{counted(completed['unreadable'], 'picture')} could not be read to be hashed")
    for equal in report.exact or ():
        _show_files("same bytes", equal.files, first="  the original")
    for alike in report.near or ():
        bits, cosine = max(p.bits for p in alike.pairs), min(p.cosine for p in alike.pairs)
        told = f", up to {bits} of 64 bits differ, cosine {cosine:.3f} or more"
        _show_files("nearly the same", alike.files, told)
    for title, groups in (("equal", report.exact), ("near", report.near)):
        if groups is not None:
            out.print(f"{counted(len(groups), 'group')} of {title} duplicates")
    if report.kept_pairs:
        out.print(f"kept by your word and not reported: {counted(report.kept_pairs, 'pair')}")
    if not isinstance(report, NearDuplicates):
        return
    if report.lacking:
        lacking = f"without a hash yet and not compared: {counted(report.lacking, 'picture')}"
        out.print(f"{lacking}; imgsortd duplicates --complete makes them")
    if report.crowded:
        why = "like so many others (plain colours, pages) that only the nearest were compared"
        out.print(f"{why}: {counted(report.crowded, 'picture')}")


def _show_files(title: str, files: Sequence[StoredFile], told: str = "", first: str = "") -> None:
    out.print(f"{title}: {len(files)} files{told}")
    for at, file in enumerate(files[:_FILES_SHOWN]):
        size = "" if file.size_bytes is None else f"  {file.size_bytes / 1e3:,.0f} kB"
        out.print(printable(f"  {file.file}{size}{'' if at else first}"), markup=False)
    if len(files) > _FILES_SHOWN:
        out.print(f"  and {len(files) - _FILES_SHOWN:,} more")


def sheet(
    output: Annotated[
        Path, Option("-o", "--output", dir_okay=True, help="The HTML file to write.")
    ] = Path("sheet.html"),
    config: ConfigOption = DEFAULT_CONFIG,
    max_mb: Annotated[
        float, Option(min=1, max=2000, help="Megabytes that the pictures may take.")
    ] = 50,
    force: Annotated[
        bool, Option("--force", help="Replace a file that is no page of imgsortd's.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the contact sheet: each cluster with its most typical pictures, in one HTML file."""
    from imgsortd.reports.sheet_files import Replace, write_contact_sheet

    settings = load_config(config)
    replace = Replace.ANY if force else Replace.OURS
    with stage_bars(f"stopped; {output} is as it was", quiet=as_json) as bars:
        report = write_contact_sheet(
            settings, output, replace=replace, max_mb=max_mb, on_progress=bars
        )
    if as_json:
        print_json(report)
        return
    shown = f"{report.pictures:,} pictures of {report.clusters:,} clusters"
    out.print(f"{report.file}: {shown}, {report.size_bytes / 1e6:.1f} MB", markup=False)
    if report.unread:
        out.print(f"{report.unread:,} pictures are gone or cannot be read any more")
    if report.left_out:
        why = f"they would take more than {max_mb:g} MB; --max-mb allows more"
        out.print(f"{report.left_out:,} pictures left out: {why}")
