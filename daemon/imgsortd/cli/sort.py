"""``imgsortd sort`` at the terminal: its options, its progress bar, Ctrl-C, its report."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from imgsortd.cli.shared import AdoptOption, JsonOption
from imgsortd.cli.terminal import err, out, print_json
from imgsortd.config import check_model
from imgsortd.config.model import Config
from imgsortd.config.values import Engine, Precision
from imgsortd.records import Backbone, Layer, Op, StageProgress
from imgsortd.words import duration_text, printable

if TYPE_CHECKING:
    from imgsortd.sort import SortReport


def sort(
    source: Annotated[Path, Argument(exists=True, file_okay=False, help="Folder with pictures.")],
    target: Annotated[
        Path, Argument(file_okay=False, help="Folder for cluster_0 … cluster_{N-1}.")
    ],
    clusters: Annotated[
        int | None,
        Option(
            "-k",
            "--clusters",
            min=1,
            max=10_000,
            help="Number of clusters N. Default: 100, or one for every ten pictures "
            "where there are fewer than 1,000.",
        ),
    ] = None,
    op: Annotated[Op, Option(help="What is done to each picture.")] = Op.COPY,
    backbone: Annotated[
        Backbone, Option(help="The network; efficientnet_lite0 is many times faster.")
    ] = Backbone.VGG16,
    engine: Annotated[Engine, Option(help="What computes it.")] = Engine.TORCH,
    layer: Annotated[Layer, Option(help="Where in the network the features are read.")] = (
        Layer.POOL5
    ),
    weights: Annotated[
        str, Option(help="auto, imagenet1k_v1, or a .pth or .safetensors file.")
    ] = "auto",
    precision: Annotated[Precision, Option(help="Arithmetic of the model.")] = Precision.AUTO,
    random_state: Annotated[int, Option(min=0, max=2**32 - 1, help="Seed of KMeans.")] = 42,
    state: Annotated[
        Path | None,
        Option(help="Folder for features and journal.", show_default="TARGET/.imgsortd"),
    ] = None,
    recursive: Annotated[bool, Option("--recursive", help="Subfolders too.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Place no file.")] = False,
    adopt: AdoptOption = False,
    as_json: JsonOption = False,
) -> None:
    """Sort a folder of pictures into clusters, once.

    A second run carries on where the first stopped, and takes in what is new.
    """
    from imgsortd.networks.building import build_extractor
    from imgsortd.networks.sources import default_cache_dir
    from imgsortd.sort import SortJob, sort_folder
    from imgsortd.system import filesystem

    source, target, state = source.resolve(), target.resolve(), state.resolve() if state else None
    job = SortJob(source, target, clusters, op, state, recursive, random_state, dry_run, adopt)
    if weights not in ("auto", "imagenet1k_v1"):
        weights = str(Path(weights).resolve())
    config = Config.model_validate(
        {
            "inbox": source,
            "target": target,
            "state_dir": state or target,
            "recursive": recursive,
            "op": op,
            "model": {
                "backbone": backbone,
                "engine": engine,
                "weights": weights,
                "layer": layer,
                "precision": precision,
            },
            "clusters": {"random_state": random_state},
        }
    )
    check_model(config.model, "sort")
    filesystem.allow_leases()
    extractor = build_extractor(config.model, default_cache_dir())
    with _sort_progress(quiet=as_json) as progress:
        report = sort_folder(job, config, extractor, progress)
    if as_json:
        print_json(report)
    else:
        _print_sort_report(report)
    if report.errors:
        raise typer.Exit(1)


@contextmanager
def _sort_progress(quiet: bool) -> Iterator[StageProgress]:
    """Show progress; Ctrl-C stops after the batch in hand, a second one at once."""
    from rich import progress as rich

    from imgsortd.sort import StoppedError

    name, speed = rich.TextColumn("{task.description}"), rich.TextColumn("{task.fields[speed]}")
    count, left = rich.MofNCompleteColumn(), rich.TimeRemainingColumn()
    bar = rich.Progress(name, rich.BarColumn(), count, speed, left, console=err, disable=quiet)
    stopped = False

    def on_interrupt(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        err.print("stopping after this batch; press Ctrl-C again to stop at once")

    tasks: dict[str, tuple[rich.TaskID, float]] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stopped and done < total:
            kept = "what was done is kept, the same command carries on from here"
            raise StoppedError(f"stopped; {kept}")
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


def _print_sort_report(report: SortReport) -> None:
    verb = "would be sorted" if report.dry_run else "sorted"
    placed = report.sorted + report.duplicates
    out.print(
        f"{placed:,} pictures {verb} into {report.n_clusters} clusters in "
        f"{duration_text(report.total_s)}"
        + (f", {report.images_per_s:.1f} images/s" if report.images_per_s else "")
    )
    if report.int8 is not None:
        verb = "computed in" if report.int8["passed"] else "not computed in"
        out.print(
            f"{verb} int8: {100 * report.int8['agreement']:.1f} % of "
            f"{report.int8['n_images']} pictures keep their cluster"
        )
    if report.duplicates:
        out.print(f"{report.duplicates:,} of them have the bytes of another one")
    if report.companions:
        out.print(f"{report.companions:,} companions came along: raw files, sidecars, films")
    if report.clusters:
        sizes = sorted(report.clusters.values(), reverse=True)
        out.print(f"largest cluster {sizes[0]:,}, smallest {sizes[-1]:,}")
    for item in report.set_aside:
        out.print(printable(f"set aside: {item['file']}: {item['reason']}"), markup=False)
    for line in report.errors:
        err.print(printable(f"not sorted: {line}"), markup=False)
    if not report.dry_run:
        out.print(report.target, markup=False)
