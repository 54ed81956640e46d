"""``imgsortd rename``, ``pins``, ``unpin``, ``names``, ``suggest-k``: what clusters are to be."""

from __future__ import annotations

import re
import shlex
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from imgsortd.cli.shared import ConfigOption, JsonOption, spinning, stage_bars
from imgsortd.cli.terminal import DEFAULT_CONFIG, out, print_json
from imgsortd.config import load_config
from imgsortd.errors import ImgsortdError
from imgsortd.records import KRange
from imgsortd.words import counted, printable

if TYPE_CHECKING:
    from imgsortd.reports.cluster_names import NamedCluster
    from imgsortd.reports.cluster_number import SuggestedNumber

_BAR_CELLS = 30


class PinsAction(StrEnum):
    """What is done with the pins."""

    LIST = "list"


def rename(
    cluster: Annotated[int, Argument(min=0, help="The number of the cluster.")],
    name: Annotated[str, Argument(help="The new name of its folder; empty for cluster_N.")] = "",
    config: ConfigOption = DEFAULT_CONFIG,
    reset: Annotated[bool, Option("--reset", help="Give the name cluster_N back.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give a cluster's folder a name; routing goes on there."""
    from imgsortd.daemon.here import rename as give_name

    if reset and name:
        raise typer.BadParameter("give a name or --reset, not both")
    settings = load_config(config)
    with spinning("rename") as tell:
        result = give_name(settings, cluster, name, tell)
    if as_json:
        print_json(result)
        return
    when = "already" if result["from"] == result["folder"] else "now"
    out.print(f"cluster {cluster} stands in {printable(result['path'])} {when}", markup=False)


def pins(
    action: Annotated[PinsAction, Argument(help="list, which may be left out.")] = (
        PinsAction.LIST
    ),
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """List the pictures whose place a person has chosen, the newest first."""
    from imgsortd.target.choices import list_pins

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
    nothing = "nothing is pinned; move a picture to another folder of target to pin it"
    out.print(table if rows else nothing)


def unpin(
    files: Annotated[
        list[str] | None,
        Argument(help="Pictures: a path, a name in target, or the start of a SHA-256."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    cluster: Annotated[int | None, Option(min=0, help="All pins of this cluster.")] = None,
    everything: Annotated[bool, Option("--all", help="All pins.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Free pictures: a refit may move them again. No file is moved by this."""
    from imgsortd.daemon.here import unpin as free

    if sum((bool(files), cluster is not None, everything)) != 1:
        raise typer.BadParameter("give FILEs, or one of --cluster and --all")
    settings = load_config(config)
    with spinning("unpin") as tell:
        result = free(
            settings, files or [], cluster_id=cluster, everything=everything, progress=tell
        )
    if as_json:
        print_json(result)
    else:
        out.print(f"{counted(result['freed'], 'picture')} freed")


def names(
    config: ConfigOption = DEFAULT_CONFIG,
    suggest: Annotated[
        bool,
        Option(
            "--suggest", help="Ask VGG16's own classes; needs its full weights on this machine."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the clusters with their names; nothing is renamed."""
    from imgsortd.reports.cluster_names import commands, read_names, suggest_names

    settings = load_config(config)
    clusters = read_names(settings)
    if suggest and clusters:
        from imgsortd.networks.vgg16 import build_classifier, class_names, full_weights

        classifier = build_classifier(settings.model, full_weights(settings.model))
        with stage_bars("stopped; nothing was changed", quiet=as_json) as show:
            clusters = suggest_names(settings, clusters, classifier, class_names(), show)
    if as_json:
        print_json(clusters)
    elif not clusters:
        out.print("there are no clusters yet: the first fit is still to come")
    else:
        _show_names(clusters, suggest)
    chosen = commands(clusters) if suggest and not as_json else []
    if chosen:
        out.print("\nnothing was renamed; to take a name, type its line:")
    where = "" if config == DEFAULT_CONFIG else f" -c {shlex.quote(str(config))}"
    for number, name in chosen:
        out.print(f"  imgsortd rename {number} {shlex.quote(name)}{where}", markup=False)


def _show_names(clusters: list[NamedCluster], suggest: bool) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cluster", justify="right")
    table.add_column("folder")
    table.add_column("files", justify="right")
    if suggest:
        table.add_column("looks like")
    for cluster in clusters:
        cells = [str(cluster.id), printable(cluster.folder), f"{cluster.files:,}"]
        if suggest:
            likely = [f"{s.name} {100 * s.share:.0f} %" for s in cluster.suggestions]
            cells.append(", ".join(likely) or "no picture to look at")
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)


def suggest_k(
    config: ConfigOption = DEFAULT_CONFIG,
    numbers: Annotated[
        str | None,
        Option(
            "--range", help="Which numbers, such as 2-200; default: clusters.auto_least to _most."
        ),
    ] = None,
    plot: Annotated[Path | None, Option(help="Also draw the curve into this PNG file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare numbers of clusters by the stored features, and suggest one."""
    from imgsortd.reports.cluster_number import suggest_number

    settings = load_config(config)
    clusters = settings.clusters
    wanted = _k_range(numbers) if numbers else KRange(clusters.auto_least, clusters.auto_most)
    if plot is not None:  # before the work is done
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise ImgsortdError(
                "--plot needs matplotlib, which is not installed; pip install matplotlib, "
                "or leave --plot out: the table shows the same curve"
            ) from None
    with spinning("comparing numbers of clusters"):
        found = suggest_number(settings, wanted)
    if plot is not None:
        _draw(found, plot)
    if as_json:
        print_json(found)
        return
    out.print(_curve_table(found))
    sampled = "" if found.n_sampled == found.n_images else f", by {found.n_sampled:,} of them"
    out.print(f"{found.pick} clusters set the {found.n_images:,} pictures apart best{sampled}")
    if clusters.n_clusters != "auto":
        out.print(
            f"now clusters.n_clusters is {clusters.n_clusters}; set it to {found.pick}, or to auto"
        )


def _k_range(text: str) -> KRange:
    """Read ``2-200``."""
    match = re.fullmatch(r"(\d{1,4})-(\d{1,4})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= 1000:
        raise typer.BadParameter(
            f"expected two whole numbers from 1 to 1000 such as 2-200, got {text!r}"
        )
    return KRange(int(match[1]), int(match[2]))


def _curve_table(found: SuggestedNumber) -> Table:
    """Return the curve as a table with bars; the pick is marked."""
    table = Table(box=None, pad_edge=False)
    for title in ("clusters", "silhouette", "largest"):
        table.add_column(title, justify="right")
    table.add_column("")
    greatest = max(max(point.silhouette for point in found.points), 1e-9)
    for point in found.points:
        is_pick = point.n_clusters == found.pick
        cells = round(_BAR_CELLS * max(0.0, point.silhouette) / greatest)
        bar = "█" * cells + (" ← best" if is_pick else "")
        numbers = str(point.n_clusters), f"{point.silhouette:.3f}"
        share = f"{100 * point.largest_share:.0f} %"
        table.add_row(*numbers, share, bar, style="bold" if is_pick else None)
    return table


def _draw(found: SuggestedNumber, path: Path) -> None:
    """Draw the curve into a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    numbers = [point.n_clusters for point in found.points]
    axes.plot(numbers, [point.silhouette for point in found.points], marker=".", color="#356")
    axes.axvline(found.pick, color="#b40", linewidth=1)
    axes.set_xlabel("clusters")
    axes.set_ylabel("mean silhouette")
    axes.set_title(f"{found.pick} clusters set {found.n_images:,} pictures apart best")
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise ImgsortdError(
            f"cannot write {path}: {error.strerror}; give another --plot"
        ) from error
