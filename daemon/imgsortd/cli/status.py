"""``imgsortd status``: asked often, by people and by scripts, so it imports little."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from imgsortd.cli.terminal import DEFAULT_CONFIG, out, print_json
from imgsortd.config import read_config
from imgsortd.records import Phase
from imgsortd.reports.status import (
    LeftAlone,
    LoggedError,
    StatusReport,
    giant_line,
    proposal_line,
    read_status,
)
from imgsortd.words import duration_text, printable

_CLUSTER_ROWS = 30


def show_status(config: Path, as_json: bool, watch: bool = False) -> None:
    """Print the report once, or again each second until Ctrl-C."""
    settings = read_config(config)  # a folder may be away, and this says so
    if as_json:
        print_json(read_status(settings))
    elif not watch:
        # A person's terminal would break words; what reads from a pipe gets whole lines.
        out.print(render(read_status(settings)), soft_wrap=not out.is_terminal)
    else:
        from rich.live import Live

        with Live(render(read_status(settings)), console=out, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(1)
                    live.update(render(read_status(settings)), refresh=True)
            except KeyboardInterrupt:
                pass


def plain_status(arguments: Sequence[str]) -> tuple[Path, bool] | None:
    """Return (configuration, as JSON) of ``status [-c FILE] [--json]``, None for all else.

    What is not plain, a wrong option among it, is left to the command line's own parser.
    """
    if arguments[:1] != ["status"]:
        return None
    config, as_json, rest = DEFAULT_CONFIG, False, list(arguments[1:])
    while rest:
        option = rest.pop(0)
        if option in ("-c", "--config") and rest and not rest[0].startswith("-"):
            config = Path(rest.pop(0))
        elif option == "--json":
            as_json = True
        else:
            return None
    return config, as_json


def render(report: StatusReport) -> RenderableType:
    """Lay the report out for a terminal."""
    clusters = [_clusters_table(report)] if report.clusters else []
    tables = (_counts_table(report), *clusters)
    return Group(_headline(report), *tables, _fit_lines(report), *_trouble(report))


def _headline(report: StatusReport) -> Text:
    colour = {"running": "green", "not responding": "red"}.get(report.daemon, "yellow")
    text = Text.assemble(("● ", colour), ("imgsortd ", "bold"), (report.daemon, f"bold {colour}"))
    facts = []
    if report.pid is not None:
        facts += [report.phase, f"pid {report.pid or 'not to be seen from here'}"]
    elif report.phase == "never started":
        facts.append("it has never been started: imgsortd run -c …")
    if report.uptime_s is not None:
        facts.append(f"up {duration_text(report.uptime_s)}")
    if report.heartbeat_age_s is not None:
        facts.append(f"heartbeat {duration_text(report.heartbeat_age_s)} ago")
    if report.watching:
        facts.append(report.watching)
    if report.images_per_s:
        facts.append(f"{report.images_per_s:.1f} images/s")
    if facts:
        text.append("  " + " · ".join(facts))
    if report.runs_on:
        text.append(f"\n  model {_model(report)}", style="dim")
    if report.note:
        busy = report.phase == Phase.REEXTRACTING
        text.append(f"\n  {printable(report.note)}", style="yellow" if busy else "red")
    return text


def _model(report: StatusReport) -> str:
    facts = [report.runs_on]
    if report.model_busy is not None:
        facts.append(f"busy {100 * report.model_busy:.0f} % of the last burst")
    if report.int8 is not None:
        state = "on" if report.int8.passed else "off"
        facts.append(
            f"int8 {state}: {100 * report.int8.agreement:.1f} % of "
            f"{report.int8.n_images} pictures keep their cluster"
        )
    return " · ".join(facts)


def _counts_table(report: StatusReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("seen", justify="right", style="bold")
    names = ("sorted", "review", "set_aside", "duplicates", "companions", "undone", "pending")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("queue", justify="right", style="dim")
    counts = [f"{report.counts[name]:,}" for name in ("seen", *names)]
    table.add_row(*counts, f"{report.queue:,}")
    return table


def _clusters_table(report: StatusReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("cluster")
    table.add_column("files", justify="right")
    table.add_column("share", justify="right", style="dim")
    table.add_column("")
    filled = [cluster for cluster in report.clusters if cluster.files]
    by_size = sorted(filled, key=lambda cluster: -cluster.files)
    total = sum(cluster.files for cluster in by_size)
    for cluster in by_size[:_CLUSTER_ROWS]:
        bar = "█" * round(24 * cluster.files / by_size[0].files)
        share = f"{100 * cluster.files / total:.0f} %"
        folder = printable(cluster.folder)
        if cluster.name is not None:
            folder = f"{folder} ({cluster.id})"
        table.add_row(Text(folder), f"{cluster.files:,}", share, Text(bar, style="blue"))
    if rest := by_size[_CLUSTER_ROWS:]:
        files = sum(cluster.files for cluster in rest)
        table.add_row(f"{len(rest)} more", f"{files:,}", "", "")
    if empty := len(report.clusters) - len(by_size):
        table.add_row(f"{empty} empty", "0", "", "", style="dim")
    return table


def _fit_lines(report: StatusReport) -> Text:
    text = Text()
    fit = report.last_fit
    if fit is not None:
        churn = "" if fit.churn is None else f", {100 * fit.churn:.1f} % changed cluster"
        text.append(
            f"last fit {duration_text(fit.age_s)} ago: {fit.n_images:,} pictures in "
            f"{fit.n_clusters} clusters by {fit.algorithm} ({fit.trigger}{churn})\n"
        )
    label = "next refit" if fit is not None else "no fit yet:"
    text.append(f"{label} {report.next_fit}")
    if report.age_text:
        text.append(f"\nlibrary {report.age_text}")
    proposals = [] if report.proposal is None else [proposal_line(report.proposal)]
    for line in [*proposals, *(giant_line(giant) for giant in report.giants)]:
        text.append(f"\n{line}", style="yellow")
    if report.backup is not None:
        age = duration_text(report.backup.age_s)
        text.append(f"\nlast copy of the database {age} ago", style="dim")
    return text


def _trouble(report: StatusReport) -> Iterator[Text]:
    for title, lines in (
        ("waiting for another try", [f"{m.file}: {m.error}" for m in report.open_moves[:5]]),
        ("not read yet", [f"{u.file}: {u.reason}" for u in report.unread]),
        ("left alone in the inbox", [_left_line(left) for left in report.left_alone]),
        ("set aside, newest", [f"{s.file}: {s.reason}" for s in report.set_aside]),
        ("last errors", [_error_line(error) for error in report.errors]),
    ):
        if lines:
            yield Text(title, style="bold yellow")
            yield from (Text(f"  {printable(line)}") for line in lines)


def _left_line(left: LeftAlone) -> str:
    more = " …" if left.count > len(left.files) else ""
    return f"{left.reason}: {left.count:,} ({', '.join(left.files)}{more})"


def _error_line(error: LoggedError) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(error.at))
    return f"{at} {error.event}: {error.detail}"
