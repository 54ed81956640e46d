"""``imgsortd sort`` at the terminal: its options, its progress bar, Ctrl-C, its report."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from imgsortd.cli_options import JsonOption
from imgsortd.config import Config, Engine, Precision, check_model
from imgsortd.core.lifecycle import duration_text
from imgsortd.core.records import Backbone, Layer, Op
from imgsortd.terminal import err, out, print_json, printable


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
    backbone: Annotated[
        Backbone, typer.Option(help="The network; efficientnet_lite0 is many times faster.")
    ] = Backbone.VGG16,
    engine: Annotated[Engine, typer.Option(help="What computes it.")] = Engine.TORCH,
    layer: Annotated[Layer, typer.Option(help="Where in the network the features are read.")] = (
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
    from imgsortd.adapters import leases
    from imgsortd.adapters.features import build_extractor
    from imgsortd.adapters.weight_sources import default_cache_dir
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
            "model": {
                "backbone": backbone,
                "engine": engine,
                "weights": _weights_path(weights),
                "layer": layer,
                "precision": precision,
            },
            "clusters": {"random_state": random_state},
        }
    )
    check_model(config.model, "sort")
    leases.allow_leases()
    extractor = build_extractor(config.model, default_cache_dir())
    with _sort_progress(quiet=as_json) as progress:
        report = sort_folder(job, config, extractor, progress)
    if as_json:
        print_json(report.as_dict())
    else:
        _print_sort_report(report)
    if report.errors:
        raise typer.Exit(1)


def _weights_path(weights: str) -> str:
    return weights if weights in ("auto", "imagenet1k_v1") else str(Path(weights).resolve())


@contextmanager
def _sort_progress(quiet: bool) -> Iterator[Any]:
    """Show progress; Ctrl-C stops after the batch in hand, a second one at once."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

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
