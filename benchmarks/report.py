"""Figures, the targets beside them, the table and the JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


class Unit(StrEnum):
    """How a figure is written."""

    RATIO = "ratio"
    SHARE = "share"
    INDEX = "index"
    SECONDS = "s"
    MILLISECONDS = "ms/image"
    MEGABYTES = "MB"


class Goal(StrEnum):
    """On which side of its target a figure should lie."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Target:
    """A number that was promised."""

    goal: Goal
    value: float


PHOTOS_TARGET = Target(Goal.AT_LEAST, 2.8)
CAMERAS_TARGET = Target(Goal.AT_LEAST, 3.5)
NMI_TARGET = Target(Goal.AT_LEAST, 0.92)
LARGEST_TARGET = Target(Goal.AT_MOST, 0.20)
RSS_TARGET = Target(Goal.AT_MOST, 900.0)
LATENCY_TARGET = Target(Goal.AT_MOST, 0.5)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number: the median where it was measured several times.

    ``low`` and ``high`` are the least and the greatest single measurement.
    """

    name: str
    value: float
    unit: Unit
    low: float | None = None
    high: float | None = None
    target: Target | None = None

    @property
    def is_met(self) -> bool | None:
        """Tell whether the target is reached; None without a target."""
        if self.target is None:
            return None
        if self.target.goal is Goal.AT_LEAST:
            return self.value >= self.target.value
        return self.value <= self.target.value

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "is_met": self.is_met}


def figure_of(
    name: str, values: Sequence[float], unit: Unit, target: Target | None = None
) -> Figure:
    """Sum several measurements up in one figure."""
    return Figure(name, median(values), unit, min(values), max(values), target)


@dataclass(slots=True)
class Part:
    """One part of the benchmark: its figures, lines to read with them, all raw numbers."""

    name: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "figures": [figure.as_dict() for figure in self.figures],
            "notes": self.notes,
            "raw": self.raw,
        }


def render(parts: Sequence[Part], machine: dict[str, Any]) -> RenderableType:
    """Lay the figures out for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for title in ("measured", "spread", "target"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for part in parts:
        table.add_section()
        table.add_row(Text(part.name, style="bold"))
        for figure in part.figures:
            table.add_row(*_cells(figure))
    notes = [Text(f"{part.name}: {note}") for part in parts for note in part.notes]
    return Group(Text(describe(machine)), Text(), table, Text(), *notes)


def _cells(figure: Figure) -> tuple[Text, ...]:
    spread = ""
    if figure.low is not None and figure.high is not None and figure.low != figure.high:
        spread = f"{_text(figure.low, figure.unit)} … {_text(figure.high, figure.unit)}"
    target, verdict = "", Text()
    if figure.target is not None:
        target = f"{figure.target.goal} {_text(figure.target.value, figure.unit)}"
        verdict = Text("met", style="green") if figure.is_met else Text("not met", style="red")
    return (
        Text(f"  {figure.name}"),
        Text(_text(figure.value, figure.unit), style="bold"),
        Text(spread, style="dim"),
        Text(target),
        verdict,
    )


def _text(value: float, unit: Unit) -> str:
    if unit is Unit.RATIO:
        return f"{value:.2f} ×"
    if unit is Unit.SHARE:
        return f"{100 * value:.1f} %"
    if unit is Unit.INDEX:
        return f"{value:.3f}"
    return f"{value:,.0f} MB" if unit is Unit.MEGABYTES else f"{value:.2f} {unit}"


def describe(machine: dict[str, Any]) -> str:
    """Say in one line where the figures come from."""
    flags = " ".join(name for name, there in machine["cpu_flags"].items() if there) or "none"
    return (
        f"{machine['cpu_model']}, {machine['cores']} cores ({flags}), "
        f"torch {machine['versions']['torch']} ({machine['torch_build']}), {machine['date']}, "
        f"load {machine['load_average'][0]:.1f}"
    )


def write_json(
    path: Path, parts: Sequence[Part], machine: dict[str, Any], options: dict[str, Any]
) -> None:
    """Write everything that was measured."""
    document = {
        "machine": machine,
        "options": options,
        "parts": {part.name: part.as_dict() for part in parts},
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
