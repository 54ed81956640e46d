"""``imgsortd rename``, ``pins`` and ``unpin``: what a person says of clusters and pictures."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.config import load_config
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json, printable


class PinsAction(StrEnum):
    """What is done with the pins."""

    LIST = "list"


def rename(
    cluster: Annotated[int, typer.Argument(min=0, help="The number of the cluster.")],
    name: Annotated[
        str, typer.Argument(help="The new name of its folder; empty for cluster_N.")
    ] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    reset: Annotated[bool, typer.Option("--reset", help="Give the name cluster_N back.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give a cluster's folder a name; routing goes on there."""
    from imgsortd.hands import rename as give_name

    if reset and name:
        raise typer.BadParameter("give a name or --reset, not both")
    settings = load_config(config)
    with err.status("rename", spinner="dots") as spinner:
        result = give_name(settings, cluster, name, spinner.update)
    if as_json:
        print_json(result)
    elif result["from"] == result["folder"]:
        out.print(f"cluster {cluster} stands in {printable(result['path'])} already", markup=False)
    else:
        out.print(f"cluster {cluster} stands in {printable(result['path'])} now", markup=False)


def pins(
    action: Annotated[PinsAction, typer.Argument(help="list, which may be left out.")] = (
        PinsAction.LIST
    ),
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """List the pictures whose place a person has chosen, the newest first."""
    from imgsortd.hands import list_pins

    rows = list_pins(load_config(config))
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("file", "cluster", "since"):
        table.add_column(title, overflow="fold")
    for row in rows:
        cluster = "none" if row["cluster"] is None else str(row["cluster"])
        if row["name"] is not None:
            cluster = f"{cluster} {printable(row['name'])}"
        file = f"not in target, {row['sha256'][:12]}" if row["file"] is None else row["file"]
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["pinned_at"]))
        table.add_row(*(Text(part) for part in (printable(file), cluster, since)))
    if rows:
        out.print(table)
    else:
        out.print("nothing is pinned; move a picture to another folder of target to pin it")


def unpin(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures: a path, a name in target, or the start of a SHA-256."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cluster: Annotated[
        int | None, typer.Option("--cluster", min=0, help="All pins of this cluster.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All pins.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Free pictures: a refit may move them again. No file is moved by this."""
    from imgsortd.hands import unpin as free

    if sum((bool(files), cluster is not None, everything)) != 1:
        raise typer.BadParameter("give FILEs, or one of --cluster and --all")
    settings = load_config(config)
    with err.status("unpin", spinner="dots") as spinner:
        result = free(
            settings,
            files or [],
            cluster_id=cluster,
            everything=everything,
            progress=spinner.update,
        )
    if as_json:
        print_json(result)
    else:
        out.print(f"{result['freed']:,} picture{'s' * (result['freed'] != 1)} freed")
