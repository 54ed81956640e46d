"""The command line: the only place that prints and sets exit codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NoReturn

import typer
from typer import Option

from imgsortd import __version__
from imgsortd.cli.clusters import names, pins, rename, suggest_k, unpin
from imgsortd.cli.doctor import doctor
from imgsortd.cli.find import duplicates, explain, sheet, similar
from imgsortd.cli.refits import refits_app, rollback
from imgsortd.cli.setup import init, service_app, weights_app
from imgsortd.cli.shared import AdoptOption, ConfigOption, JsonOption, spinning
from imgsortd.cli.sort import sort
from imgsortd.cli.terminal import DEFAULT_CONFIG, out, print_json, run_to_exit
from imgsortd.cli.undo import undo
from imgsortd.cli.web import web
from imgsortd.config import load_config

app = typer.Typer(
    name="imgsortd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(weights_app, name="weights")
app.add_typer(service_app, name="service")
app.add_typer(refits_app, name="refits")


def main() -> NoReturn:
    """Run the command line; every error of ours becomes its text and its exit code."""
    run_to_exit(app)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"imgsortd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The image inbox that sorts itself."""


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[
        bool, Option("--once", help="Sort what is in the inbox now, then exit: for cron.")
    ] = False,
    adopt: AdoptOption = False,
) -> None:
    """Run the daemon in the foreground, for systemd or a terminal."""
    from imgsortd.daemon.process import run_daemon

    run_daemon(config, once=once, adopt=adopt)


app.command()(sort)


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    watch: Annotated[bool, Option("--watch", help="Refresh until Ctrl-C.")] = False,
) -> None:
    """Show what the daemon is at; works when it is down, too."""
    from imgsortd.cli.status import show_status

    show_status(config, as_json, watch)


@app.command()
def refit(
    config: ConfigOption = DEFAULT_CONFIG,
    clusters: Annotated[
        int | None,
        Option(
            "-k", "--clusters", min=1, max=10_000, help="Number of clusters, for this fit only."
        ),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Fit and report, change nothing.")] = False,
    accept: Annotated[
        bool,
        Option("--accept", help="Put it in force even above refit.max_churn; files follow it."),
    ] = False,
    keep_files: Annotated[
        bool, Option("--keep-files", help="Files stay where they stand.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit the clusters anew: by the running daemon, or here when none runs.

    A fit that gives more than refit.max_churn of the pictures another cluster waits as a
    proposal (imgsortd refits), unless --accept is given.
    """
    from imgsortd.daemon.here import refit as fit_anew

    settings = load_config(config)
    with spinning("refit") as tell:
        summary = fit_anew(settings, clusters, dry_run, tell, accept=accept, keep_files=keep_files)
    if as_json:
        print_json(summary)
        return
    churn, number = summary["churn"], summary["fit_id"]
    changed = "" if churn is None else f", {100 * churn:.1f} % change cluster"
    verb = "would fit" if dry_run else "fitted"
    out.print(
        f"{verb} {summary['n_images']:,} pictures in {summary['n_clusters']} clusters by "
        f"{summary['algorithm']} in {summary['fit_s']:.1f} s{changed}"
    )
    for title, ids in (("new", summary["new_ids"]), ("retired", summary["retired_ids"])):
        if ids and churn is not None:
            out.print(f"{title}: {', '.join(f'cluster_{cluster}' for cluster in ids)}")
    if summary["moved"]:
        back = f"imgsortd rollback, or imgsortd undo --batch {summary['batch']}"
        out.print(f"{summary['moved']:,} files moved along; to take it back: {back}")
    if summary["state"] == "proposed":
        out.print(
            f"this is above refit.max_churn ({summary['max_churn']:g}), so it waits as proposal "
            f"{number}; what it changes: imgsortd refits show {number}; "
            f"then imgsortd refits accept or imgsortd refits reject"
        )
    elif clusters and clusters != settings.clusters.n_clusters and not dry_run:
        out.print(f"to keep {clusters} clusters, set clusters.n_clusters: {clusters} in {config}")


@app.command()
def check_config(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check a configuration file, the folders and the weights it names included."""
    from imgsortd.config.extras import require_extras
    from imgsortd.networks.sources import describe_model_weights, first_ready

    settings = load_config(config)
    require_extras(settings.model)
    source = first_ready(describe_model_weights(settings.model.backbone, settings.model.weights))
    if as_json:
        print_json(settings.model_dump(mode="json"))
        return
    out.print(f"{config}: fine", markup=False)
    if source is None:
        out.print("weights: not here yet; `imgsortd weights fetch` gets them")


_REST: tuple[Callable[..., None], ...] = (
    *(undo, rename, pins, unpin, rollback, sheet, suggest_k, names, similar, explain),
    *(duplicates, web, doctor, init),
)
for _command in _REST:
    app.command()(_command)
