"""``python -m benchmarks.plots bench.json [more.json …] -o docs/``: PNGs of what was measured.

The only module that needs matplotlib. Type that can be read where a page shows the picture at
two thirds of its width.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.pictures import Kind
from benchmarks.refit import PEAK_TARGET
from benchmarks.throughput import STAGE_TITLES, WHOLE_SORT

_WIDTH_IN, _ROW_IN, _DPI, _MB = 8.0, 0.42, 150, 1e6
# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS, _RED = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#999999"), "#D55E00"
_STYLE: Any = {"font.size": 12, "axes.titlelocation": "left", "axes.spines.right": False}
_STYLE |= {"axes.prop_cycle": cycler(color=_COLOURS)}
Rows = dict[str, dict[str, Any]]
"""By the name of a row its figures by name."""


def read(paths: Sequence[Path]) -> dict[str, Any]:
    """Read the files; what a later one has measured again takes the place of the former."""
    found: dict[str, Any] = {"parts": {}}
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            found["parts"] |= document["parts"]
            found["machine"] = document["machine"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SystemExit(
                f"{path}: expected a file that python -m benchmarks --json wrote: {error}"
            ) from None
    return found


def _rows(parts: dict[str, Any], prefix: str) -> Rows:
    """Return the figures of the parts whose name begins so, by the rest of the name."""
    return {
        name.removeprefix(prefix).replace(" on ", ", "): {
            figure["name"].strip(): figure for figure in part["figures"]
        }
        for name, part in parts.items()
        if name.startswith(prefix)
    }


def _panels(panels: dict[str, Rows], draw: Callable[[Axes, Rows], None], label: str) -> Figure:
    """Draw panels below one another, each as high as its rows, which are named."""
    heights = [_ROW_IN * len(rows) + 1.2 for rows in panels.values()]
    figure, grid = plt.subplots(
        len(panels), 1, figsize=(_WIDTH_IN, sum(heights) + 0.6), height_ratios=heights,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for (axes,), (title, rows) in zip(grid, panels.items(), strict=True):
        draw(axes, rows)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(title)
        axes.set_xlabel(label)
    return figure


def _jobs(draw: Callable[[Axes, Rows], None], label: str, parts: dict[str, Any]) -> Figure:
    kinds = {str(kind): _rows(parts, f"throughput, {kind}, ") for kind in Kind}
    return _panels({kind: rows for kind, rows in kinds.items() if rows}, draw, label)


def _whole(axes: Axes, rows: Rows) -> None:
    """Draw how many times as fast as the article's script the whole job is, and its spread."""
    for row, figures in enumerate(rows.values()):
        whole = figures[WHOLE_SORT]
        value, target = whole["value"], (whole["target"] or {}).get("value", 0)
        spread = [[value - whole["low"]], [whole["high"] - value]]
        axes.barh(row, value, 0.6, xerr=spread, capsize=4, color="C0")
        axes.vlines(target, row - 0.4, row + 0.4, color=_RED, lw=3 if target else 0)
        axes.annotate(f" {value:.1f}×", (max(whole["high"], target), row), va="center")


def _stages(axes: Axes, rows: Rows) -> None:
    """Draw which share of an image's time each stage takes, with the whole in ms."""
    for row, figures in enumerate(rows.values()):
        times = [figures[title]["value"] for title in STAGE_TITLES.values()]
        left = 0.0
        for number, (stage, value) in enumerate(zip(STAGE_TITLES, times, strict=True)):
            share, label = 100 * value / sum(times), stage if row == 0 else None
            axes.barh(row, share, 0.6, left=left, color=f"C{number}", label=label)
            left += share
        axes.annotate(f" {sum(times):.1f} ms", (100, row), va="center")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=6, fontsize=9, frameon=False)


def _waits(axes: Axes, rows: Rows) -> None:
    for row, waits in enumerate(rows.values()):
        for number, (name, wait) in enumerate(waits.items()):
            at, text = row + 0.26 * (number - 1), f" {wait['value']:.2f}, {name[-3:]}"
            axes.barh(at, wait["value"], 0.26, color=f"C{number}")
            axes.annotate(text, (wait["value"], at), va="center", fontsize=10)


def draw_latency(parts: dict[str, Any]) -> Figure:
    """Draw how long files wait from drop to folder: single ones, and many at once."""
    panels = {}
    for title, prefix in (("one file, daemon idle", "idle, p"), ("a burst", "burst of ")):
        panels[title] = {
            subject: {name: wait for name, wait in waits.items() if name.startswith(prefix)}
            for subject, waits in _rows(parts, "latency, ").items()
        }
    return _panels(panels, _waits, "seconds from drop to folder, beyond settle_s")


def draw_refit(parts: dict[str, Any]) -> Figure:
    """Draw seconds and memory of a refit over the number of pictures."""
    raw = {int(images): values for images, values in parts["refit"]["raw"].items()}
    images = sorted(raw)
    curves = {
        "seconds of a refit": [raw[count]["refit_s"] for count in images],
        "peak memory, MB": [raw[count]["peak_bytes"] / _MB for count in images],
    }
    figure, both = plt.subplots(1, 2, figsize=(_WIDTH_IN, 3.9), layout="constrained")
    for axes, (title, values) in zip(both, curves.items(), strict=True):
        axes.loglog(images, values, "o-", lw=2, ms=8)
        for count, value in zip(images, values, strict=True):
            axes.annotate(f" {value:,.3g}", (count, value), va="top")
        axes.margins(x=0.3, y=0.3)
        axes.set_title(title)
        axes.set_xlabel("stored pictures")
    both[1].axhline(PEAK_TARGET.value, color=_RED, ls="--")
    return figure


_PLOTS: dict[str, tuple[str, Callable[[dict[str, Any]], Figure]]] = {
    "performance-whole-job": ("throughput", partial(_jobs, _whole, "times as fast as the article")),
    "performance-stages": ("throughput", partial(_jobs, _stages, "% of the time of all stages")),
    "performance-refit": ("refit", draw_refit),
    "performance-latency": ("latency", draw_latency),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the files; write a PNG for all that was measured, say on stderr what is left out."""
    text = "Draw what python -m benchmarks measured."
    parser = argparse.ArgumentParser("python -m benchmarks.plots", description=text)
    parser.add_argument("json", type=Path, nargs="+", help="files of the benchmark; later ones win")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs"), help="folder (docs)")
    options = parser.parse_args(arguments)
    document = read(options.json)
    parts, machine = document["parts"], document["machine"]
    if not any(name.startswith(("throughput, ", "refit", "latency, ")) for name in parts):
        raise SystemExit("expected a section of throughput, refit or latency, found none")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, (section, draw) in _PLOTS.items():
        if not any(part.startswith(section) for part in parts):
            print(f"{name}.png left out: {section} was not measured", file=sys.stderr)
            continue
        with plt.rc_context(_STYLE):
            figure = draw(parts)
            text = f"{machine['cpu_model']}, {machine['cores']} cores, {machine['date'][:10]}"
            figure.supxlabel(text, fontsize=10, x=0.99, ha="right")
            figure.savefig(options.out / f"{name}.png", dpi=_DPI)
            plt.close(figure)
        print(options.out / f"{name}.png")


if __name__ == "__main__":
    main()
