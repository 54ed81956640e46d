"""The table with the targets, and the JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, JustifyMethod, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from benchmarks.figures import Figure, Part, Unit

WIDTH = 100
# Fixed, so that the columns of all parts stand below one another; with gaps of two they
# fill the width.
_COLUMNS = {"": 39, "measured": 14, "spread": 15, "article": 8, "target": 7, "verdict": 7}
_RIGHT = ("measured", "spread", "article", "target")


def render(parts: Sequence[Part], machine: dict[str, Any]) -> RenderableType:
    """Lay the figures out for a terminal of 100 columns, the notes of each part below them."""
    blocks: list[RenderableType] = [Text(describe(machine)), _legend(parts)]
    for part in parts:
        blocks += [Text(), Text(part.name, style="bold"), _table(part.figures)]
        blocks += [Padding(Text(note, style="dim"), (0, 0, 0, 2)) for note in part.notes]
    return Group(*blocks, Text())


def _table(figures: Sequence[Figure]) -> RenderableType:
    if not figures:
        return Group()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title, width in _COLUMNS.items():
        justify: JustifyMethod = "right" if title in _RIGHT else "left"
        shown = "" if title == "verdict" else title
        table.add_column(shown, justify=justify, width=width, no_wrap=True, overflow="ellipsis")
    for figure in figures:
        table.add_row(*_cells(figure))
    return table


def _legend(parts: Sequence[Part]) -> Text:
    compared = any(figure.ratios for part in parts for figure in part.figures)
    text = "measured: median · spread: least and greatest"
    if compared:
        text += " · article: how many times as long its script takes"
    return Text(text, style="dim")


def _cells(figure: Figure) -> tuple[Text, ...]:
    spread = ""
    if figure.low is not None and figure.high is not None and figure.low != figure.high:
        spread = f"{_number(figure.low, figure.unit)} … {_number(figure.high, figure.unit)}"
    target, verdict = "", Text()
    if figure.target is not None:
        target = f"{figure.target.goal} {_number(figure.target.value, figure.unit)}"
        verdict = Text("met", style="green") if figure.is_met else Text("not met", style="red")
    ratio = "" if figure.ratio is None else f"{_short(figure.ratio)} ×"
    return (
        Text(f"  {figure.name}"),
        Text(_number(figure.value, figure.unit) + _suffix(figure.unit), style="bold"),
        Text(spread, style="dim"),
        Text(ratio),
        Text(target),
        verdict,
    )


def _suffix(unit: Unit) -> str:
    signs = {Unit.RATIO: " ×", Unit.SHARE: " %", Unit.INDEX: ""}
    return signs.get(unit, f" {unit}")


def _number(value: float, unit: Unit) -> str:
    if unit is Unit.SHARE:
        return f"{100 * value:.1f}"
    if unit is Unit.INDEX:
        return f"{value:.3f}"
    return f"{value:,.0f}" if unit is Unit.MEGABYTES else _short(value)


def _short(value: float) -> str:
    """Write a number with two decimals, those of 100 and more with fewer."""
    for limit, decimals in ((100.0, 2), (1000.0, 1)):
        if abs(value) < limit:
            return f"{value:.{decimals}f}"
    return f"{value:,.0f}"


def describe(machine: dict[str, Any]) -> str:
    """Say in two lines where the figures come from."""
    flags = " ".join(name for name, there in machine["cpu_flags"].items() if there) or "none"
    return (
        f"{machine['cpu_model']}, {machine['cores']} cores ({flags}), "
        f"load {machine['load_average'][0]:.1f}, {machine['date']}\n"
        f"torch {machine['versions']['torch']} ({machine['torch_build']}), "
        f"{machine['torch_threads']} threads"
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
