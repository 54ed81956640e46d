"""How much faster: the whole job against the article's script, the model alone, the stages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pictures import PictureSet
from benchmarks.processes import Finished, count_sorted, run_module
from benchmarks.report import Figure, Part, Target, Unit, figure_of

PICTURES_A_CLUSTER = 10


@dataclass(frozen=True, slots=True)
class Contest:
    """What is sorted by both: one set of pictures into one number of clusters."""

    name: str
    pictures: PictureSet
    target: Target

    @property
    def n_clusters(self) -> int:
        """One for every ten pictures, as ``imgsortd sort`` takes by itself."""
        return max(2, self.pictures.images // PICTURES_A_CLUSTER)


@dataclass(frozen=True, slots=True)
class Weights:
    """What the two work with: a full .pth file, and imgsortd's ``--weights``."""

    article: Path
    imgsortd: str


def measure(
    contests: list[Contest], weights: Weights, rounds: int, work: Path, say: Callable[[str], None]
) -> Part:
    """Run both in turns, each in a fresh process, and compare them round by round."""
    part = Part("throughput")
    for contest in contests:
        _measure_job(part, contest, weights, rounds, work, say)
    _measure_model(part, contests[0], weights, rounds, say)
    for contest in contests:
        say(f"stages, {contest.name}")
        _measure_stages(part, contest, weights, work)
    return part


def _measure_job(
    part: Part,
    contest: Contest,
    weights: Weights,
    rounds: int,
    work: Path,
    say: Callable[[str], None],
) -> None:
    runs: list[dict[str, float]] = []
    for number in range(rounds):
        say(f"{contest.name}, round {number + 1} of {rounds}")
        # A B, B A, …: neither always finds the machine as the other has left it.
        order = (_run_article, _run_imgsortd) if number % 2 == 0 else (_run_imgsortd, _run_article)
        seconds: dict[str, float] = {}
        for run in order:
            seconds |= run(contest, weights, work)
        runs.append(seconds)
        say("  " + " ".join(f"{name}={value:.2f}" for name, value in seconds.items()))
    part.figures += job_figures(contest, runs)
    part.raw[contest.name] = {
        "pictures": contest.pictures.origin,
        "images": contest.pictures.images,
        "n_clusters": contest.n_clusters,
        "rounds": runs,
    }
    part.notes.append(
        f"{contest.name}: {contest.pictures.images} files, k={contest.n_clusters}, "
        f"{contest.pictures.origin}"
    )


def job_figures(contest: Contest, runs: list[dict[str, float]]) -> list[Figure]:
    """Turn the seconds of the rounds into ratios; one ratio a round, so that drift cancels."""
    work = [run["article_work_s"] / run["imgsortd_work_s"] for run in runs]
    whole = [run["article_wall_s"] / run["imgsortd_wall_s"] for run in runs]
    rate = [1000 * run["imgsortd_work_s"] / contest.pictures.images for run in runs]
    return [
        figure_of(f"whole job, {contest.name}", work, Unit.RATIO, contest.target),
        figure_of("  with start and loading of the model", whole, Unit.RATIO),
        figure_of("  imgsortd sort", rate, Unit.MILLISECONDS),
    ]


def _run_article(contest: Contest, weights: Weights, work: Path) -> dict[str, float]:
    target = work / "by-article"
    folder, k = contest.pictures.folder, str(contest.n_clusters)
    done = run_module("benchmarks.article", folder, target, "-k", k, "--weights", weights.article)
    _check(contest, "the article's script", target)
    return {"article_work_s": done.values["work_s"], "article_wall_s": done.wall_s}


def _run_imgsortd(contest: Contest, weights: Weights, work: Path) -> dict[str, float]:
    target = work / "by-imgsortd"
    done = sort(contest.pictures.folder, target, contest.n_clusters, weights.imgsortd)
    _check(contest, "imgsortd sort", target)
    return {"imgsortd_work_s": done.values["total_s"], "imgsortd_wall_s": done.wall_s}


def sort(source: Path, target: Path, n_clusters: int, weights: str) -> Finished:
    """Run ``imgsortd sort`` in a process of its own; return its report."""
    arguments = (source, target, "-k", str(n_clusters), "--weights", weights, "--json")
    return run_module("imgsortd", "sort", *arguments)


def _check(contest: Contest, who: str, target: Path) -> None:
    """Refuse the time of a job that was not done whole."""
    done, asked = count_sorted(target), contest.pictures.images
    shutil.rmtree(target)
    if done != asked:
        raise SystemExit(f"{contest.name}: expected {who} to place {asked} pictures, got {done}")


def _measure_model(
    part: Part, contest: Contest, weights: Weights, rounds: int, say: Callable[[str], None]
) -> None:
    say("model alone")
    arguments = ("--article-weights", weights.article, "--weights", weights.imgsortd)
    more = ("--rounds", str(max(3, 2 * rounds)))
    values = run_module("benchmarks.model_alone", contest.pictures.folder, *arguments, *more).values
    ratios = [
        article / ours
        for article, ours in zip(values["article_s"], values["imgsortd_s"], strict=True)
    ]
    part.figures.append(figure_of("model alone", ratios, Unit.RATIO))
    part.notes.append(f"model alone: imgsortd's ran as {values['runs_on']}")
    part.raw["model alone"] = values


def _measure_stages(part: Part, contest: Contest, weights: Weights, work: Path) -> None:
    target = work / "by-stages"
    arguments = (contest.pictures.folder, target, "-k", str(contest.n_clusters))
    values = run_module("benchmarks.stages", *arguments, "--weights", weights.imgsortd).values
    shutil.rmtree(target)
    stages: dict[str, Any] = values["ms_per_image"]
    part.figures += [
        Figure(f"{contest.name}: {stage}", value, Unit.MILLISECONDS)
        for stage, value in stages.items()
    ]
    # Each process measures anew which arithmetic is fastest; on a busy machine it may err.
    part.notes.append(f"stages, {contest.name}: the model ran as {values['runs_on']}")
    part.raw[f"stages, {contest.name}"] = values
