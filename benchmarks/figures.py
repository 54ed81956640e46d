"""Figures: measured numbers with their unit, spread, ratio to the article and target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from statistics import median
from typing import Any

import numpy as np


class Unit(StrEnum):
    """How a figure is written. ``share`` is 0..1 and shown in per cent; MB are 10⁶ bytes."""

    RATIO = "ratio"
    SHARE = "share"
    INDEX = "index"
    SECONDS = "s"
    MILLISECONDS = "ms/image"
    IMAGES_PER_S = "images/s"
    GFLOPS = "GFLOP/s"
    MEGABYTES = "MB"
    KILOBYTES = "KB"


class Goal(StrEnum):
    """On which side of its target a figure should lie."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Target:
    """A number that was promised."""

    goal: Goal
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number: the median where it was measured several times.

    Attributes
    ----------
    low, high
        The least and the greatest single measurement.
    ratios
        How many times as long the article's script takes for one image, by round.
    """

    name: str
    value: float
    unit: Unit
    low: float | None = None
    high: float | None = None
    target: Target | None = None
    ratios: tuple[float, ...] = ()

    @property
    def is_met(self) -> bool | None:
        """Tell whether the target is reached; None without a target."""
        if self.target is None:
            return None
        if self.target.goal is Goal.AT_LEAST:
            return self.value >= self.target.value
        return self.value <= self.target.value

    @property
    def ratio(self) -> float | None:
        """Median of the ratios; None where the article has nothing to compare with."""
        return median(self.ratios) if self.ratios else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "ratio": self.ratio, "is_met": self.is_met}


def figure_of(
    name: str,
    values: Sequence[float],
    unit: Unit,
    target: Target | None = None,
    ratios: Sequence[float] = (),
) -> Figure:
    """Sum several measurements up in one figure."""
    return Figure(name, median(values), unit, min(values), max(values), target, tuple(ratios))


def percentile_figures(
    name: str, seconds: Sequence[float], targets: dict[int, Target] | None = None
) -> list[Figure]:
    """Return p50, p95 and p99 of waiting times; the least and the greatest beside the first.

    Interpolated linearly between measurements, as numpy does: of 20 values p99 lies
    between the two greatest.
    """
    targets = targets or {}
    figures = []
    for share in (50, 95, 99):
        value = float(np.percentile(seconds, share))
        figure = Figure(f"{name}, p{share}", value, Unit.SECONDS, target=targets.get(share))
        figures.append(figure)
    figures[0] = replace(figures[0], low=min(seconds), high=max(seconds))
    return figures


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
