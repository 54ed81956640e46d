"""How much faster: the article's script, imgsortd's stages and the whole ``sort``, in turns."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.figures import Figure, Part, Unit, figure_of
from benchmarks.pictures import PictureSet
from benchmarks.processes import Finished, count_sorted, run_module
from benchmarks.stage_names import ASSIGN, ASSIGN_TITLE, STAGE_TITLES
from benchmarks.subject import Subject
from benchmarks.targets import Kind, whole_sort_target

PICTURES_A_CLUSTER = 10
WHOLE_SORT = "whole sort against the article"

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contest:
    """What is sorted by all: one set of pictures into one number of clusters."""

    kind: Kind
    pictures: PictureSet

    @property
    def n_clusters(self) -> int:
        """One for every ten pictures, as ``imgsortd sort`` takes by itself."""
        return max(2, self.pictures.images // PICTURES_A_CLUSTER)


@dataclass(frozen=True, slots=True)
class Round:
    """One subject's measurements of one round, with the article's of the same round.

    ``stages_ms`` is milliseconds an image by stage, each alone.
    """

    article_work_s: float
    article_wall_s: float
    sort_work_s: float
    sort_wall_s: float
    stages_ms: dict[str, float]


def in_turns(jobs: Sequence[T], number: int) -> list[T]:
    """Order the jobs of a round: A B C, then C B A, so that drift of the machine cancels."""
    return list(jobs) if number % 2 == 0 else list(reversed(jobs))


def measure(
    contest: Contest,
    subjects: Sequence[Subject],
    article_weights: Path,
    rounds: int,
    work: Path,
    say: Say,
) -> list[Part]:
    """Run all in turns, each in a fresh process, and compare them round by round."""
    jobs: dict[str, Callable[[], Finished]] = {
        "article": partial(_run_article, contest, article_weights, work)
    }
    for subject in subjects:
        jobs[f"stages, {subject.name}"] = partial(_run_stages, contest, subject, work)
        jobs[f"sort, {subject.name}"] = partial(_run_sort, contest, subject, work)
    results: list[dict[str, Finished]] = []
    for number in range(rounds):
        results.append({})
        for name in in_turns(list(jobs), number):
            results[-1][name] = jobs[name]()
            say(
                f"{contest.kind}, round {number + 1} of {rounds}: {name}, "
                f"{results[-1][name].wall_s:.1f} s in all"
            )
    return [_part(contest, subject, results) for subject in subjects]


def _part(contest: Contest, subject: Subject, results: Sequence[dict[str, Finished]]) -> Part:
    stages = [result[f"stages, {subject.name}"].values for result in results]
    rounds = [
        _round(result["article"], result[f"sort, {subject.name}"], own)
        for result, own in zip(results, stages, strict=True)
    ]
    pictures = contest.pictures
    done = [result[f"sort, {subject.name}"].values for result in results]
    ran_as = ", ".join(sorted({own["runs_on"] for own in done}))
    notes = [
        f"{pictures.images} files, k={contest.n_clusters}, {pictures.origin}",
        f"the model ran as {ran_as}",
    ]
    raw = {
        "pictures": pictures.origin,
        "images": pictures.images,
        "n_clusters": contest.n_clusters,
        "rounds": [
            {name: {**done.values, "wall_s": done.wall_s} for name, done in result.items()}
            for result in results
        ],
    }
    figures = [*job_figures(contest, subject, rounds), *stage_figures(pictures.images, rounds)]
    return Part(f"throughput, {contest.kind}, {subject.name}", figures, notes, raw)


def _round(article: Finished, sort: Finished, stages: dict[str, Any]) -> Round:
    return Round(
        article.values["work_s"],
        article.wall_s,
        sort.values["total_s"],
        sort.wall_s,
        stages["ms_per_image"],
    )


def job_figures(contest: Contest, subject: Subject, rounds: Sequence[Round]) -> list[Figure]:
    """Turn the seconds of the rounds into ratios; one ratio a round, so that drift cancels."""
    images, target = contest.pictures.images, whole_sort_target(subject, contest.kind)
    work = [run.article_work_s / run.sort_work_s for run in rounds]
    wall = [run.article_wall_s / run.sort_wall_s for run in rounds]

    def per_image(name: str, seconds: list[float], ratios: Sequence[float] = ()) -> Figure:
        milliseconds = [1000 * value / images for value in seconds]
        return figure_of(name, milliseconds, Unit.MILLISECONDS, ratios=ratios)

    return [
        figure_of(WHOLE_SORT, work, Unit.RATIO, target),
        figure_of("  with start and loading of the model", wall, Unit.RATIO),
        per_image("the article's script", [run.article_work_s for run in rounds]),
        per_image("imgsortd sort", [run.sort_work_s for run in rounds], work),
    ]


def stage_figures(images: int, rounds: Sequence[Round]) -> list[Figure]:
    """Return a row for each stage, and one for all of them one after another."""
    article_ms = [1000 * run.article_work_s / images for run in rounds]

    def row(title: str, values: Sequence[float]) -> Figure:
        ratios = [whole / max(value, 1e-9) for whole, value in zip(article_ms, values, strict=True)]
        return figure_of(title, values, Unit.MILLISECONDS, ratios=ratios)

    rows = [
        row(f"  {title}", [run.stages_ms[stage] for run in rounds])
        for stage, title in STAGE_TITLES.items()
    ]
    in_sum = [sum(run.stages_ms[stage] for stage in STAGE_TITLES) for run in rounds]
    assign = [run.stages_ms[ASSIGN] for run in rounds]
    return [row("stages alone, in sum", in_sum), *rows, row(ASSIGN_TITLE, assign)]


def _run_article(contest: Contest, weights: Path, work: Path) -> Finished:
    target = work / "by-article"
    folder, k = contest.pictures.folder, str(contest.n_clusters)
    done = run_module("benchmarks.article", folder, target, "-k", k, "--weights", weights)
    _check(contest, "the article's script", target)
    return done


def _run_stages(contest: Contest, subject: Subject, work: Path) -> Finished:
    folder = work / "by-stages"
    folder.mkdir()
    try:
        return run_module("benchmarks.stages", contest.pictures.folder, folder, *subject.arguments)
    finally:
        shutil.rmtree(folder)


def _run_sort(contest: Contest, subject: Subject, work: Path) -> Finished:
    target = work / "by-imgsortd"
    done = sort(contest.pictures.folder, target, contest.n_clusters, subject)
    _check(contest, "imgsortd sort", target)
    return done


def sort(source: Path, target: Path, n_clusters: int, subject: Subject) -> Finished:
    """Run ``imgsortd sort`` in a process of its own; return its report."""
    options = ("-k", str(n_clusters), *subject.arguments, "--json")
    return run_module("imgsortd", "sort", source, target, *options)


def _check(contest: Contest, who: str, target: Path) -> None:
    """Refuse the time of a job that was not done whole."""
    done, asked = count_sorted(target), contest.pictures.images
    shutil.rmtree(target)
    if done != asked:
        raise SystemExit(f"{contest.kind}: expected {who} to place {asked} pictures, got {done}")
