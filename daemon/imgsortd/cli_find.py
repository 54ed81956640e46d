"""``imgsortd similar`` and ``imgsortd explain``: about one file of the library, or any picture."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.config import load_config
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json, printable

FileArgument = Annotated[
    Path,
    typer.Argument(help="A file of the library, or any other picture.", show_default=False),
]


def similar(
    file: FileArgument,
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=10_000, help="How many to name.")
    ] = 20,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Name the pictures most like one: over the whole library, by the stored features."""
    from imgsortd.finding import similar as find_similar

    settings = load_config(config)
    with err.status("similar", spinner="dots") as spinner:
        report = find_similar(settings, file, count, lambda text: spinner.update(printable(text)))
    if as_json:
        print_json(report)
        return
    if report["model_loaded"]:
        err.print("the model was loaded for it: it has no stored features")
    for one in report["similar"]:
        out.print(_picture(one), markup=False)
    if not report["similar"]:
        out.print("there is no other picture in the library")


def _picture(one: dict[str, Any]) -> str:
    cluster = _cluster(one) if one["cluster"] is not None else one["state"].replace("_", " ")
    same = "  same bytes" if one["same_bytes"] else ""
    return printable(f"{one['distance']:.3f}  {one['file']}  {cluster}{same}")


def _cluster(one: dict[str, Any]) -> str:
    plain = f"cluster {one['cluster']}"
    if one["name"]:
        return f"{plain} {one['name']!r}"
    return plain if one["folder"] == f"cluster_{one['cluster']}" else f"{plain} {one['folder']!r}"


def explain(
    file: FileArgument, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Say where a file is and why: its cluster, the nearest ones, review, the like pictures."""
    from imgsortd.explaining import explain as find_reasons

    settings = load_config(config)
    with err.status("explain", spinner="dots") as spinner:
        report = find_reasons(settings, file, lambda text: spinner.update(printable(text)))
    if as_json:
        print_json(report)
        return
    for line in [*_of_library(report), *_of_features(report)]:
        out.print(printable(line), markup=False)


def _of_library(report: dict[str, Any]) -> list[str]:
    known = report["library"]
    if known is None:
        changed = ", where another picture was sorted" if report["changed"] else ""
        return [f"{report['file']}: not in the library{changed}"]
    lines = [f"{known['file']}: {known['state'].replace('_', ' ')}"]
    if known["cluster"] is not None:
        lines[0] += f", {_cluster(known)}"
    if not known["is_this_file"]:
        lines.insert(0, f"{report['file']}: not in the library, but these bytes are:")
    if not known["stands_there"]:
        lines.append("it no longer stands there: its owner took it away or moved it")
    if report["changed"] and known["is_this_file"]:
        lines.append("it was changed since; what follows is of the picture that was sorted")
    if known["reason"]:
        lines.append(f"because: {known['reason']}")
    if known["pin"]:
        where = (
            known["pin"]["folder"] if known["pin"]["cluster"] is None else _cluster(known["pin"])
        )
        lines.append(f"pinned to {where} by a person, {_at(known['pin']['at'])}")
    if known["moved"]:
        verb = "brought back by an undo" if known["moved"]["by_undo"] else known["moved"]["op"]
        lines.append(f"batch {known['moved']['batch']}: {verb}, {_at(known['moved']['at'])}")
    if known["fit"]:
        fit = known["fit"]
        lines.append(
            f"by fit {fit['id']} ({fit['trigger']}, {fit['clusters']} clusters) of "
            f"{_at(fit['created_at'])}"
        )
    if known["goes_with"]:
        lines.append(f"goes with {known['goes_with']['file']}")
    lines += [f"with it goes {one['file']}" for one in known["companions"]]
    return lines + [f"same bytes: {path}" for path in known["same_bytes"]]


def _at(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s):%Y-%m-%d %H:%M:%S}"


def _of_features(report: dict[str, Any]) -> list[str]:
    lines = []
    now, limits = report["now"], report["limits"]
    if now is not None:
        known = report["library"]
        would = "now it would go" if known else "it would go"
        if known and known["pin"]:
            would = "but for the pin, it would go"
        where = f"to review: {now['reason']}" if now["review"] else f"to {_cluster(now)}"
        lines.append(f"{would} {where}")
        lines.append("nearest clusters:")
        lines += [f"  {one['distance']:.3f}  {_cluster(one)}" for one in report["clusters"]]
        lines.append(f"review: {_limits(limits)}")
    elif report["similar"]:
        lines.append("there was no fit yet: it waits for the first one")
    if report["similar"]:
        lines.append("most like it:")
        lines += [f"  {_picture(one)}" for one in report["similar"]]
    if report["model_loaded"]:
        lines.append("(the model was loaded for it: it has no stored features)")
    return lines


def _limits(limits: dict[str, Any]) -> str:
    parts = []
    if limits["farthest"] is not None:
        share = f"{100 * limits['quantile']:g} %"
        parts.append(f"farther than {limits['farthest']:.3f} ({share} of the fit were within)")
    if limits["margin"] is not None:
        parts.append(f"two clusters within {100 * limits['margin']:g} % of one another")
    return "; ".join(parts) if parts else "off"
