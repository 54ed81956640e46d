"""Processes to measure: a function of ours, or a command, in a fresh one."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Finished:
    """What a process printed, and its seconds from start to exit."""

    text: str
    wall_s: float

    @property
    def values(self) -> dict[str, Any]:
        """The JSON object that the output ends with."""
        values: dict[str, Any] = json.loads(self.text[self.text.index("{") :])
        return values


def call(function: Callable[..., dict[str, Any]] | str, *arguments: Any) -> Finished:
    """Call a function, or ``module:name``, in a fresh process; plain values go in and come out.

    So torch is loaded there alone, which the process that measures must not have: pages of
    libraries that two processes have mapped are given back to the system by neither, and the
    daemon's RSS would be measured with hundreds of megabytes too many.
    """
    name = function
    if not isinstance(name, str):  # a module that was itself started with -m is called __main__
        module = getattr(sys.modules[name.__module__].__spec__, "name", name.__module__)
        name = f"{module}:{name.__qualname__}"
    return _run("-m", "benchmarks.processes", name, json.dumps(arguments, default=str))


def imgsortd(*arguments: str | Path) -> Finished:
    """Run the command ``imgsortd``."""
    return _run("-m", "imgsortd", *map(str, arguments))


def _run(*arguments: str) -> Finished:
    """Run Python to its end; raise SystemExit with its own text where it fails."""
    command = [sys.executable, *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environ(), check=False)
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return Finished(done.stdout, wall_s)


def environ() -> dict[str, str]:
    """Return the environment of every process: these sources are found first."""
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, "PYTHONPATH": path}


def count_sorted(target: Path) -> int:
    """Count the files in the folders of clusters, and in review."""
    return sum(1 for _ in target.glob("[!.]*/*"))


def write_config(folder: Path, **settings: Any) -> Path:
    """Make inbox, target and a configuration in ``folder``, with ``settings`` over the defaults."""
    folder = folder.resolve()  # a relative path in the file would be relative to the file
    places = {"inbox": folder / "inbox", "target": folder / "sorted", "state_dir": folder / "state"}
    for path in places.values():
        path.mkdir(parents=True, exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({key: str(path) for key, path in places.items()} | settings))
    return file


if __name__ == "__main__":
    print(json.dumps(pkgutil.resolve_name(sys.argv[1])(*json.loads(sys.argv[2]))))
