"""The command line: the only place that prints and sets exit codes.

``sort`` and the set-up commands have modules of their own, :mod:`imgsortd.cli_sort`
and :mod:`imgsortd.cli_setup`.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from imgsortd import __version__
from imgsortd.cli_clusters import suggest_k
from imgsortd.cli_doctor import doctor
from imgsortd.cli_duplicates import duplicates
from imgsortd.cli_find import explain, similar
from imgsortd.cli_hands import pins, rename, unpin
from imgsortd.cli_names import names
from imgsortd.cli_options import ConfigOption, JsonOption
from imgsortd.cli_refits import refits_app, rollback
from imgsortd.cli_setup import init, service_app, weights_app
from imgsortd.cli_sheet import sheet
from imgsortd.cli_sort import sort
from imgsortd.cli_undo import undo
from imgsortd.cli_web import web
from imgsortd.config import load_config
from imgsortd.terminal import DEFAULT_CONFIG, err, out, print_json, run_to_exit

app = typer.Typer(
    name="imgsortd",
    help="The image inbox that sorts itself.",
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
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """The image inbox that sorts itself."""


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    once: Annotated[
        bool, typer.Option("--once", help="Sort what is in the inbox now, then exit: for cron.")
    ] = False,
) -> None:
    """Run the daemon in the foreground, for systemd or a terminal."""
    from imgsortd.daemon import run_daemon

    run_daemon(config, once=once)


app.command()(sort)


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
) -> None:
    """Show what the daemon is at; works when it is down, too."""
    from imgsortd.cli_status import show_status

    show_status(config, as_json, watch)


@app.command()
def refit(
    config: ConfigOption = DEFAULT_CONFIG,
    clusters: Annotated[
        int | None,
        typer.Option(
            "-k", "--clusters", min=1, max=10_000, help="Number of clusters, for this fit only."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Fit and report, change nothing.")
    ] = False,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept", help="Put it in force even above refit.max_churn; files follow it."
        ),
    ] = False,
    keep_files: Annotated[
        bool, typer.Option("--keep-files", help="Files stay where they stand.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit the clusters anew: by the running daemon, or here when none runs.

    A fit that gives more than refit.max_churn of the pictures another cluster waits as a
    proposal (imgsortd refits), unless --accept is given.
    """
    from imgsortd.refitting import refit as fit_anew

    settings = load_config(config)
    with err.status("refit", spinner="dots") as spinner:
        summary = fit_anew(
            settings, clusters, dry_run, spinner.update, accept=accept, keep_files=keep_files
        )
    if as_json:
        print_json(summary)
        return
    changed = "" if summary["churn"] is None else f", {100 * summary['churn']:.1f} % change cluster"
    verb = "would fit" if dry_run else "fitted"
    out.print(
        f"{verb} {summary['n_images']:,} pictures in {summary['n_clusters']} clusters by "
        f"{summary['algorithm']} in {summary['fit_s']:.1f} s{changed}"
    )
    for title, ids in (("new", summary["new_ids"]), ("retired", summary["retired_ids"])):
        if ids and summary["churn"] is not None:
            out.print(f"{title}: {', '.join(f'cluster_{number}' for number in ids)}")
    if summary["moved"]:
        out.print(
            f"{summary['moved']:,} files moved along; to take it back: imgsortd rollback, or "
            f"imgsortd undo --batch {summary['batch']}"
        )
    if summary["state"] == "proposed":
        out.print(
            f"this is above refit.max_churn ({summary['max_churn']:g}), so it waits as proposal "
            f"{summary['fit_id']}; what it changes: imgsortd refits show {summary['fit_id']}; "
            f"then imgsortd refits accept or imgsortd refits reject"
        )
    elif clusters and clusters != settings.clusters.n_clusters and not dry_run:
        out.print(f"to keep {clusters} clusters, set clusters.n_clusters: {clusters} in {config}")


@app.command("check-config")
def check_config(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check a configuration file, the folders and the weights it names included."""
    from imgsortd.adapters.extras import require_extras
    from imgsortd.adapters.weight_sources import describe_model_weights

    settings = load_config(config)
    require_extras(settings.model)
    plan = describe_model_weights(settings.model.backbone, settings.model.weights)
    if as_json:
        print_json(settings.model_dump(mode="json"))
        return
    out.print(f"{config}: fine", markup=False)
    if plan.used is None or not plan.used.ready:
        out.print("weights: not here yet; `imgsortd weights fetch` gets them")


app.command()(undo)
app.command()(rename)
app.command()(pins)
app.command()(unpin)
app.command()(rollback)
app.command()(sheet)
app.command("suggest-k")(suggest_k)
app.command()(names)
app.command()(similar)
app.command()(explain)
app.command()(duplicates)
app.command()(web)
app.command()(doctor)
app.command()(init)
