"""How near the whole job comes to its model: a bare loop over the engine, and ``sort``, in turns.

Run as ``python -m benchmarks.model_stage SOURCE WORK --rounds N …`` it prints images/s of
both by round. Both are done in this process, with the same engine: the bare loop extracts
pixels that were decoded before, in the batches of the pipeline; the job reads, decodes,
hashes and stores meanwhile.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Part, Unit, figure_of
from benchmarks.processes import run_module
from benchmarks.subject import Subject, add_subject, model_config
from benchmarks.targets import MODEL_SPEED_TARGET
from benchmarks.throughput import Contest, in_turns

# So that the first read and the last transaction count little, as in a folder of thousands.
_BATCHES_AT_LEAST = 4


def measure(
    contest: Contest, subject: Subject, rounds: int, work: Path, say: Callable[[str], None]
) -> Part:
    """Time both in a process of its own."""
    say(f"model stage, {contest.kind}, {subject.name}")
    folder = work / "by-model-stage"
    arguments = ("--rounds", str(rounds), "-k", str(contest.n_clusters), *subject.arguments)
    try:
        values = run_module(
            "benchmarks.model_stage", contest.pictures.folder, folder, *arguments
        ).values
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    part = summarise(f"model stage, {contest.kind}, {subject.name}", values)
    part.notes.append(f"{values['images']} files, from {contest.pictures.origin}")
    return part


def summarise(name: str, values: dict[str, Any]) -> Part:
    """Turn the rates of the rounds into figures; the share is taken within a round."""
    bare, job = values["bare_images_per_s"], values["sort_images_per_s"]
    shares = [of_job / alone for alone, of_job in zip(bare, job, strict=True)]
    figures = [
        figure_of("model stage of sort ÷ bare loop", shares, Unit.SHARE, MODEL_SPEED_TARGET),
        figure_of("  bare loop, prepared pictures", bare, Unit.IMAGES_PER_S),
        figure_of("  features stage of sort", job, Unit.IMAGES_PER_S),
        figure_of("  model busy in it", values["model_busy"], Unit.SHARE),
    ]
    notes = [
        f"ran as {values['runs_on']}, batches of {values['batch_images']}; both in one process, "
        "in turns, with the same engine"
    ]
    return Part(name, figures, notes, values)


def main() -> None:
    """Time both and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_stage")
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("-k", "--clusters", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--batches", type=int, default=_BATCHES_AT_LEAST)
    add_subject(parser)
    options = parser.parse_args()
    print(json.dumps(run(options)))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time both; return plain values."""
    from benchmarks.pictures import gather, picture_paths
    from imgsortd.adapters import leases
    from imgsortd.adapters.features import build_extractor
    from imgsortd.adapters.images import decode
    from imgsortd.adapters.weight_sources import default_cache_dir

    leases.allow_leases()
    extractor = build_extractor(model_config(options), default_cache_dir())
    engine, size = extractor.loaded(), extractor.batch_images
    given, work = options.source.resolve(), options.work.resolve()
    count = max(len(picture_paths(given)), options.batches * size)
    source = gather(given, count, work / "pictures").folder
    pixels = [decode(path.read_bytes()) for path in picture_paths(source)]
    batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]

    def bare_loop() -> None:
        started = time.perf_counter()
        for batch in batches:
            engine.extract(batch)
        rates["bare_images_per_s"].append(len(pixels) / (time.perf_counter() - started))

    def whole_job() -> None:
        report = _sort(source, work / "sorted", options, extractor)
        if report.sorted != len(pixels):
            raise SystemExit(f"expected {len(pixels)} pictures to be sorted, got {report.sorted}")
        rates["sort_images_per_s"].append(report.images_per_s)
        rates["model_busy"].append(report.model_busy)

    rates: dict[str, list[float]] = {
        "bare_images_per_s": [],
        "sort_images_per_s": [],
        "model_busy": [],
    }
    engine.extract(batches[0])  # the first one only warms up
    for number in range(options.rounds):
        for way in in_turns((bare_loop, whole_job), number):
            way()
    return {"runs_on": extractor.describe(), "batch_images": size, "images": len(pixels), **rates}


def _sort(source: Path, target: Path, options: argparse.Namespace, extractor: Any) -> Any:
    """Do the whole job into a fresh folder, as ``imgsortd sort`` does."""
    from imgsortd.config import Config
    from imgsortd.core.records import Op
    from imgsortd.sort_job import SortJob
    from imgsortd.sorting import sort_folder

    job = SortJob(source, target, options.clusters, Op.COPY, None, False, 42, False)
    config = Config(
        inbox=source,
        target=target,
        state_dir=target,
        recursive=False,
        op=Op.COPY,
        model=model_config(options),
    )
    try:
        return sort_folder(job, config, extractor, lambda *_: None)
    finally:
        shutil.rmtree(target)


if __name__ == "__main__":
    main()
