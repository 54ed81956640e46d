"""Where the time of ``imgsortd sort`` goes, in milliseconds an image.

Run as ``python -m benchmarks.stages SOURCE TARGET …`` it does the real job once with a
clock around its parts, and prints JSON. Reading and decoding happen in threads beside
the model, so theirs are CPU seconds; the others are seconds of the one working thread,
and together make up the whole.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imgsortd import sorting
from imgsortd.adapters import fsops, reading
from imgsortd.adapters.features import build_extractor
from imgsortd.config import Config, ModelConfig
from imgsortd.core.records import Op
from imgsortd.pipeline import BatchReport
from imgsortd.sort_job import SortJob


class Clocks:
    """Seconds by stage, summed over calls and threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds to a stage."""
        with self._lock:
            self.seconds[stage] += seconds

    def timed(
        self, stage: str, function: Callable[..., Any], clock: Callable[[], float]
    ) -> Callable[..., Any]:
        """Return the function with a clock around it."""

        def call(*arguments: Any, **options: Any) -> Any:
            started = clock()
            try:
                return function(*arguments, **options)
            finally:
                self.add(stage, clock() - started)

        return call

    def reported(
        self, stage: str, function: Callable[..., BatchReport]
    ) -> Callable[..., BatchReport]:
        """Return the function with the seconds of its own report counted."""

        def call(*arguments: Any) -> BatchReport:
            report = function(*arguments)
            self.add("model", report.extract_s)
            self.add(stage, report.total_s - report.extract_s)
            return report

        return call


def put_clocks(clocks: Clocks) -> None:
    """Put clocks around the parts of the job, for the rest of this process."""
    reader: Any = reading.PictureReader
    reader.read = clocks.timed("read and decode", reader.read, time.thread_time)
    module: Any = reading
    module.decode = clocks.timed("decode", module.decode, time.thread_time)
    job: Any = sorting
    job.process_batch = clocks.reported("store", job.process_batch)
    job.route_waiting = clocks.reported("move", job.route_waiting)
    job.compute_fit = clocks.timed("fit", job.compute_fit, time.perf_counter)


def stage_table(seconds: Mapping[str, float], total_s: float, images: int) -> dict[str, float]:
    """Return milliseconds an image by stage; ``waiting, listing`` is the rest of the whole."""
    in_line = {stage: seconds.get(stage, 0.0) for stage in ("model", "store", "fit", "move")}
    table = {
        "read and hash, in threads": seconds["read and decode"] - seconds["decode"],
        "decode, in threads": seconds["decode"],
        **in_line,
        "waiting, listing": total_s - sum(in_line.values()),
        "whole": total_s,
    }
    return {stage: 1000 * value / images for stage, value in table.items()}


def run(source: Path, target: Path, n_clusters: int, weights: str) -> dict[str, Any]:
    """Do the job as ``imgsortd sort`` does, with clocks; return plain values for JSON."""
    clocks = Clocks()
    put_clocks(clocks)
    fsops.allow_leases()
    extractor = build_extractor(ModelConfig(weights=weights))
    job = SortJob(source, target, n_clusters, Op.COPY, None, False, 42, False)
    config = Config(inbox=source, target=target, state_dir=target, recursive=False, op=Op.COPY)
    report = sorting.sort_folder(job, config, extractor, lambda *_: None)
    table = stage_table(clocks.seconds, report.total_s, report.found)
    return {"images": report.found, "runs_on": extractor.describe(), "ms_per_image": table}


def main() -> None:
    """Do the job and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("-k", "--clusters", type=int, required=True)
    parser.add_argument("--weights", required=True)
    options = parser.parse_args()
    source, target = options.source.resolve(), options.target.resolve()
    print(json.dumps(run(source, target, options.clusters, options.weights)))


if __name__ == "__main__":
    main()
