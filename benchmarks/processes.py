"""Fresh processes to measure: one that ends with JSON, and the daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Finished:
    """What a process printed, and its seconds from start to exit."""

    values: dict[str, Any]
    wall_s: float


def run_module(module: str, *arguments: str | Path) -> Finished:
    """Run ``python -m module``; its last lines of output are one JSON object.

    Raises
    ------
    SystemExit
        It failed; the text is its own.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=_environ(), check=False)
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return Finished(json.loads(done.stdout[done.stdout.index("{") :]), wall_s)


def _environ() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
    }


def wait_until(predicate: Callable[[], object], timeout_s: float, step_s: float = 0.02) -> bool:
    """Wait for something to come true; tell whether it did."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            return False
        time.sleep(step_s)
    return True


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """``imgsortd run`` with its folders."""

    pid: int
    inbox: Path
    target: Path
    ready_s: float
    log_file: Path

    def runs_on(self) -> str:
        """Return on what and how its model runs, as it logged it at the start."""
        found = re.search(r"runs_on='([^']*)'", self.log_file.read_text())
        return found[1] if found else "not logged"

    def wait_sorted(self, images: int, timeout_s: float = 600) -> None:
        """Wait until so many files stand in cluster folders."""
        if not wait_until(lambda: count_sorted(self.target) >= images, timeout_s, 0.1):
            raise SystemExit(
                f"expected {images} sorted pictures within {timeout_s:g} s, got "
                f"{count_sorted(self.target)}\n{self.log_file.read_text()}"
            )


def count_sorted(target: Path) -> int:
    """Count the files in the cluster folders."""
    return sum(1 for _ in target.glob("cluster_*/*"))


@contextmanager
def daemon(folder: Path, **settings: Any) -> Iterator[RunningDaemon]:
    """Run a real daemon in ``folder``, with ``settings`` over the defaults."""
    inbox, target, log_file = folder / "inbox", folder / "sorted", folder / "daemon.log"
    for path in (inbox, target):
        path.mkdir(parents=True)
    places = {"inbox": str(inbox), "target": str(target), "state_dir": str(folder / "state")}
    config_file = folder / "config.yaml"
    config_file.write_text(yaml.safe_dump({**places, **settings}))
    command = [sys.executable, "-m", "imgsortd", "run", "-c", str(config_file)]
    started = time.perf_counter()
    with open(log_file, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environ())
    try:
        _wait_ready(process, log_file)
        yield RunningDaemon(process.pid, inbox, target, time.perf_counter() - started, log_file)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _wait_ready(process: subprocess.Popen[bytes], log_file: Path) -> None:
    def is_ready() -> bool:
        return "daemon ready" in log_file.read_text() or process.poll() is not None

    if not wait_until(is_ready, 300) or process.poll() is not None:
        raise SystemExit(f"the daemon did not become ready\n{log_file.read_text()}")
