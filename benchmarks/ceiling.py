"""The model alone against the article's, and against the best matrix product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, Part, Unit, figure_of
from benchmarks.processes import run_module
from benchmarks.roofline import PLAIN_NOTE, WINOGRAD_NOTE, Roofline
from benchmarks.subject import Subject

_ROUNDS_AT_LEAST = 3


def measure(
    pictures: Path,
    subject: Subject,
    article_weights: Path,
    rounds: int,
    say: Callable[[str], None],
) -> Part:
    """Time both models and the products in turns, in one process."""
    say(f"model alone, {subject.name}")
    values = run_module(
        "benchmarks.model_alone",
        pictures,
        "--article-weights",
        article_weights,
        "--rounds",
        str(max(_ROUNDS_AT_LEAST, rounds)),
        *subject.arguments,
    ).values
    return summarise(subject, values)


def summarise(subject: Subject, values: dict[str, Any]) -> Part:
    """Turn what :mod:`benchmarks.model_alone` printed into figures and the roofline's line."""
    article, ours = values["article_s"], values["imgsortd_s"]
    ratios = [theirs / own for theirs, own in zip(article, ours, strict=True)]
    part = Part(f"model alone, {subject.name}", raw=values)
    part.figures = [
        figure_of("model against the article's", ratios, Unit.RATIO),
        figure_of("the article's model", _milliseconds(article), Unit.MILLISECONDS),
        figure_of("imgsortd's model", _milliseconds(ours), Unit.MILLISECONDS, ratios=ratios),
    ]
    part.notes.append(
        f"ran as {values['runs_on']}, {values['threads']} threads, "
        f"batches of {values['batch_images']} prepared pictures"
    )
    gflop = values["gflop_per_image"]
    if gflop is None:
        part.notes.append("no roofline: the extractor does not tell its gflop_per_image")
        return part
    shape, best = best_product(values["products_gflop_s"])
    achieved = [gflop / seconds for seconds in ours]
    roof = Roofline(median(achieved), best)
    part.figures += _roofline_figures(achieved, shape, best)
    part.notes += [
        roof.line(values["precision"], values["threads"]),
        f"{gflop:g} GFLOP an image: {_operations_note(values['runs_on'])}",
    ]
    if values["precision"] == "int8":
        part.notes.append("the products are OpenVINO's, with the rounding of their rows to int8")
    part.raw["roofline"] = {"achieved": roof.achieved, "best": best, "shape": shape}
    return part


def _operations_note(runs_on: str) -> str:
    return WINOGRAD_NOTE if "winograd" in runs_on else PLAIN_NOTE


def _roofline_figures(achieved: Sequence[float], shape: str, best: float) -> list[Figure]:
    return [
        figure_of("imgsortd's model, achieved", achieved, Unit.GFLOPS),
        Figure(f"best matrix product, {shape}", best, Unit.GFLOPS),
        figure_of("roofline: model ÷ product", [rate / best for rate in achieved], Unit.SHARE),
    ]


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    return [1000 * value for value in seconds]


def best_product(rounds: Sequence[dict[str, float]]) -> tuple[str, float]:
    """Return the shape with the highest rate of all rounds, and that rate in GFLOP/s."""
    return max((item for rates in rounds for item in rates.items()), key=lambda item: item[1])
