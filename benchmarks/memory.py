"""What the daemon holds: idle, in a burst, and how long it takes to be ready."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.machine import torch_facts
from benchmarks.pictures import PictureSet, picture_paths
from benchmarks.processes import RunningDaemon, count_sorted, daemon
from benchmarks.report import RSS_TARGET, Figure, Part, Unit

_LOOK_EVERY_S = 0.02
_TIMEOUT_S = 600.0
_MB = 1e6


def measure(
    pictures: PictureSet, rest_s: float, weights: str, work: Path, say: Callable[[str], None]
) -> Part:
    """Give a fresh daemon a burst with its first fit, let it rest, and wake it with one more."""
    *paths, last = picture_paths(pictures.folder)
    clusters = {"n_clusters": 4, "min_images": max(4, len(paths) // 2)}
    say(f"memory: a burst of {len(paths)} pictures")
    with daemon(work / "memory", clusters=clusters, model={"weights": weights}) as running:
        process = psutil.Process(running.pid)
        at_start = process.memory_info().rss
        for path in paths:
            shutil.copy(path, running.inbox)
        peak = _peak_until_sorted(running, process, len(paths))
        busy = process.memory_info().rss
        time.sleep(rest_s)
        idle = process.memory_full_info()
        shutil.copy(last, running.inbox)
        _peak_until_sorted(running, process, len(paths) + 1)
        awake = process.memory_info().rss
        runs_on = running.runs_on()
    figures = [
        Figure("RSS, idle", idle.rss / _MB, Unit.MEGABYTES, target=RSS_TARGET),
        Figure("  of it private", idle.uss / _MB, Unit.MEGABYTES),
        Figure("RSS, ready", at_start / _MB, Unit.MEGABYTES),
        Figure("RSS, peak in a burst", peak / _MB, Unit.MEGABYTES),
        Figure("RSS, just after it", busy / _MB, Unit.MEGABYTES),
        Figure("RSS, just after the next picture", awake / _MB, Unit.MEGABYTES),
        Figure("start to ready", running.ready_s, Unit.SECONDS),
    ]
    notes = [
        f"torch: {torch_facts()['build']}; the model ran as {runs_on}; MB = 10⁶ bytes",
        "other processes that have torch loaded make it more: they keep its pages in memory",
        f"a burst of {len(paths)} pictures with the first fit, then {rest_s:g} s of rest: idle",
    ]
    raw = {"idle": idle._asdict(), "ready": at_start, "peak": peak, "busy": busy, "awake": awake}
    return Part("memory", figures, notes, raw)


def _peak_until_sorted(running: RunningDaemon, process: psutil.Process, images: int) -> int:
    peak, deadline = 0, time.monotonic() + _TIMEOUT_S
    while count_sorted(running.target) < images:
        peak = max(peak, process.memory_info().rss)
        if time.monotonic() > deadline:
            raise SystemExit(f"the burst was not sorted\n{running.log_file.read_text()}")
        time.sleep(_LOOK_EVERY_S)
    return peak
