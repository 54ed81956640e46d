"""``imgsortd names``: what the clusters are called, and what they could be."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.cli_progress import stage_bars
from imgsortd.config import Config, load_config
from imgsortd.terminal import DEFAULT_CONFIG, out, print_json, printable

if TYPE_CHECKING:
    from imgsortd.name_list import NamedCluster


def names(
    config: ConfigOption = DEFAULT_CONFIG,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest", help="Ask VGG16's own classes; needs its full weights on this machine."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the clusters with their names; nothing is renamed."""
    from imgsortd.name_list import read_names

    settings = load_config(config)
    clusters = read_names(settings)
    if suggest and clusters:
        clusters = _with_suggestions(settings, clusters, quiet=as_json)
    if as_json:
        print_json([cluster.as_dict() for cluster in clusters])
        return
    _show(clusters, suggest)
    if suggest:
        _show_commands(clusters, config)


def _with_suggestions(
    settings: Config, clusters: list[NamedCluster], quiet: bool
) -> list[NamedCluster]:
    from imgsortd.adapters.imagenet import build_classifier, class_names, full_weights
    from imgsortd.name_list import suggest_names

    classifier = build_classifier(settings.model, full_weights(settings.model))
    with stage_bars("stopped; nothing was changed", quiet) as show:
        return suggest_names(settings, clusters, classifier, class_names(), show)


def _show(clusters: list[NamedCluster], suggest: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    if not clusters:
        out.print("there are no clusters yet: the first fit is still to come")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cluster", justify="right")
    table.add_column("folder")
    table.add_column("files", justify="right")
    if suggest:
        table.add_column("looks like")
    for cluster in clusters:
        cells = [str(cluster.cluster_id), printable(cluster.folder), f"{cluster.files:,}"]
        if suggest:
            likely = [f"{s.name} {100 * s.share:.0f} %" for s in cluster.suggestions]
            cells.append(", ".join(likely) or "no picture to look at")
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)


def _show_commands(clusters: list[NamedCluster], config: Path) -> None:
    from imgsortd.name_list import commands

    chosen = commands(clusters)
    if not chosen:
        return
    where = "" if config == DEFAULT_CONFIG else f" -c {shlex.quote(str(config))}"
    out.print("\nnothing was renamed; to take a name, type its line:")
    for number, name in chosen:
        out.print(f"  imgsortd rename {number} {shlex.quote(name)}{where}", markup=False)
