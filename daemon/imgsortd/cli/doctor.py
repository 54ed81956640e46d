"""``imgsortd doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text
from typer import Option

from imgsortd.cli.shared import AdoptOption, ConfigOption, JsonOption
from imgsortd.cli.terminal import DEFAULT_CONFIG, err, out, print_json
from imgsortd.config import load_config, read_config
from imgsortd.words import printable

# other commands need not load what this one does
if TYPE_CHECKING:
    from imgsortd.doctor import Finding

_MARKS = {"fine": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✗", "bold red")}


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    mend: Annotated[
        bool, Option("--repair", help="Mend what can be mended; no picture is touched.")
    ] = False,
    deep: Annotated[
        bool,
        Option(
            "--deep", help="Read every sorted file and compare its bytes; the disk sets the pace."
        ),
    ] = False,
    adopt: AdoptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check folders, store, weights, limits and clock: one line each, fine or what to do.

    Sorted files are read where size or times hint at a change; --deep reads them all.
    """
    from imgsortd.doctor import examine, repair

    if adopt and not mend:
        raise typer.BadParameter("--adopt goes with --repair")
    settings = (load_config if mend else read_config)(config)  # a folder may be away
    findings = []
    with err.status("doctor", spinner="dots") as spinner:

        def show(done: int, total: int) -> None:
            spinner.update(f"doctor: {done:,} of {total:,} files read")

        done = repair(settings, deep=deep, adopt=adopt, progress=show) if mend else []
        for finding in examine(settings, deep=deep, progress=show):
            findings.append(finding)
            if not as_json:
                out.print(_line(finding))
    if as_json:
        print_json({"repaired": done, "findings": findings})
    for text in [] if as_json else done:
        out.print(Text.assemble(("repaired: ", "bold"), printable(text)))
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


def _line(finding: Finding) -> Text:
    mark, style = _MARKS[finding.verdict]
    return Text.assemble(
        (f"{mark} ", style), (f"{finding.what:<12}", "bold"), printable(finding.text)
    )
