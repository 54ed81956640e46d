"""Figures with their targets; the table they are shown in, the machine, and the JSON file."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.processes import call

WIDTH = 100
# A file has no width of its own.
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
_notes = Console(stderr=True, highlight=False, soft_wrap=True, style="dim")
_FLAGS = {"avx2": "avx2", "avx512": "avx512f", "avx512_bf16": "avx512_bf16", "amx": "amx_bf16"}
_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "imgsortd")
_EXTRAS = ("openvino", "nncf", "timm")


class Unit(StrEnum):
    """How a figure is written. ``share`` is 0..1 and shown in per cent; MB are 10⁶ bytes."""

    RATIO = "×"
    SHARE = "%"
    INDEX = ""
    SECONDS = "s"
    MILLISECONDS = "ms/image"
    IMAGES_PER_S = "images/s"
    MEGABYTES = "MB"
    KILOBYTES = "KB"

    def text(self, value: float) -> str:
        """Write a number with two decimals, one of 100 and more with fewer."""
        if self in (Unit.SHARE, Unit.INDEX):
            return f"{100 * value:.1f}" if self is Unit.SHARE else f"{value:.3f}"
        is_large = self is Unit.MEGABYTES or abs(value) >= 1000
        return f"{value:,.{0 if is_large else 1 if abs(value) >= 100 else 2}f}"


@dataclass(frozen=True, slots=True)
class Target:
    """What was promised: at least (``≥``) or at most (``≤``) a value."""

    goal: str
    value: float


def at_least(value: float) -> Target:
    """Return a target that is reached from a value on."""
    return Target("≥", value)


def at_most(value: float) -> Target:
    """Return a target that is reached up to a value."""
    return Target("≤", value)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number: the median where it was measured several times, from low to high."""

    name: str
    value: float
    unit: Unit
    target: Target | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        sign = 1 if self.target.goal == "≥" else -1
        return sign * self.value >= sign * self.target.value

    def cells(self) -> list[Text]:
        """Return its row of the table."""
        target, verdict, spread = "", Text(), ""
        if self.low is not None and self.high is not None and self.low != self.high:
            spread = f"{self.unit.text(self.low)} … {self.unit.text(self.high)}"
        if self.target is not None:
            target = f"{self.target.goal} {self.unit.text(self.target.value)}"
            verdict = Text("met", "green") if self.is_met else Text("not met", "red")
        value = Text(f"{self.unit.text(self.value)} {self.unit}", "bold")
        return [Text(f"  {self.name}"), value, Text(spread, "dim"), Text(target), verdict]


def figure_of(
    name: str, values: Sequence[float], unit: Unit, target: Target | None = None
) -> Figure:
    """Sum several measurements up in one figure."""
    return Figure(name, median(values), unit, target, min(values), max(values))


def percentiles(name: str, seconds: Sequence[float], target: Target | None = None) -> list[Figure]:
    """Return p50, p95 and p99 of waiting times, between measurements where there are few."""
    p95, p99 = np.percentile(seconds, (95, 99)).tolist()
    rest = [Figure(f"{name}, p95", p95, Unit.SECONDS), Figure(f"{name}, p99", p99, Unit.SECONDS)]
    return [figure_of(f"{name}, p50", seconds, Unit.SECONDS, target), *rest]


@dataclass(slots=True)
class Part:
    """One part of the benchmark: its figures, lines to read with them, all raw numbers."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


def say(line: str) -> None:
    """Tell what is being measured now."""
    _notes.print(line, markup=False)


def describe_machine() -> dict[str, Any]:
    """Return CPU, its flags, memory, versions, the load and the date."""
    file = Path("/proc/cpuinfo")
    info = file.read_text() if file.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", info)
    flags = set((re.search(r"flags\s*:\s*(.+)", info) or ["", ""])[1].split())
    return {
        "cpu_model": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_flags": {name: flag in flags for name, flag in _FLAGS.items()},
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in (*_PACKAGES, *filter(find_spec, _EXTRAS))},
        **call(_look_at_torch).values,
        "load_average": os.getloadavg(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _look_at_torch() -> dict[str, Any]:
    import torch

    cuda = torch.version.cuda
    build = f"CUDA {cuda} build, GPU seen: {torch.cuda.is_available()}" if cuda else "CPU build"
    return {"torch_build": build, "torch_threads": torch.get_num_threads()}


def finish(parts: Sequence[Part], options: dict[str, Any], file: Path | None, name: str) -> None:
    """Print the table and write the JSON file, ``NAME-DATE.json`` where none is given."""
    machine = describe_machine()
    console.print(render(parts, machine))
    path = file or Path(f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json")
    write_json(path, parts, machine, options)
    console.print(f"written  {path}", markup=False, soft_wrap=True)


def render(parts: Sequence[Part], machine: dict[str, Any]) -> RenderableType:
    """Lay the figures out for a terminal of 100 columns, the notes of each part below them."""
    flags = " ".join(name for name, there in machine["cpu_flags"].items() if there) or "none"
    head = (
        f"{machine['cpu_model']}, {machine['cores']} cores ({flags}), "
        f"load {machine['load_average'][0]:.1f}, {machine['date']}\n"
        f"torch {machine['versions']['torch']} ({machine['torch_build']}), "
        f"{machine['torch_threads']} threads\n"
    )
    tables: list[RenderableType] = [Text(head, style="dim")]
    for part in parts:
        table = Table(box=None, width=WIDTH, pad_edge=False, padding=(0, 2, 0, 0))
        table.title, table.title_style, table.title_justify = Text(part.name), "bold", "left"
        table.caption, table.caption_style = Text("\n".join([*part.notes, ""])), "dim"
        table.caption_justify = "left"
        table.add_column("", ratio=1, no_wrap=True)
        for title in ("measured", "least … greatest", "target", ""):
            table.add_column(title, justify="right" if title else "left", no_wrap=True)
        for figure in part.figures:
            table.add_row(*figure.cells())
        tables.append(table)
    return Group(*tables)


def write_json(
    path: Path, parts: Sequence[Part], machine: dict[str, Any], options: dict[str, Any]
) -> None:
    """Write everything that was measured."""
    by_name = {part.name: asdict(part) for part in parts}
    document = {"machine": machine, "options": options, "parts": by_name}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")
