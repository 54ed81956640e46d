"""The daemon: seconds from drop to folder, one file or many at once; memory; its start-up.

Most single drops come a few seconds after the one before; some after a long rest, when
the daemon has given memory back to the system and must fetch it again.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import Figure, Part, Unit, at_least, at_most, figure_of, percentiles, say
from benchmarks.pictures import photographs, picture_paths
from benchmarks.processes import count_sorted, environ, imgsortd, write_config
from imgsortd.config.model import Config
from imgsortd.networks.sources import default_cache_dir

SETTLE_S = float(Config.model_fields["settle_s"].default)
_IDLE_TARGET, _BUSY_TARGET, _RSS_TARGET = at_most(0.5), at_least(0.95), at_most(900.0)
_MB, _N_CLUSTERS = 1e6, 4
# The daemon calls itself idle two seconds after its last work.
_IDLE_AFTER_S = 2.5
_START_TIMEOUT_S, _TIMEOUT_S = 120.0, 600.0


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """``imgsortd run``; ``ready_s`` is from before its exec to READY=1, as systemd gets it."""

    pid: int
    config_file: Path
    inbox: Path
    target: Path
    ready_s: float

    def status(self) -> dict[str, Any]:
        """Return what ``imgsortd status --json`` says."""
        return imgsortd("status", "-c", self.config_file, "--json").values

    def wait(self, is_so: Callable[[], bool], step_s: float) -> None:
        """Wait until something has come true."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not is_so():
            if time.monotonic() > deadline:
                log = self.config_file.with_name("daemon.log").read_text()
                raise SystemExit(f"the daemon did not do it in {_TIMEOUT_S:g} s\n{log}")
            time.sleep(step_s)


@contextmanager
def daemon(folder: Path, **settings: Any) -> Iterator[RunningDaemon]:
    """Run a real daemon in ``folder``, with ``settings`` over the defaults.

    It finds what its first start would have left: the calibration, and a checked int8 model.
    """
    config_file = write_config(folder, **settings)
    for pattern in ("calibration.json", "int8-*"):
        for file in default_cache_dir().glob(pattern):
            shutil.copyfile(file, folder / "state" / file.name)
    command = [sys.executable, "-m", "imgsortd", "run", "-c", str(config_file)]
    with (
        # A path of a few letters, because a socket's may have 107 bytes.
        tempfile.TemporaryDirectory(prefix="imgsortd-") as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
        open(folder / "daemon.log", "wb") as log,
    ):
        ear.bind(f"{short}/notify")
        ear.settimeout(_START_TIMEOUT_S)
        environment = {**environ(), "NOTIFY_SOCKET": f"{short}/notify"}
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            try:
                while b"READY=1" not in ear.recv(4096).splitlines():
                    pass
            except TimeoutError:
                log_text = (folder / "daemon.log").read_text()
                raise SystemExit(f"the daemon did not become ready\n{log_text}") from None
            ready_s = time.perf_counter() - started
            # Nobody reads on: a full socket would make the daemon wait, a closed one does not.
            ear.close()
            inbox, target = folder / "inbox", folder / "sorted"
            yield RunningDaemon(process.pid, config_file, inbox, target, ready_s)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def measure_latency(options: Namespace, work: Path) -> list[Part]:
    """Let a daemon of each subject sort and fit some pictures, then drop the others."""
    first, rested = max(_N_CLUSTERS, options.images // 2), max(1, options.drops // 5)
    images = first + options.drops + rested + options.burst
    paths = picture_paths(photographs(options.photos, images, work / "drops").folder)
    chance = random.Random(0)
    rests_s = [_IDLE_AFTER_S + chance.random() for _ in range(options.drops)]
    rests_s += [options.rest] * rested
    clusters = {"n_clusters": _N_CLUSTERS, "min_images": first, "quiet_s": 0}
    # A refit in the middle would be measured as latency; it is counted in no promise.
    settings = {"clusters": clusters, "refit": {"interval": "off", "growth": "off"}}
    parts = []
    for subject in options.subjects:
        say(f"latency, {subject.name}: {len(rests_s)} single drops, then {options.burst} at once")
        with daemon(work / subject.name, model=subject.settings, **settings) as running:
            for path in paths[:first]:
                shutil.copy(path, running.inbox)
            running.wait(lambda: count_sorted(running.target) == first, 0.1)
            seconds = [_drop(running, *one) for one in zip(paths[first:], rests_s, strict=False)]
            burst = _drop_at_once(running, paths[first + len(rests_s) :])
            status = running.status()
        single, after_rest = seconds[: options.drops], seconds[options.drops :]
        part = Part(f"latency, {subject.name}")
        part.figures = latency_figures(single, after_rest, options.rest)
        part.figures += burst_figures(burst, status["model_busy"])
        part.notes = [
            f"seconds from drop to folder beyond settle_s={SETTLE_S:g}, op move; the model ran as "
            f"{status['runs_on']}",
            f"idle: {len(single)} single drops, and {rested} after a rest; burst: renamed into the "
            "inbox at once, its rate without settle_s",
        ]
        part.raw = {"drop_to_folder_s": single, "rested_s": after_rest, "burst_s": burst}
        parts.append(part)
    return parts


def _drop(running: RunningDaemon, path: Path, rest_s: float) -> float:
    """Return the seconds from the beginning of the copy until the file has left the inbox."""
    time.sleep(rest_s)
    dropped = running.inbox / path.name
    started = time.perf_counter()
    shutil.copy(path, dropped)
    # A move is one rename: what has left the inbox stands in its folder.
    running.wait(lambda: not dropped.exists(), 0.002)
    return time.perf_counter() - started


def _drop_at_once(running: RunningDaemon, paths: Sequence[Path]) -> list[float]:
    """Drop all files; return the seconds until each is seen to have left the inbox.

    Nothing else is asked of the daemon meanwhile.
    """
    staging = running.inbox.parent / "staging"
    staging.mkdir()
    for path in paths:
        shutil.copy(path, staging)
    before, dropped, arrived = count_sorted(running.target), dict[str, float](), dict[str, float]()
    for path in paths:  # on one filesystem: each is one rename
        dropped[path.name] = time.perf_counter()
        (staging / path.name).rename(running.inbox / path.name)

    def all_have_gone() -> bool:
        now, there = time.perf_counter(), set(os.listdir(running.inbox))
        arrived.update(dict.fromkeys(dropped.keys() - there - arrived.keys(), now))
        return len(arrived) == len(dropped)

    running.wait(all_have_gone, 0.05)
    if count_sorted(running.target) != before + len(paths):
        raise SystemExit("a dropped file is in no folder of target")
    return [arrived[name] - at for name, at in dropped.items()]


def latency_figures(
    single: Sequence[float], rested: Sequence[float], rest_s: float
) -> list[Figure]:
    """Turn drop-to-folder seconds of single drops into figures beyond ``settle_s``."""
    idle, after_rest = ([value - SETTLE_S for value in values] for values in (single, rested))
    last = figure_of(f"idle, after {rest_s:g} s of rest, p50", after_rest, Unit.SECONDS)
    return [*percentiles("idle", idle, _IDLE_TARGET), last]


def burst_figures(seconds: Sequence[float], busy: float | None) -> list[Figure]:
    """Return the latencies beyond ``settle_s``, the rate and, if told, the busy share."""
    beyond = [value - SETTLE_S for value in seconds]
    rate = len(beyond) / max(*beyond, 1e-9)
    figures = percentiles(f"burst of {len(beyond)}", beyond)
    figures.append(Figure("burst, rate", rate, Unit.IMAGES_PER_S))
    told = [] if busy is None else [Figure("burst, model busy", busy, Unit.SHARE, _BUSY_TARGET)]
    return figures + told


def measure_memory(options: Namespace, work: Path) -> list[Part]:
    """Start daemons; give the last a burst with its first fit, and a rest."""
    pictures = photographs(options.photos, options.images, work / "burst")
    clusters = {"n_clusters": _N_CLUSTERS, "min_images": options.images // 2, "quiet_s": 0}
    parts = []
    for subject in options.subjects:
        ready_s, part = [], Part(f"memory, {subject.name}")
        for number in range(1, options.rounds + 1):
            say(f"{part.name}: start {number} of {options.rounds}")
            folder = work / f"{subject.name}-{number}"
            with daemon(folder, clusters=clusters, model=subject.settings) as running:
                ready_s.append(running.ready_s)
                if number == options.rounds:
                    _burst_and_rest(part, running, picture_paths(pictures.folder), options.rest)
        part.figures.append(figure_of("start-up, exec to READY=1", ready_s, Unit.SECONDS))
        parts.append(part)
    return parts


def _burst_and_rest(part: Part, running: RunningDaemon, paths: list[Path], rest_s: float) -> None:
    process = psutil.Process(running.pid)
    seen_bytes = [process.memory_info().rss]

    def is_sorted() -> bool:
        seen_bytes.append(process.memory_info().rss)
        return count_sorted(running.target) == len(paths)

    for path in paths:
        shutil.copy(path, running.inbox)
    running.wait(is_sorted, 0.02)
    time.sleep(rest_s / 2)
    woken = _wake_ups(running.pid)
    time.sleep(rest_s / 2)
    wakes_a_second = 2 * (_wake_ups(running.pid) - woken) / max(rest_s, 1e-9)
    idle = process.memory_full_info()
    part.figures = [
        Figure("RSS, idle", idle.rss / _MB, Unit.MEGABYTES, _RSS_TARGET),
        Figure("  of it private", idle.uss / _MB, Unit.MEGABYTES),
        Figure("RSS, ready", seen_bytes[0] / _MB, Unit.MEGABYTES),
        Figure("RSS, busy: peak in a burst", max(seen_bytes) / _MB, Unit.MEGABYTES),
    ]
    part.notes = [
        f"the model ran as {running.status()['runs_on']}",
        "MB = 10⁶ bytes; other processes that have torch loaded make it more: they keep its "
        "pages in memory",
        f"a burst of {len(paths)} pictures with the first fit, then {rest_s:g} s of rest: "
        f"idle; in the second half the process woke up {wakes_a_second:.1f} times a second",
    ]


def _wake_ups(pid: int) -> int:
    """Count how often the threads of a process have gone to sleep of their own will."""
    pattern = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)", re.M)
    files = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(int(count) for file in files for count in pattern.findall(file.read_text()))
