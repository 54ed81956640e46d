"""``python -m benchmarks``: measure, print a table with the targets, write JSON."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from rich.console import Console

from benchmarks import ceiling, latency, memory, quality, refit, throughput
from benchmarks.figures import Part
from benchmarks.latency import Drops
from benchmarks.machine import describe_machine
from benchmarks.options import Section, parse_options, plain
from benchmarks.pictures import PictureSet, gather, make_camera_files, make_photographs
from benchmarks.processes import ROOT, run_module
from benchmarks.report import WIDTH, render, write_json
from benchmarks.targets import Kind
from benchmarks.throughput import Contest

# A file has no width of its own.
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
notes = Console(stderr=True, highlight=False, soft_wrap=True, style="dim")


def say(line: str) -> None:
    """Tell what is being measured now."""
    notes.print(line, markup=False)


def run(options: argparse.Namespace, work: Path) -> list[Part]:
    """Measure the chosen parts, one after another, with nothing beside them."""
    parts: dict[Section, Callable[[argparse.Namespace, Path], list[Part]]] = {
        Section.THROUGHPUT: _throughput,
        Section.LATENCY: _latency,
        Section.MEMORY: _memory,
        Section.REFIT: lambda o, w: [refit.measure(o.refit_sizes, w, say)],
        Section.QUALITY: _quality,
    }
    return [part for section in options.sections for part in parts[section](options, work)]


def _photographs(options: argparse.Namespace, images: int, folder: Path) -> PictureSet:
    say(f"{Kind.PHOTOS}: {images} files")
    if options.photos:
        return gather(options.photos, images, folder)
    return make_photographs(images, folder)


def _camera_files(options: argparse.Namespace, images: int, folder: Path) -> PictureSet:
    say(f"{Kind.CAMERAS}: {images} files")
    if options.cameras:
        return gather(options.cameras, images, folder)
    return make_camera_files(images, folder)


def _throughput(options: argparse.Namespace, work: Path) -> list[Part]:
    photographs = _photographs(options, options.images, work / "photographs")
    cameras = _camera_files(options, options.images // 2, work / "cameras")
    given = options.article_weights
    full = given or work / "random-vgg16.pth"
    if given is None:
        run_module("benchmarks.random_weights", full)
    subjects, rounds = options.subjects, options.rounds
    parts = []
    for contest in (Contest(Kind.PHOTOS, photographs), Contest(Kind.CAMERAS, cameras)):
        parts += throughput.measure(contest, subjects, full, rounds, work, say)
    for subject in subjects:
        parts.append(ceiling.measure(photographs.folder, subject, full, rounds, say))
    if given is None:
        parts[-1].notes.append(
            "the article's script ran with seeded random weights: for time the values do not matter"
        )
    return parts


def _latency(options: argparse.Namespace, work: Path) -> list[Part]:
    first = max(latency.N_CLUSTERS, options.images // 2)
    drops = Drops(first, options.drops, options.burst, options.rest)
    pictures = _photographs(options, drops.images, work / "drops")
    return [latency.measure(pictures, drops, subject, work, say) for subject in options.subjects]


def _memory(options: argparse.Namespace, work: Path) -> list[Part]:
    pictures = _photographs(options, options.images + 1, work / "burst")
    starts, rest_s = options.rounds, options.rest
    return [
        memory.measure(pictures, starts, rest_s, subject, work, say) for subject in options.subjects
    ]


def _quality(options: argparse.Namespace, work: Path) -> list[Part]:
    if options.labelled is None:
        return [Part("quality", notes=["skipped: give --labelled DIR with one folder a class"])]
    full = options.article_weights
    return quality.measure(options.labelled, options.subjects, full, work, say)


def main() -> None:
    """Measure and report."""
    # Stopped from outside it must still end its daemon and clear its work folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    options = parse_options()
    machine = describe_machine()
    # On a disk as a person's pictures are, not in /tmp, which is often memory.
    parent = (options.work or ROOT / "build").resolve()
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as work:
        parts = run(options, Path(work))
    console.print(render(parts, machine))
    path = options.json or Path(f"bench-{datetime.now():%Y%m%d-%H%M%S}.json")
    write_json(path, parts, machine, plain(options))
    console.print(f"written  {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
