"""``python -m benchmarks.plots bench.json [more.json …] -o docs/``: PNGs of what was measured.

The only module that needs matplotlib. A white background, and type that can be read
where a page shows the picture at two thirds of its width.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.plot_data import SHARES, Bar, Measured, Refit, Stack, Waits, read
from benchmarks.stage_names import STAGE_TITLES

_WIDTH_IN, _DPI = 8.0, 150
_ROW_IN = 0.42
_MEMORY_TICKS_MB = [step * 10**power for power in range(1, 6) for step in (1, 2, 5)]
_STYLE: Any = {  # the names of its keys are a type of their own
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
# Okabe and Ito's, which the colour-blind can tell apart.
_BLUE, _ORANGE, _GREEN, _RED, _SKY, _GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#999999",
)
_STAGE_COLOURS = dict(
    zip(STAGE_TITLES, (_ORANGE, _RED, "#CC79A7", _BLUE, _GREEN, _GREY), strict=True)
)
_SHARE_COLOURS = dict(zip(SHARES, (_BLUE, _SKY, _GREY), strict=True))


def draw_whole(measured: Measured) -> Figure:
    """Draw how many times as fast as the article's script the whole job is."""
    figure, panels = _panels([len(bars) for bars in measured.whole.values()], legend_rows=1)
    for axes, (kind, bars) in zip(panels, measured.whole.items(), strict=True):
        _whole_panel(axes, kind, bars)
    panels[-1].set_xlabel("times as fast as the article's script")
    _legend(figure, panels[0], columns=3)
    return figure


def _whole_panel(axes: Axes, kind: str, bars: Sequence[Bar]) -> None:
    values = [bar.value for bar in bars]
    spread = [
        [bar.value - bar.low for bar in bars],
        [bar.high - bar.value for bar in bars],
    ]
    rows = range(len(bars))
    axes.barh(rows, values, 0.6, color=_BLUE, label="median")
    axes.errorbar(
        values, rows, xerr=spread, fmt="none", color="black", capsize=4, lw=1.5,
        label="spread over rounds",
    )  # fmt: skip
    labelled = False
    for row, bar in enumerate(bars):
        end = max(bar.high, bar.target or 0)
        axes.annotate(
            f"{bar.value:.1f}×", (end, row), (8, 0), textcoords="offset points", va="center"
        )
        if bar.target is not None:
            axes.vlines(
                bar.target, row - 0.42, row + 0.42, color=_RED, lw=3, zorder=3,
                label="_nolegend_" if labelled else "target",
            )  # fmt: skip
            labelled = True
    furthest = max(max(bar.high, bar.target or 0) for bar in bars)
    axes.set_xlim(0, furthest * 1.15)
    _name_rows(axes, kind, [bar.subject for bar in bars])


def draw_stages(measured: Measured) -> Figure:
    """Draw which share of an image's time each stage takes, with the whole in ms."""
    figure, panels = _panels([len(stacks) for stacks in measured.stages.values()], legend_rows=2)
    for axes, (kind, stacks) in zip(panels, measured.stages.items(), strict=True):
        _stages_panel(axes, kind, stacks)
    panels[-1].set_xlabel("share of the stages' time, each alone, one after another")
    _legend(figure, panels[0], columns=3)
    return figure


def _stages_panel(axes: Axes, kind: str, stacks: Sequence[Stack]) -> None:
    totals = [sum(stack.stages_ms.values()) for stack in stacks]
    left = [0.0] * len(stacks)
    for stage, colour in _STAGE_COLOURS.items():
        widths = [
            100 * stack.stages_ms[stage] / total
            for stack, total in zip(stacks, totals, strict=True)
        ]
        axes.barh(range(len(stacks)), widths, 0.62, left=left, color=colour, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, total in enumerate(totals):
        text = f"{total:.0f} ms" if total >= 10 else f"{total:.1f} ms"
        axes.annotate(text, (100, row), (6, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
    _name_rows(axes, kind, [stack.subject for stack in stacks])


def draw_refit(measured: Measured) -> Figure:
    """Draw seconds and memory of a refit over the number of pictures."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(_WIDTH_IN, 3.9), layout="constrained", dpi=_DPI
    )
    refits = measured.refits
    _curve(left, "seconds of a refit", refits, [refit.seconds for refit in refits], _seconds)
    peaks = [refit.peak_mb for refit in refits]
    _curve(right, "peak memory of the process", refits, peaks, _megabytes)
    target = measured.refit_target_mb
    right.axhline(target, color=_RED, lw=2, ls="--")
    right.annotate(
        f"target for 1M: {_megabytes(target)}", (0, target), (4, 5), va="bottom", color=_RED,
        xycoords=("axes fraction", "data"), textcoords="offset points",
    )  # fmt: skip
    low, high = min(peaks) / 2, max(target, *peaks) * 2
    right.set_ylim(low, high)
    right.set_yticks([tick for tick in _MEMORY_TICKS_MB if low < tick < high])
    return figure


def _curve(
    axes: Axes,
    title: str,
    refits: Sequence[Refit],
    values: Sequence[float],
    text: Callable[[float], str],
) -> None:
    images = [refit.images for refit in refits]
    axes.loglog(images, values, "o-", color=_BLUE, lw=2, ms=8)
    for count, value in zip(images, values, strict=True):
        axes.annotate(text(value), (count, value), (7, -4), textcoords="offset points", va="top")
    axes.set_title(title)
    axes.set_xlabel("stored pictures")
    axes.set_xlim(images[0] / 2, images[-1] * 6)
    axes.set_ylim(min(values) / 3, max(values) * 2)
    axes.set_xticks(images, [_count(count) for count in images])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axes.grid(axis="y", color="#dddddd")


def _count(images: float) -> str:
    return f"{images / 1e6:g}M" if images >= 1e6 else f"{images / 1e3:g}k"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


def _megabytes(value: float) -> str:
    return f"{value / 1000:.2g} GB" if value >= 1000 else f"{value:.0f} MB"


def draw_latency(measured: Measured) -> Figure:
    """Draw how long files wait from drop to folder: single ones, and many at once."""
    waits = measured.latency
    figure, (idle, burst) = _panels([1.6 * len(waits)] * 2, legend_rows=1)
    _waits_panel(idle, "one file, daemon idle", waits, [wait.idle_s for wait in waits])
    if waits[0].idle_target_s is not None:
        idle.axvline(waits[0].idle_target_s, color=_RED, lw=2.5, zorder=0, label="target for p50")
    limit = max(value for wait in waits for value in (*wait.idle_s, wait.idle_target_s or 0))
    idle.set_xlim(0, 1.15 * limit)
    _legend(figure, idle, columns=4)
    images = sorted({wait.burst_images for wait in waits})
    title = f"{' to '.join(f'{count:,}' for count in images[:: len(images) - 1 or 1])} at once"
    _waits_panel(burst, title, waits, [wait.burst_s for wait in waits])
    burst.set_xlabel("seconds from drop to folder, beyond settle_s")
    return figure


def _waits_panel(
    axes: Axes, title: str, waits: Sequence[Waits], seconds: Sequence[tuple[float, ...]]
) -> None:
    height = 0.26
    for number, (share, colour) in enumerate(_SHARE_COLOURS.items()):
        rows = [row + (number - 1) * height for row in range(len(waits))]
        values = [own[number] for own in seconds]
        axes.barh(rows, values, height, color=colour, label=f"p{share}")
        for row, value in zip(rows, values, strict=True):
            axes.annotate(
                f"{value:.2f}" if value < 10 else f"{value:.1f}", (value, row), (5, 0),
                textcoords="offset points", va="center", fontsize=10,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
    axes.set_xlim(0, 1.15 * max(value for own in seconds for value in own))
    _name_rows(axes, title, [wait.subject for wait in waits])


def _panels(rows: Sequence[float], legend_rows: int = 0) -> tuple[Figure, Sequence[Axes]]:
    """Make panels below one another, each as high as its rows."""
    heights = [_ROW_IN * count + 0.75 for count in rows]
    figure, panels = plt.subplots(
        len(heights),
        1,
        figsize=(_WIDTH_IN, sum(heights) + 0.6 + 0.3 * legend_rows),
        height_ratios=heights,
        layout="constrained",
        dpi=_DPI,
        squeeze=False,
    )
    return figure, [row[0] for row in panels]


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def _name_rows(axes: Axes, title: str, subjects: Sequence[str]) -> None:
    names = [subject.replace(" on ", ", ").replace("efficientnet_", "") for subject in subjects]
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_title(title)


_PLOTS: dict[str, tuple[str, Callable[[Measured], Any], Callable[[Measured], Figure]]] = {
    "performance-whole-job": ("throughput", lambda m: m.whole, draw_whole),
    "performance-stages": ("throughput", lambda m: m.stages, draw_stages),
    "performance-refit": ("refit", lambda m: m.refits, draw_refit),
    "performance-latency": ("latency", lambda m: m.latency, draw_latency),
}


def draw_all(measured: Measured, folder: Path) -> list[Path]:
    """Write a PNG for all that was measured; say on stderr what is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (section, data, draw) in _PLOTS.items():
        if not data(measured):
            print(f"{name}.png left out: the section {section} was not measured", file=sys.stderr)
            continue
        with plt.rc_context(_STYLE):
            figure = draw(measured)
            figure.supxlabel(measured.machine, fontsize=10, color="#555555", x=0.99, ha="right")
            path = folder / f"{name}.png"
            figure.savefig(path)
            plt.close(figure)
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the files and write the plots."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plots", description="Draw what python -m benchmarks measured."
    )
    parser.add_argument("json", type=Path, nargs="+", help="files of the benchmark; later ones win")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs"), help="folder (docs)")
    options = parser.parse_args(arguments)
    for path in draw_all(read(options.json), options.out):
        print(path)


if __name__ == "__main__":
    main()
