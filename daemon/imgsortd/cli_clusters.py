"""``imgsortd suggest-k``: a table, bars beside it, and a plot where one is asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.config import load_config
from imgsortd.core.records import KRange
from imgsortd.errors import ImgsortdError
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from imgsortd.suggesting import Suggestion

_BAR_CELLS = 30


def k_range(text: str) -> KRange:
    """Read ``2-200``."""
    match = re.fullmatch(r"(\d{1,4})-(\d{1,4})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= 1000:
        raise typer.BadParameter(
            f"expected two whole numbers from 1 to 1000 such as 2-200, got {text!r}"
        )
    return KRange(int(match[1]), int(match[2]))


def suggest_k(
    config: ConfigOption = DEFAULT_CONFIG,
    numbers: Annotated[
        str | None,
        typer.Option(
            "--range", help="Which numbers, such as 2-200; default: clusters.auto_least to _most."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Also draw the curve into this PNG file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare numbers of clusters by the stored features, and suggest one."""
    from imgsortd.suggesting import suggest_number

    settings = load_config(config)
    clusters = settings.clusters
    wanted = k_range(numbers) if numbers else KRange(clusters.auto_least, clusters.auto_most)
    if plot is not None:
        require_matplotlib()
    with err.status("comparing numbers of clusters", spinner="dots"):
        found = suggest_number(settings, wanted)
    if plot is not None:
        draw(found, plot)
    if as_json:
        print_json(found.as_dict())
        return
    out.print(curve_table(found))
    sampled = "" if found.n_sampled == found.n_images else f", by {found.n_sampled:,} of them"
    out.print(f"{found.pick} clusters set the {found.n_images:,} pictures apart best{sampled}")
    if clusters.n_clusters != "auto":
        out.print(
            f"now clusters.n_clusters is {clusters.n_clusters}; set it to {found.pick}, or to auto"
        )


def curve_table(found: Suggestion) -> Table:
    """Return the curve as a table with bars; the pick is marked."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("clusters", justify="right")
    table.add_column("silhouette", justify="right")
    table.add_column("largest", justify="right")
    table.add_column("")
    greatest = max(max(point.silhouette for point in found.points), 1e-9)
    for point in found.points:
        is_pick = point.n_clusters == found.pick
        cells = round(_BAR_CELLS * max(0.0, point.silhouette) / greatest)
        table.add_row(
            str(point.n_clusters),
            f"{point.silhouette:.3f}",
            f"{100 * point.largest_share:.0f} %",
            "█" * cells + (" ← best" if is_pick else ""),
            style="bold" if is_pick else None,
        )
    return table


def require_matplotlib() -> None:
    """Raise where there is nothing to draw with, before the work is done."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImgsortdError(
            "--plot needs matplotlib, which is not installed; pip install matplotlib, "
            "or leave --plot out: the table shows the same curve"
        ) from None


def draw(found: Suggestion, path: Path) -> None:
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
