"""Each stage of imgsortd alone: nothing beside it, one picture or one batch after another.

Run as ``python -m benchmarks.stages SOURCE WORK …`` it prints JSON: milliseconds an image
by stage. In the daemon and in ``sort`` the first three happen in threads beside the model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.clocks import Halves, at_first_layer, at_first_resize
from benchmarks.pictures import picture_paths
from benchmarks.stage_names import ASSIGN, STAGE_TITLES
from benchmarks.subject import add_subject, model_config
from imgsortd.adapters import fsops, images, leases
from imgsortd.adapters.decoding import Decoder
from imgsortd.adapters.features import build_extractor
from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store import open_store
from imgsortd.adapters.store_records import FitRecord
from imgsortd.adapters.weight_sources import default_cache_dir
from imgsortd.config import Config, ModelConfig
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Candidate, ExtractorId, Op, Picture, Pixels, SizePx, Vectors
from imgsortd.core.routing import nearest
from imgsortd.library import FeatureExtractor, Library, open_library
from imgsortd.pipeline import process_batch

MANY_CENTERS = 1000


class Prepared:
    """A FeatureExtractor that has computed its pictures before."""

    def __init__(self, made_by: FeatureExtractor, features: Sequence[Vectors]) -> None:
        self.id: ExtractorId = made_by.id
        self.batch_images = made_by.batch_images
        self.on_cpu = made_by.on_cpu
        self.describe = made_by.describe
        self.unload = made_by.unload
        self._rest = iter(features)

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Return the next prepared features, float32 [n, d]."""
        rows = [next(self._rest) for _ in pixels]
        return np.stack(rows) if rows else np.empty((0, self.id.dims), dtype=np.float32)


def run(source: Path, work: Path, model: ModelConfig) -> dict[str, Any]:
    """Do every stage of a job that moves the pictures of ``source``; return plain values."""
    inbox, target = work / "inbox", work / "sorted"
    shutil.copytree(source, inbox)
    target.mkdir()
    leases.allow_leases()
    paths = picture_paths(inbox)
    extractor = build_extractor(model, default_cache_dir())
    seconds: dict[str, float] = {}
    config = Config(inbox=inbox, target=target, state_dir=work / "state", op=Op.MOVE, model=model)
    store = open_store(config.database)
    try:
        library = open_library(config, store, extractor)
        candidates = _arrive(library, paths)
        hashes, seconds["read and hash"] = _read_and_hash(inbox, candidates)
        pixels, decode = _decode(paths)
        seconds |= decode
        features, model_seconds = _extract(extractor, pixels)
        seconds["transform"] += model_seconds["normalise"]
        seconds["model"] = model_seconds["model"]
        seconds[ASSIGN] = _assign(features, extractor.batch_images)
        pictures = [Picture(*row) for row in zip(candidates, hashes, pixels, strict=True)]
        seconds |= _store_and_move(library, pictures, features)
    finally:
        store.close()
    return {
        "images": len(paths),
        "runs_on": extractor.describe(),
        "ms_per_image": {
            stage: 1000 * seconds[stage] / len(paths) for stage in (*STAGE_TITLES, ASSIGN)
        },
        "normalise_ms_per_image": 1000 * model_seconds["normalise"] / len(paths),
    }


def _arrive(library: Library, paths: Sequence[Path]) -> list[Candidate]:
    settled = [(os.fsencode(path.name), fsops.stamp_of(path.stat())) for path in paths]
    with library.store.atomic():
        return [arrival.candidate for arrival in library.store.files.arrive(settled)]


def _read_and_hash(inbox: Path, candidates: Sequence[Candidate]) -> tuple[list[bytes], float]:
    """Read through imgsortd's reader, with nothing in the place of its decoder."""
    nothing = np.zeros((224, 224, 3), dtype=np.uint8)

    def no_decode(*_: object, **__: object) -> tuple[Pixels, SizePx]:
        return nothing, (224, 224)

    reader = PictureReader(inbox)
    try:
        with mock.patch.object(Decoder, "decode_sized", no_decode):
            started = time.perf_counter()
            results = [reader.read(candidate) for candidate in candidates]
            read_s = time.perf_counter() - started
    finally:
        reader.close()
    for result in results:
        if not isinstance(result, Picture):
            raise SystemExit(f"{os.fsdecode(result.candidate.name)}: could not be read: {result}")
    return [result.sha256 for result in results if isinstance(result, Picture)], read_s


def _decode(paths: Sequence[Path]) -> tuple[list[Pixels], dict[str, float]]:
    halves = Halves()
    with at_first_resize(halves):
        pixels = [halves.call(images.decode, path.read_bytes()) for path in paths]
    return pixels, {"decode": halves.before_s, "transform": halves.after_s}


def _extract(
    extractor: FeatureExtractor, pixels: Sequence[Pixels]
) -> tuple[Vectors, dict[str, float]]:
    batches = list(_batches(pixels, extractor.batch_images))
    extractor.extract(batches[0])  # the first one only warms up
    halves = Halves()
    with at_first_layer(halves):
        features = [halves.call(extractor.extract, batch) for batch in batches]
    normalise_s, model_s = halves.before_s, halves.after_s
    if not model_s:  # no layer of torch was seen
        normalise_s, model_s = 0.0, normalise_s
    return np.concatenate(features), {"normalise": normalise_s, "model": model_s}


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _assign(features: Vectors, size: int) -> float:
    """Find the nearest of a thousand centers, batch by batch."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((MANY_CENTERS, features.shape[1])).astype(np.float32)
    nearest(features[:size], centers)  # the first one only warms up
    started = time.perf_counter()
    for start in range(0, len(features), size):
        nearest(features[start : start + size], centers)
    return time.perf_counter() - started


def _store_and_move(
    library: Library, pictures: Sequence[Picture], features: Vectors
) -> dict[str, float]:
    """Take batches whose features are known through the pipeline, with a clock on the moves."""
    _save_fit(library, features)
    library.extractor = Prepared(library.extractor, list(features))
    moves = Halves()
    apply = library.mover.apply
    # The whole call lies behind the event: all of it is a move.
    with mock.patch.object(library.mover, "apply", lambda *a, **o: moves.call(apply, *a, **o)):
        started = time.perf_counter()
        placed = 0
        for batch in _batches(pictures, library.max_images):
            placed += process_batch(library, batch).sorted
        total_s = time.perf_counter() - started
    if placed != len(pictures):
        raise SystemExit(f"expected {len(pictures)} pictures to be moved, got {placed}")
    return {"SQLite": total_s - moves.before_s, "move": moves.before_s}


def _save_fit(library: Library, features: Vectors) -> None:
    """Make some of the features the centers: routing asks only that there are any."""
    centers = np.ascontiguousarray(features[: max(1, len(features) // 10)])
    ids, sizes = range(len(centers)), [1] * len(centers)
    record = FitRecord(FitTrigger.SORT, "none", len(features), 0, 0.0, None, 0.0)
    with library.store.atomic():
        library.model = library.store.fits.save(library.extractor.id, centers, ids, sizes, record)


def main() -> None:
    """Do the stages and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages")
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    add_subject(parser)
    options = parser.parse_args()
    source, work = options.source.resolve(), options.work.resolve()
    print(json.dumps(run(source, work, model_config(options))))


if __name__ == "__main__":
    main()
