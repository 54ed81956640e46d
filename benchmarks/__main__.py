"""``python -m benchmarks``: measure, print a table with the targets, write JSON."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console

from benchmarks import ceiling, latency, memory, model_stage, quality, refit, throughput
from benchmarks.figures import Part
from benchmarks.latency import Drops
from benchmarks.machine import describe_machine
from benchmarks.options import Section, parse_options, plain
from benchmarks.pictures import PictureSet, gather, make_camera_files, make_photographs
from benchmarks.prepare import prepare, use_cache
from benchmarks.processes import ROOT, run_module
from benchmarks.report import WIDTH, render, write_json
from benchmarks.targets import Kind
from benchmarks.throughput import Contest
from imgsortd.adapters.weight_sources import default_cache_dir

# A file has no width of its own.
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
_RANDOM = "the article's script ran with seeded random weights: for time the values do not matter"
notes = Console(stderr=True, highlight=False, soft_wrap=True, style="dim")


def say(line: str) -> None:
    """Tell what is being measured now."""
    notes.print(line, markup=False)


def run(options: argparse.Namespace, work: Path) -> list[Part]:
    """Measure the chosen parts, one after another, with nothing beside them."""
    found: list[Part] = []
    if set(options.sections) != {Section.REFIT}:
        trial = work / "trial"
        ready = prepare(
            options.subjects, options.photos, lambda n: _photographs(options, n, trial), say
        )
        options.subjects, found = ready.subjects, ready.parts
    compared = {Section.THROUGHPUT, Section.MODEL} & set(options.sections)
    contests = _contests(options, work) if compared and options.subjects else []
    measure: dict[Section, Callable[[], list[Part]]] = {
        Section.PREPARE: list,  # done above, whatever else is measured
        Section.THROUGHPUT: lambda: _throughput(options, contests, work),
        Section.MODEL: lambda: _model(options, contests, work),
        Section.LATENCY: lambda: _latency(options, work),
        Section.MEMORY: lambda: _memory(options, work),
        Section.REFIT: lambda: [refit.measure(options.refit_sizes, work, say)],
        Section.QUALITY: lambda: _quality(options, work),
    }
    return found + [part for section in options.sections for part in measure[section]()]


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


def _contests(options: argparse.Namespace, work: Path) -> list[Contest]:
    """Gather the pictures of each kind."""
    ways = {
        Kind.PHOTOS: (_photographs, options.images, work / "photographs"),
        Kind.CAMERAS: (_camera_files, options.images // 2, work / "cameras"),
    }
    contests = []
    for kind in options.kinds:
        make, images, folder = ways[kind]
        contests.append(Contest(kind, make(options, images, folder)))
    return contests


def _article_weights(options: argparse.Namespace) -> Path:
    """Return the weights given for the article's script, else random ones, made once."""
    if options.article_weights is not None:
        return Path(options.article_weights)
    full = default_cache_dir() / "random-vgg16.pth"
    if not full.exists():
        part = full.with_suffix(".part")
        run_module("benchmarks.random_weights", part)
        part.replace(full)
    return full


def _throughput(options: argparse.Namespace, contests: Sequence[Contest], work: Path) -> list[Part]:
    full, rounds = _article_weights(options), options.rounds
    parts: list[Part] = []
    for contest in contests:
        parts += throughput.measure(contest, options.subjects, full, rounds, work, say)
    if parts and options.article_weights is None:
        parts[-1].notes.append(_RANDOM)
    return parts


def _model(options: argparse.Namespace, contests: Sequence[Contest], work: Path) -> list[Part]:
    full, rounds = _article_weights(options), options.rounds
    parts = []
    for subject in options.subjects:
        parts += [model_stage.measure(contest, subject, rounds, work, say) for contest in contests]
        parts.append(ceiling.measure(contests[0].pictures.folder, subject, full, rounds, say))
    if parts and options.article_weights is None:
        parts[-1].notes.append(_RANDOM)
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
    use_cache(parent / "cache")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as work:
        parts = run(options, Path(work))
    console.print(render(parts, machine))
    path = options.json or Path(f"bench-{datetime.now():%Y%m%d-%H%M%S}.json")
    write_json(path, parts, machine, plain(options))
    console.print(f"written  {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
