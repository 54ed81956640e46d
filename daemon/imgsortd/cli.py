"""The command line: the only place that prints and sets exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from imgsortd import __version__
from imgsortd.config import Config, ModelConfig, Precision, load_config, read_config
from imgsortd.config_text import example_yaml
from imgsortd.core.lifecycle import duration_text
from imgsortd.core.records import Layer, Op
from imgsortd.errors import ConfigError, ImgsortdError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

app = typer.Typer(
    name="imgsortd",
    help="The image inbox that sorts itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(
    help="Fetch VGG16's weights, or show where they are.", no_args_is_help=True
)
service_app = typer.Typer(help="Install imgsortd as a systemd service.", no_args_is_help=True)
app.add_typer(weights_app, name="weights")
app.add_typer(service_app, name="service")

ConfigOption = Annotated[
    Path, typer.Option("-c", "--config", help="The configuration file.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DEFAULT_CONFIG = Path("config.yaml")


def main() -> NoReturn:
    """Run the command line; every error of ours becomes its text and its exit code."""
    try:
        app()
    except ImgsortdError as error:
        for line in str(error).splitlines():
            err.print(Text.assemble(("imgsortd: ", "bold red"), _printable(line)))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _print_json(value: Any) -> None:
    # File names may hold bytes that are not UTF-8 (surrogates): ASCII escapes carry them.
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


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
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the daemon in the foreground, for systemd or a terminal."""
    from imgsortd.daemon import run_daemon

    run_daemon(config)


@app.command()
def sort(
    source: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder with pictures.")
    ],
    target: Annotated[
        Path, typer.Argument(file_okay=False, help="Folder for cluster_0 … cluster_{N-1}.")
    ],
    clusters: Annotated[
        int | None,
        typer.Option(
            "-k",
            "--clusters",
            min=1,
            max=10_000,
            help="Number of clusters N. Default: 100, or one for every ten pictures "
            "where there are fewer than 1,000.",
        ),
    ] = None,
    op: Annotated[Op, typer.Option(help="What is done to each picture.")] = Op.COPY,
    layer: Annotated[Layer, typer.Option(help="Where in VGG16 the features are read.")] = (
        Layer.POOL5
    ),
    weights: Annotated[
        str, typer.Option(help="auto, imagenet1k_v1, or a .pth or .safetensors file.")
    ] = "auto",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the model.")] = (
        Precision.AUTO
    ),
    random_state: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of KMeans.")] = 42,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for features and journal.", show_default="TARGET/.imgsortd"),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Subfolders too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Place no file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sort a folder of pictures into clusters, once.

    A second run carries on where the first stopped, and takes in what is new.
    """
    from imgsortd.adapters import fsops
    from imgsortd.adapters.features import build_extractor
    from imgsortd.sort_job import SortJob
    from imgsortd.sorting import sort_folder

    job = SortJob(
        source.resolve(),
        target.resolve(),
        clusters,
        op,
        state.resolve() if state else None,
        recursive,
        random_state,
        dry_run,
    )
    config = Config.model_validate(
        {
            "inbox": job.source,
            "target": job.target,
            "state_dir": job.state_dir or job.target,
            "recursive": recursive,
            "op": op,
            "model": {"weights": _weights_path(weights), "layer": layer, "precision": precision},
            "clusters": {"random_state": random_state},
        }
    )
    fsops.allow_leases()
    extractor = build_extractor(config.model)
    with _sort_progress(quiet=as_json) as progress:
        report = sort_folder(job, config, extractor, progress)
    if as_json:
        _print_json(report.as_dict())
    else:
        _print_sort_report(report)
    if report.errors:
        raise typer.Exit(1)


def _weights_path(weights: str) -> str:
    return weights if weights in ("auto", "imagenet1k_v1") else str(Path(weights).resolve())


@contextmanager
def _sort_progress(quiet: bool) -> Iterator[Any]:
    """Show progress; Ctrl-C stops after the batch in hand, a second one at once."""
    from imgsortd.sort_job import StoppedError

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=err,
        disable=quiet,
    )
    stopped = False

    def on_interrupt(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        err.print("stopping after this batch; press Ctrl-C again to stop at once")

    tasks: dict[str, tuple[Any, float]] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stopped and done < total:
            raise StoppedError(
                "stopped; what was done is kept, the same command carries on from here"
            )
        if stage not in tasks and total:
            tasks[stage] = (bar.add_task(f"{stage:<8}", total=total, speed=""), time.monotonic())
        if stage in tasks:
            task, started = tasks[stage]
            elapsed_s = time.monotonic() - started
            unit = "files/s" if stage == "folders" else "images/s"
            speed = f"{done / elapsed_s:.1f} {unit}" if done and stage != "fit" else ""
            bar.update(task, completed=done, total=total, speed=speed)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with bar:
            yield show
    except KeyboardInterrupt:
        raise StoppedError("stopped at once; the same command carries on from here") from None
    finally:
        signal.signal(signal.SIGINT, previous)


def _print_sort_report(report: Any) -> None:
    verb = "would be sorted" if report.dry_run else "sorted"
    placed = report.sorted + report.duplicates
    out.print(
        f"{placed:,} pictures {verb} into {report.n_clusters} clusters in "
        f"{duration_text(report.total_s)}"
        + (f", {report.images_per_s:.1f} images/s" if report.images_per_s else "")
    )
    if report.duplicates:
        out.print(f"{report.duplicates:,} of them have the bytes of another one")
    if report.clusters:
        sizes = sorted(report.clusters.values(), reverse=True)
        out.print(f"largest cluster {sizes[0]:,}, smallest {sizes[-1]:,}")
    for item in report.set_aside:
        out.print(_printable(f"set aside: {item['file']}: {item['reason']}"), markup=False)
    for line in report.errors:
        err.print(_printable(f"not sorted: {line}"), markup=False)
    if not report.dry_run:
        out.print(report.target, markup=False)


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
) -> None:
    """Show what the daemon is at; works when it is down, too."""
    from imgsortd.status import read_status, render

    settings = load_config(config)
    if as_json:
        _print_json(read_status(settings).as_dict())
    elif not watch:
        out.print(render(read_status(settings)))
    else:
        with Live(render(read_status(settings)), console=out, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(1)
                    live.update(render(read_status(settings)), refresh=True)
            except KeyboardInterrupt:
                pass


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
    as_json: JsonOption = False,
) -> None:
    """Fit the clusters anew: by the running daemon, or here when none runs."""
    from imgsortd.refitting import refit as fit_anew

    settings = load_config(config)
    with err.status("refit", spinner="dots") as spinner:
        summary = fit_anew(settings, clusters, dry_run, spinner.update)
    if as_json:
        _print_json(summary)
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
    if clusters and clusters != settings.clusters.n_clusters and not dry_run:
        out.print(f"to keep {clusters} clusters, set clusters.n_clusters: {clusters} in {config}")


@app.command("check-config")
def check_config(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check a configuration file, the folders and the weights it names included."""
    from imgsortd.adapters.weights import describe_weights

    settings = load_config(config)
    plan = describe_weights(settings.model.weights)
    if as_json:
        _print_json(settings.model_dump(mode="json"))
        return
    out.print(f"{config}: fine", markup=False)
    if plan.used is None or not plan.used.ready:
        out.print("weights: not here yet; `imgsortd weights fetch` gets them")


@app.command()
def init(
    config: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG,
    inbox: Annotated[Path, typer.Option(help="Where pictures arrive.")] = Path("inbox"),
    target: Annotated[Path, typer.Option(help="Where cluster folders stand.")] = Path("sorted"),
    state_dir: Annotated[Path, typer.Option(help="Where the database lives.")] = Path("state"),
) -> None:
    """Write a commented configuration and make its folders."""
    folders = {
        "inbox": str(inbox.absolute()),
        "target": str(target.absolute()),
        "state_dir": str(state_dir.absolute()),
    }
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        with open(config, "x", encoding="utf-8") as file:
            file.write(example_yaml(Config, folders))
        for folder in folders.values():
            Path(folder).mkdir(
                mode=0o700 if folder == folders["state_dir"] else 0o777, parents=True, exist_ok=True
            )
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename}: is there already and is not overwritten; give another name"
        ) from error
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be made ({error.strerror})") from error
    load_config(config)
    out.print(f"{config}: written; inbox {folders['inbox']}", markup=False)
    out.print(f"start:  imgsortd run -c {config}", markup=False)


@weights_app.command("fetch")
def weights_fetch(
    weights: Annotated[str | None, typer.Option(help="auto, imagenet1k_v1 or a file.")] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Take model.weights from this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Get the weights into the cache, and check them."""
    from imgsortd.adapters.weights import load_weights

    model = load_config(config).model if config else ModelConfig()
    spec = weights or model.weights
    layer = Layer.LOGITS if spec == "imagenet1k_v1" else model.layer
    bar = Progress(
        TextColumn("fetching weights"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
        console=err,
    )
    with bar:
        task = bar.add_task("", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, visible=True)

        loaded = load_weights(spec, layer, on_progress=show)
    if as_json:
        source, path = str(loaded.source), str(loaded.path)
        _print_json({"weights": spec, "source": source, "path": path, "digest": loaded.digest})
        return
    out.print(f"{spec}: from {loaded.source} {loaded.path}", markup=False)
    out.print(f"digest {loaded.digest}")


@weights_app.command("show")
def weights_show(
    weights: Annotated[str | None, typer.Option(help="auto, imagenet1k_v1 or a file.")] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="Take model.weights from this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the weights would come from; nothing is fetched."""
    from imgsortd.adapters.weights import describe_weights

    spec = weights or (load_config(config).model if config else ModelConfig()).weights
    plan = describe_weights(spec)
    places = [
        {"source": str(p.source), "path": str(p.path), "ready": p.ready, "detail": p.detail}
        for p in plan.places
    ]
    if as_json:
        _print_json({"weights": spec, "places": places})
        return
    for place, row in zip(plan.places, places, strict=True):
        mark = "→" if place is plan.used else " "
        out.print(Text.assemble((f"{mark} ", "green"), f"{row['source']:<11}{row['detail']}"))
        if str(row["path"]) not in str(row["detail"]):
            out.print(Text(f"             {row['path']}", style="dim"))


@service_app.command("install")
def service_install(
    config: ConfigOption = DEFAULT_CONFIG,
    user: Annotated[bool, typer.Option("--user", help="For this user only, no root.")] = False,
    cuda: Annotated[bool, typer.Option("--cuda", help="Let the service reach a GPU.")] = False,
    root: Annotated[Path, typer.Option(help="Put this before every path (packaging).")] = Path("/"),
) -> None:
    """Write the systemd unit with the paths of this configuration."""
    from imgsortd.adapters.units import install_units, next_steps

    settings = read_config(config)  # its folders are made by a later step
    executable = Path(sys.executable).parent / "imgsortd"
    written = install_units(
        user=user,
        executable=executable,
        config_file=config.absolute(),
        inbox=settings.inbox,
        target=settings.target,
        state_dir=settings.state_dir,
        environ=os.environ,
        root=root,
        cuda=cuda,
    )
    for path in written:
        out.print(f"written  {path}", markup=False)
    out.print("now type:")
    for line in next_steps(user=user, executable=executable, config_file=config.absolute()):
        out.print(f"  {line}", markup=False)


@service_app.command("uninstall")
def service_uninstall(
    user: Annotated[bool, typer.Option("--user", help="The unit of this user.")] = False,
    root: Annotated[Path, typer.Option(help="Put this before every path (packaging).")] = Path("/"),
) -> None:
    """Remove what `service install` wrote; pictures and state stay."""
    from imgsortd.adapters.units import next_steps_after_uninstall, uninstall_units

    removed = uninstall_units(user=user, environ=os.environ, root=root)
    for path in removed:
        out.print(f"removed  {path}", markup=False)
    if not removed:
        out.print("nothing to remove")
        return
    out.print("now type:")
    for line in next_steps_after_uninstall(user=user):
        out.print(f"  {line}", markup=False)
