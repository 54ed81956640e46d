"""A refit of very many stored features: seconds, memory; and what ``status`` takes with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Part, Unit, figure_of
from benchmarks.processes import environ, run_module
from benchmarks.running import write_config
from benchmarks.targets import PROMISED_FEATURES, REFIT_PEAK_TARGET, STATUS_TARGET

# The article's number of clusters.
N_CLUSTERS = 100
_STATUS_ROUNDS = 5
_MB = 1e6


def measure(sizes: Sequence[int], work: Path, say: Callable[[str], None]) -> Part:
    """Fill a store of each size, refit it in a process of its own, and ask for its status."""
    part = Part("refit")
    for images in sizes:
        folder = work / f"refit-{images}"
        clusters = {"n_clusters": N_CLUSTERS, "min_images": N_CLUSTERS}
        config_file = write_config(folder, clusters=clusters)
        say(f"refit: writing {images:,} features")
        filled = run_module("benchmarks.synthetic", config_file, "-n", str(images)).values
        say(f"refit: {images:,} features")
        values = run_module("benchmarks.refit_alone", config_file).values
        say(f"status: {images:,} files")
        status_s, start_s = _time_status(config_file)
        shutil.rmtree(folder)  # a million features are gigabytes
        values |= {"store": filled, "status_s": status_s, "program_start_s": start_s}
        part.figures += size_figures(images, values)
        part.raw[str(images)] = values
    part.notes = [
        f"synthetic features: unit vectors of 512 around 300 centers, k={N_CLUSTERS}; each size "
        "in a process of its own, torch loaded, no weights",
        "peak: the greatest RSS of that process; the fit's: that without what was there before",
        "status: the whole command, the start of Python in it; MB = 10⁶ bytes",
    ]
    return part


def size_figures(images: int, values: dict[str, Any]) -> list[Figure]:
    """Turn one size's numbers into figures; the promises are for a million and more."""
    promised = images >= PROMISED_FEATURES
    peak_mb, fit_mb = values["peak_bytes"] / _MB, values["fit_bytes"] / _MB
    return [
        Figure(f"{images:,} features, {values['algorithm']}", values["refit_s"], Unit.SECONDS),
        Figure(
            "  peak memory",
            peak_mb,
            Unit.MEGABYTES,
            target=REFIT_PEAK_TARGET if promised else None,
        ),
        Figure("  of it the fit's", fit_mb, Unit.MEGABYTES),
        figure_of(
            "  status", values["status_s"], Unit.SECONDS, STATUS_TARGET if promised else None
        ),
        figure_of("    of it Python and the program", values["program_start_s"], Unit.SECONDS),
    ]


def _time_status(config_file: Path) -> tuple[list[float], list[float]]:
    """Time ``imgsortd status`` and, in turns with it, a command that reads no store."""
    status_s, start_s = [], []
    for _ in range(_STATUS_ROUNDS):
        status_s.append(_time("status", "-c", str(config_file)))
        start_s.append(_time("--version"))
    return status_s, start_s


def _time(*arguments: str) -> float:
    command = [sys.executable, "-m", "imgsortd", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environ(), check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds
