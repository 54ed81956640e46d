"""What the daemon holds: idle, in a burst, and how long it takes to be ready."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.figures import Figure, Part, Unit, figure_of
from benchmarks.machine import torch_facts
from benchmarks.pictures import PictureSet, picture_paths
from benchmarks.processes import count_sorted
from benchmarks.running import RunningDaemon, daemon
from benchmarks.subject import Subject
from benchmarks.targets import RSS_TARGET

_LOOK_EVERY_S = 0.02
_TIMEOUT_S = 600.0
_MB = 1e6


def measure(
    pictures: PictureSet,
    starts: int,
    rest_s: float,
    subject: Subject,
    work: Path,
    say: Callable[[str], None],
) -> Part:
    """Start daemons; give the last a burst with its first fit, rest, and one picture more."""
    *paths, last = picture_paths(pictures.folder)
    settings = {
        "clusters": {"n_clusters": 4, "min_images": max(4, len(paths) // 2), "quiet_s": 0},
        "model": subject.settings,
    }
    folder = work / f"memory-{subject.file_name}"
    ready_s = []
    for number in range(starts - 1):
        say(f"memory, {subject.name}: start {number + 1} of {starts}")
        with daemon(folder / f"start-{number}", **settings) as running:
            ready_s.append(running.ready_s)
    say(f"memory, {subject.name}: start {starts} of {starts}, a burst of {len(paths)} pictures")
    with daemon(folder / "burst", **settings) as running:
        ready_s.append(running.ready_s)
        part = _burst_and_rest(running, paths, last, rest_s)
    part.name = f"memory, {subject.name}"
    part.figures.append(figure_of("start-up, exec to READY=1", ready_s, Unit.SECONDS))
    part.raw["ready_s"] = ready_s
    return part


def _burst_and_rest(running: RunningDaemon, paths: list[Path], last: Path, rest_s: float) -> Part:
    process = psutil.Process(running.pid)
    at_start = process.memory_info().rss
    for path in paths:
        shutil.copy(path, running.inbox)
    peak = _peak_until_sorted(running, process, len(paths))
    busy = process.memory_info().rss
    time.sleep(rest_s / 2)
    cpu_s, wake_ups, began = _cpu_s(process), _wake_ups(running.pid), time.monotonic()
    time.sleep(rest_s / 2)
    half_s = time.monotonic() - began
    cpu_share = (_cpu_s(process) - cpu_s) / half_s
    wakes_a_second = (_wake_ups(running.pid) - wake_ups) / half_s
    idle = process.memory_full_info()
    shutil.copy(last, running.inbox)
    _peak_until_sorted(running, process, len(paths) + 1)
    awake = process.memory_info().rss
    figures = [
        Figure("RSS, idle", idle.rss / _MB, Unit.MEGABYTES, target=RSS_TARGET),
        Figure("  of it private", idle.uss / _MB, Unit.MEGABYTES),
        Figure("RSS, ready", at_start / _MB, Unit.MEGABYTES),
        Figure("RSS, busy: peak in a burst", peak / _MB, Unit.MEGABYTES),
        Figure("RSS, just after the burst", busy / _MB, Unit.MEGABYTES),
        Figure("RSS, just after the next picture", awake / _MB, Unit.MEGABYTES),
        Figure("CPU, idle, of one core", cpu_share, Unit.SHARE),
    ]
    notes = [
        f"torch: {torch_facts()['build']}; the model ran as {running.runs_on()}",
        "MB = 10⁶ bytes; other processes that have torch loaded make it more: they keep its "
        "pages in memory",
        f"a burst of {len(paths)} pictures with the first fit, then {rest_s:g} s of rest: idle; "
        f"in the second half of them the process woke up {wakes_a_second:.1f} times a second",
    ]
    raw = {"idle": idle._asdict(), "ready": at_start, "peak": peak, "busy": busy, "awake": awake}
    raw |= {"idle_cpu_share": cpu_share, "idle_wake_ups_a_second": wakes_a_second}
    return Part("memory", figures, notes, raw)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _wake_ups(pid: int) -> int:
    """Count how often the threads of a process have gone to sleep of their own will."""
    count = 0
    for file in Path(f"/proc/{pid}/task").glob("*/status"):
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read_text(), re.M)
        count += int(found[1]) if found else 0
    return count


def _peak_until_sorted(running: RunningDaemon, process: psutil.Process, images: int) -> int:
    peak, deadline = 0, time.monotonic() + _TIMEOUT_S
    while count_sorted(running.target) < images:
        peak = max(peak, process.memory_info().rss)
        if time.monotonic() > deadline:
            raise SystemExit(f"the burst was not sorted\n{running.log_file.read_text()}")
        time.sleep(_LOOK_EVERY_S)
    return peak
