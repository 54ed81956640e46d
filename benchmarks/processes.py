"""Fresh processes to measure that end with JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    done = subprocess.run(command, capture_output=True, text=True, env=environ(), check=False)
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return Finished(json.loads(done.stdout[done.stdout.index("{") :]), wall_s)


def environ() -> dict[str, str]:
    """Return the environment of every process: these sources are found first."""
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


def count_sorted(target: Path) -> int:
    """Count the files in the cluster folders."""
    return sum(1 for _ in target.glob("cluster_*/*"))
