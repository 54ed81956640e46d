"""``imgsortd doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.config import load_config
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json, printable

if TYPE_CHECKING:  # other commands need not load what this one does
    from imgsortd.checkups import Finding

_MARKS = {"fine": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✗", "bold red")}


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    mend: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended; no picture is touched.")
    ] = False,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Read every sorted file and compare its bytes; the disk sets the pace."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check folders, store, weights, limits and clock: one line each, fine or what to do.

    Sorted files are read where size or times hint at a change; --deep reads them all.
    """
    from imgsortd.doctoring import examine, repair

    settings = load_config(config)
    findings = []
    with err.status("doctor", spinner="dots") as spinner:

        def show(done: int, total: int) -> None:
            spinner.update(f"doctor: {done:,} of {total:,} files read")

        done = repair(settings, deep=deep, progress=show) if mend else []
        for finding in examine(settings, deep=deep, progress=show):
            findings.append(finding)
            if not as_json:
                out.print(_line(finding))
    if as_json:
        print_json({"repaired": done, "findings": [finding.as_dict() for finding in findings]})
    for text in [] if as_json else done:
        out.print(Text.assemble(("repaired: ", "bold"), printable(text)))
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


def _line(finding: Finding) -> Text:
    mark, style = _MARKS[finding.verdict]
    return Text.assemble(
        (f"{mark} ", style), (f"{finding.what:<12}", "bold"), printable(finding.text)
    )
