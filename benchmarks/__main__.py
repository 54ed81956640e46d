"""``python -m benchmarks``: measure, print a table with the targets, write JSON."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import latency, memory, quality, throughput
from benchmarks.machine import describe_machine
from benchmarks.pictures import PictureSet, gather, make_camera_files, make_photographs
from benchmarks.processes import ROOT, run_module
from benchmarks.report import CAMERAS_TARGET, PHOTOS_TARGET, Part, render, write_json
from benchmarks.throughput import Contest, Weights

# A file has no width to fold the table to.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
notes = Console(stderr=True, highlight=False, soft_wrap=True, style="dim")


class Section(StrEnum):
    """What ``--only`` chooses from."""

    THROUGHPUT = "throughput"
    LATENCY = "latency"
    MEMORY = "memory"
    QUALITY = "quality"


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure against the article's script and the targets.",
    )
    add = parser.add_argument
    add(
        "--photos",
        type=Path,
        metavar="DIR",
        help="500-px photographs; made from scikit-image's if not given",
    )
    add(
        "--cameras",
        type=Path,
        metavar="DIR",
        help="camera JPEGs of 8-12 megapixels; made if not given",
    )
    add("--labelled", type=Path, metavar="DIR", help="class folders, for quality")
    add("--images", type=int, default=96, help="photographs; half as many camera files")
    add("--rounds", type=int, default=3, help="times that each of the two does each job")
    add("--drops", type=int, default=20, help="single files dropped for the latency")
    add("--rest", type=float, default=45, metavar="S", help="seconds until the daemon is at rest")
    add("--weights", default="auto", help="imgsortd's model.weights")
    add(
        "--article-weights",
        type=Path,
        metavar="PTH",
        help="vgg16-397923af.pth for the article's script; random if not given",
    )
    add("--only", type=Section, choices=list(Section), help="one part")
    add("--work", type=Path, metavar="DIR", help="where the work is done; default: build/")
    add("--json", type=Path, metavar="FILE", help="default: bench-DATE.json")
    options = parser.parse_args()
    if options.images < 8 or options.rounds < 1 or options.drops < 1:
        parser.error("--images must be 8 or more, --rounds and --drops 1 or more")
    return options


def run(options: argparse.Namespace, work: Path) -> list[Part]:
    """Measure the chosen parts, one after another, with nothing beside them."""

    def say(line: str) -> None:
        notes.print(line, markup=False)

    drops = options.drops + latency.rested_drops(options.drops)
    parts: dict[Section, Callable[[], Part]] = {
        Section.THROUGHPUT: lambda: _throughput(options, work, say),
        Section.LATENCY: lambda: latency.measure(
            _photographs(options, options.images // 2 + drops, work / "drops"),
            options.drops,
            options.rest,
            options.weights,
            work,
            say,
        ),
        Section.MEMORY: lambda: memory.measure(
            _photographs(options, options.images + 1, work / "burst"),
            options.rest,
            options.weights,
            work,
            say,
        ),
        Section.QUALITY: lambda: _quality(options, work, say),
    }
    chosen = [options.only] if options.only else list(parts)
    return [parts[section]() for section in chosen]


def _photographs(options: argparse.Namespace, images: int, folder: Path) -> PictureSet:
    if options.photos:
        return gather(options.photos, images, folder)
    return make_photographs(images, folder)


def _camera_files(options: argparse.Namespace, images: int, folder: Path) -> PictureSet:
    if options.cameras:
        return gather(options.cameras, images, folder)
    return make_camera_files(images, folder)


def _throughput(options: argparse.Namespace, work: Path, say: Callable[[str], None]) -> Part:
    say("making the pictures")
    photographs = _photographs(options, options.images, work / "photographs")
    cameras = _camera_files(options, options.images // 2, work / "cameras")
    contests = [
        Contest("500-px photographs", photographs, PHOTOS_TARGET),
        Contest("camera JPEGs", cameras, CAMERAS_TARGET),
    ]
    given = options.article_weights
    full = given or work / "random-vgg16.pth"
    if given is None:
        run_module("benchmarks.random_weights", full)
    weights = Weights(full, options.weights)
    part = throughput.measure(contests, weights, options.rounds, work, say)
    if given is None:
        part.notes.append(
            "the article's script ran with seeded random weights: for time the values do not matter"
        )
    return part


def _quality(options: argparse.Namespace, work: Path, say: Callable[[str], None]) -> Part:
    if options.labelled is None:
        return Part("quality", notes=["skipped: give --labelled DIR with one folder a class"])
    weights, full = options.weights, options.article_weights
    return quality.measure(options.labelled, weights, full, work, say)


def main() -> None:
    """Measure and report."""
    # Stopped from outside it must still end its daemon and clear its work folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    options = parse_options()
    machine = describe_machine()
    # On a disk as a person's pictures are, not in /tmp, which is often memory.
    parent = options.work or ROOT / "build"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as work:
        parts = run(options, Path(work))
    console.print(render(parts, machine))
    path = options.json or Path(f"bench-{datetime.now():%Y%m%d-%H%M%S}.json")
    write_json(path, parts, machine, _plain(options))
    console.print(f"written  {path}", markup=False)


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, (Path, Section)) else value
        for name, value in vars(options).items()
    }


if __name__ == "__main__":
    main()
