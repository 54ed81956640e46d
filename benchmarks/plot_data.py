"""What the plots show, out of the JSON files that ``python -m benchmarks`` wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.stage_names import STAGE_TITLES
from benchmarks.targets import REFIT_PEAK_TARGET, Kind
from benchmarks.throughput import WHOLE_SORT

SHARES = (50, 95, 99)
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio with its spread over the rounds, and what was promised."""

    subject: str
    value: float
    low: float
    high: float
    target: float | None


@dataclass(frozen=True, slots=True)
class Stack:
    """Milliseconds an image by stage."""

    subject: str
    stages_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Refit:
    """Seconds, and the greatest memory of the process in 10⁶ bytes."""

    images: int
    seconds: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds beyond ``settle_s`` at 50, 95 and 99 % of the drops."""

    subject: str
    idle_s: tuple[float, ...]
    idle_target_s: float | None
    burst_s: tuple[float, ...]
    burst_images: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All that can be drawn; what was not measured is empty."""

    machine: str
    whole: dict[str, list[Bar]]
    stages: dict[str, list[Stack]]
    refits: list[Refit]
    refit_target_mb: float
    latency: list[Waits]


def read(paths: Sequence[Path]) -> Measured:
    """Read the files; what a later one has measured again takes the place of the former.

    Raises
    ------
    SystemExit
        A file is not one of the benchmark's, or none of them has anything to draw.
    """
    parts: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            parts |= document["parts"]
            machine = document["machine"]
        except OSError as error:
            raise SystemExit(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise SystemExit(
                f"{path}: expected a file that python -m benchmarks --json wrote, with machine "
                f"and parts"
            ) from None
    whole, stages = _whole_and_stages(parts)
    refits, latency = _refits(parts), _latency(parts)
    if not (whole or refits or latency):
        names = ", ".join(map(str, paths))
        raise SystemExit(
            f"{names}: expected a section of throughput, refit or latency, found "
            f"{', '.join(parts) or 'none'}"
        )
    return Measured(
        f"{machine['cpu_model']}, {machine['cores']} cores, {machine['date'][:10]}",
        whole,
        stages,
        refits,
        REFIT_PEAK_TARGET.value,
        latency,
    )


def _whole_and_stages(
    parts: dict[str, Any],
) -> tuple[dict[str, list[Bar]], dict[str, list[Stack]]]:
    whole: dict[str, list[Bar]] = {}
    stages: dict[str, list[Stack]] = {}
    for kind in Kind:
        for name, figures in _named(parts, f"throughput, {kind}, "):
            ratio = figures[WHOLE_SORT]
            target = ratio["target"] and ratio["target"]["value"]
            bar = Bar(name, ratio["value"], ratio["low"], ratio["high"], target)
            whole.setdefault(kind, []).append(bar)
            found = {stage: figures[title]["value"] for stage, title in STAGE_TITLES.items()}
            stages.setdefault(kind, []).append(Stack(name, found))
    return whole, stages


def _named(parts: dict[str, Any], prefix: str) -> list[tuple[str, dict[str, Any]]]:
    """Return (subject, figures by name) of the parts whose name begins so."""
    return [
        (name.removeprefix(prefix), {row["name"].strip(): row for row in part["figures"]})
        for name, part in parts.items()
        if name.startswith(prefix)
    ]


def _refits(parts: dict[str, Any]) -> list[Refit]:
    raw = parts.get("refit", {}).get("raw", {})
    refits = [
        Refit(int(images), values["refit_s"], values["peak_bytes"] / _MB)
        for images, values in raw.items()
    ]
    return sorted(refits, key=lambda refit: refit.images)


def _latency(parts: dict[str, Any]) -> list[Waits]:
    found = []
    for name, figures in _named(parts, "latency, "):
        (burst,) = [name[: -len(", p50")] for name in figures if _is_burst(name)]
        target = figures["idle, p50"]["target"]
        found.append(
            Waits(
                name,
                tuple(figures[f"idle, p{share}"]["value"] for share in SHARES),
                target and target["value"],
                tuple(figures[f"{burst}, p{share}"]["value"] for share in SHARES),
                int(burst.rpartition(" ")[2]),
            )
        )
    return found


def _is_burst(name: str) -> bool:
    return name.startswith("burst of ") and name.endswith(", p50")
