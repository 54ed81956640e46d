"""``imgsortd sheet``: the library on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.cli_progress import stage_bars
from imgsortd.config import load_config
from imgsortd.terminal import DEFAULT_CONFIG, out, print_json


def sheet(
    output: Annotated[
        Path, typer.Option("-o", "--output", dir_okay=True, help="The HTML file to write.")
    ] = Path("sheet.html"),
    config: ConfigOption = DEFAULT_CONFIG,
    max_mb: Annotated[
        float, typer.Option(min=1, max=2000, help="Megabytes that the pictures may take.")
    ] = 50,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is no page of imgsortd's.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the contact sheet: each cluster with its most typical pictures, in one HTML file."""
    from imgsortd.adapters.page_file import Replace
    from imgsortd.sheets import write_contact_sheet

    settings = load_config(config)
    replace = Replace.ANY if force else Replace.OURS
    with stage_bars(f"stopped; {output} is as it was", quiet=as_json) as show:
        report = write_contact_sheet(
            settings, output, replace=replace, max_mb=max_mb, on_progress=show
        )
    if as_json:
        print_json(report.as_dict())
        return
    out.print(
        f"{report.file}: {report.pictures:,} pictures of {report.clusters:,} clusters, "
        f"{report.size_bytes / 1e6:.1f} MB",
        markup=False,
    )
    if report.unread:
        out.print(f"{report.unread:,} pictures are gone or cannot be read any more")
    if report.left_out:
        out.print(
            f"{report.left_out:,} pictures left out: they would take more than {max_mb:g} MB; "
            f"--max-mb allows more"
        )
