"""How much faster: the article's script, imgsortd's stages and the whole ``sort``, in turns.

Each is a fresh process; the ratios are taken within a round. A stage alone has nothing beside
it: one picture or one batch after another. In the daemon and in ``sort`` the first three
happen in threads beside the model.
"""

from __future__ import annotations

import os
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.figures import Figure, Part, Target, Unit, at_least, figure_of, say
from benchmarks.models import Subject, build
from benchmarks.pictures import Kind, PictureSet, both_kinds, picture_paths
from benchmarks.processes import Finished, call, count_sorted, imgsortd
from benchmarks.shelf import open_roots
from imgsortd.config.model import Config
from imgsortd.library import Library, open_library
from imgsortd.networks.model_thread import Computed
from imgsortd.networks.sources import default_cache_dir
from imgsortd.pictures.decoder import Decoder
from imgsortd.pictures.pixels import decode
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.line import Line, end
from imgsortd.records import FitTrigger, Op, Picture, Pixels, Vectors
from imgsortd.store.database import open_for_writing
from imgsortd.store.fits import FitRecord
from imgsortd.system import filesystem

WHOLE_SORT = "whole sort against the article"
# Times as fast as the article's script; VGG16 on OpenVINO was promised for int8 only.
_VGG16_TIMES = {
    ("torch", Kind.PHOTOS): 3.3,
    ("torch", Kind.CAMERAS): 4.2,
    ("openvino int8", Kind.PHOTOS): 6.0,
    ("openvino int8", Kind.CAMERAS): 7.5,
}
_LITE_TIMES = 8.0
STAGE_TITLES = {
    "read and hash": "read and hash",
    "decode": "decode",
    "transform": "transform: resize, crop",
    "model": "model, with its normalisation",
    "SQLite": "SQLite, 2 transactions a batch",
    "move": "move, journalled",
}
Rounds = Sequence[dict[str, dict[str, Any]]]
"""By round what ``article``, ``stages`` and ``sort`` told, each with its ``wall_s``."""


def in_turns(jobs: Sequence[Any], number: int) -> list[Any]:
    """Order the jobs of a round: A B C, then C B A, so that drift of the machine cancels."""
    return list(jobs) if number % 2 == 0 else list(reversed(jobs))


def target_of(subject: Subject, kind: Kind) -> Target | None:
    """Return how many times as fast as the article's script the whole ``sort`` should be."""
    way = f"{subject.engine} int8" if subject.precision == "int8" else subject.engine
    times = _VGG16_TIMES.get((way, kind)) if subject.backbone == "vgg16" else _LITE_TIMES
    return None if times is None else at_least(times)


def article_weights(options: Namespace) -> Path:
    """Return the weights given for the article's script, else random ones, made once."""
    if options.article_weights is not None:
        return Path(options.article_weights)
    say("the article's script runs with random weights: for time the values do not matter")
    full = default_cache_dir() / "random-vgg16.pth"
    if not full.exists():
        part = full.with_suffix(".part")
        call("benchmarks.article:save_random_weights", part)
        part.replace(full)
    return full


def measure(options: Namespace, work: Path) -> list[Part]:
    """Run all in turns on each kind of pictures and compare them round by round."""
    weights, parts = article_weights(options), []
    for kind, pictures in both_kinds(options, work).items():
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(options.rounds):
            rounds.append({})
            jobs = _jobs(pictures, options.subjects, weights, work)
            for name, job in in_turns(list(jobs.items()), number):
                done = job()
                rounds[-1][name] = {**done.values, "wall_s": done.wall_s}
                say(f"{kind}, round {number + 1} of {options.rounds}: {name}, {done.wall_s:.1f} s")
        for subject in options.subjects:
            part = Part(f"throughput, {kind}, {subject.name}", raw={"rounds": rounds})
            own = [
                {name.removesuffix(f", {subject.name}"): told for name, told in one.items()}
                for one in rounds
            ]
            part.figures = job_figures(pictures.images, own, target_of(subject, kind))
            part.figures += stage_figures(own)
            part.notes = [
                f"{pictures.images} files, k={pictures.n_clusters}, {pictures.origin}",
                f"the model ran as {own[0]['sort']['runs_on']}",
            ]
            parts.append(part)
    return parts


def _jobs(
    pictures: PictureSet, subjects: Sequence[Subject], weights: Path, work: Path
) -> dict[str, Callable[[], Finished]]:
    target, k = work / "sorted", pictures.n_clusters

    def by_article() -> Finished:
        job = ("benchmarks.article:sort_folder", pictures.folder, target, weights, k)
        return _whole(pictures, target, call(*job))

    def sort(subject: Subject) -> Finished:
        options = ("-k", str(k), *subject.arguments, "--json")
        return _whole(pictures, target, imgsortd("sort", pictures.folder, target, *options))

    jobs: dict[str, Callable[[], Finished]] = {"article": by_article}
    for subject in subjects:
        job = (time_stages, pictures.folder, work / "stages", subject.settings)
        jobs[f"stages, {subject.name}"] = partial(call, *job)
        jobs[f"sort, {subject.name}"] = partial(sort, subject)
    return jobs


def _whole(pictures: PictureSet, target: Path, done: Finished) -> Finished:
    """Refuse the time of a job that was not done whole."""
    placed = count_sorted(target)
    shutil.rmtree(target)
    if placed != pictures.images:
        raise SystemExit(f"expected {pictures.images} pictures in folders, got {placed}")
    return done


def job_figures(images: int, rounds: Rounds, target: Target | None) -> list[Figure]:
    """Turn the seconds of the rounds into ratios; one ratio a round, so that drift cancels."""
    told = [(one["article"], one["sort"], one["stages"]["ms_per_image"]) for one in rounds]
    work = [article["work_s"] / sort["total_s"] for article, sort, _ in told]
    wall = [article["wall_s"] / sort["wall_s"] for article, sort, _ in told]
    article_ms = [1000 * article["work_s"] / images for article, _, _ in told]
    sort_ms = [1000 * sort["total_s"] / images for _, sort, _ in told]
    model = [ms["model"] * sort["images_per_s"] / 1000 for _, sort, ms in told]
    busy = [sort["model_busy"] for _, sort, _ in told]
    return [
        figure_of(WHOLE_SORT, work, Unit.RATIO, target),
        figure_of("  with start and loading of the model", wall, Unit.RATIO),
        figure_of("the article's script", article_ms, Unit.MILLISECONDS),
        figure_of("imgsortd sort", sort_ms, Unit.MILLISECONDS),
        figure_of("features stage of sort ÷ model alone", model, Unit.SHARE, at_least(0.85)),
        figure_of("  model busy in it", busy, Unit.SHARE),
    ]


def stage_figures(rounds: Rounds) -> list[Figure]:
    """Return a row for each stage, and one for all of them one after another."""
    stages_ms = [one["stages"]["ms_per_image"] for one in rounds]
    in_sum = [sum(one[stage] for stage in STAGE_TITLES) for one in stages_ms]
    rows = {"stages alone, in sum": in_sum} | {
        f"  {title}": [one[stage] for one in stages_ms] for stage, title in STAGE_TITLES.items()
    }
    return [figure_of(title, values, Unit.MILLISECONDS) for title, values in rows.items()]


def time_stages(source: str, work: str, settings: dict[str, str]) -> dict[str, Any]:
    """Do every stage of a job that moves the pictures of ``source``; return ms an image."""
    folder, seconds = Path(work).resolve(), dict[str, float]()
    inbox, target = folder / "inbox", folder / "sorted"
    target.mkdir(parents=True)
    shutil.copytree(source, inbox)
    filesystem.allow_leases()
    paths, extractor = picture_paths(inbox), build(settings)
    store = open_for_writing(folder / "imgsortd.db")
    config = Config(inbox=inbox, target=target, state_dir=folder, op=Op.MOVE)
    library = open_library(config, store, extractor, open_roots(config, store))
    settled = [(os.fsencode(path.name), filesystem.stamp_of(path.stat())) for path in paths]
    with store.atomic():
        candidates = [arrival.candidate for arrival in store.files.arrive(settled)]
    # Through imgsortd's reader, with nothing in the place of its decoder.
    nothing, reader = np.zeros((224, 224, 3), dtype=np.uint8), PictureReader(inbox)
    with mock.patch.object(Decoder, "decode_sized", return_value=(nothing, (224, 224))):
        started = time.perf_counter()
        results = [reader.read(candidate) for candidate in candidates]
        seconds["read and hash"] = time.perf_counter() - started
    reader.close()
    read = [result for result in results if isinstance(result, Picture)]
    pixels, seconds["decode"], seconds["transform"] = decode_all(paths)
    batches = list(_batches(pixels, extractor.batch_images))
    extractor.extract(batches[0])  # the first one only warms up
    started = time.perf_counter()
    features = np.concatenate([extractor.extract(batch) for batch in batches])
    seconds["model"] = time.perf_counter() - started
    seconds["SQLite"], seconds["move"] = _store_and_move(library, read, features)
    store.close()
    shutil.rmtree(folder)
    per_image = {stage: 1000 * value / len(paths) for stage, value in seconds.items()}
    return {"images": len(paths), "runs_on": extractor.describe(), "ms_per_image": per_image}


def decode_all(paths: Sequence[Path]) -> tuple[list[Pixels], float, float]:
    """Decode; return the pixels, and the seconds before and after the first resize of each.

    That border belongs to Pillow, not to a private function of imgsortd.
    """
    resize, marks = Image.Image.resize, list[float]()

    def marked(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        image.load()  # a resize would do it; it is the decoder's work
        marks.append(time.perf_counter())
        return resize(image, *arguments, **options)

    pixels, before_s, after_s = [], 0.0, 0.0
    with mock.patch.object(Image.Image, "resize", marked):
        for path in paths:
            data = path.read_bytes()
            marks[:] = [time.perf_counter()]
            pixels.append(decode(data))
            marks.append(time.perf_counter())
            before_s, after_s = before_s + marks[1] - marks[0], after_s + marks[-1] - marks[1]
    return pixels, before_s, after_s


def _batches(items: Any, size: int) -> Iterator[Any]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _store_and_move(
    library: Library, pictures: Sequence[Picture], features: Vectors
) -> tuple[float, float]:
    """Take batches whose features are known through the pipeline; return seconds of both."""
    # Some of the features are the centers: routing asks only that there are any.
    centers = np.ascontiguousarray(features[: max(1, len(features) // 10)])
    ids, sizes = range(len(centers)), [1] * len(centers)
    record = FitRecord(FitTrigger.SORT, "none", len(features), 0, 0.0, None, 0.0)
    with library.store.atomic():
        model = library.store.fits.save(library.extractor.id, centers, ids, sizes, record)
    library.in_force.switch(model)
    in_force, moves, companions = library.in_force, library.moves, library.companions
    line = Line(library.store, library.extractor, in_force, moves, companions, lambda: False)
    known = {picture.sha256: row for picture, row in zip(pictures, features, strict=True)}
    apply, placed, moves_s = library.mover.apply, 0, list[float]()

    def timed(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        done = apply(*arguments, **options)
        moves_s.append(time.perf_counter() - started)
        return done

    started = time.perf_counter()
    with mock.patch.object(library.mover, "apply", timed):
        for batch in _batches(pictures, library.extractor.batch_images):
            way = line.way(batch)
            vectors = np.stack([known[picture.sha256] for picture in batch])
            next(way)
            placed += end(way, Computed(vectors, 0.0)).sorted
    total_s = time.perf_counter() - started
    if placed != len(pictures):
        raise SystemExit(f"expected {len(pictures)} pictures to be moved, got {placed}")
    return total_s - sum(moves_s), sum(moves_s)
