"""A store as a large library leaves it: features, files that were moved, and a fit.

Run as ``python -m benchmarks.synthetic CONFIG -n IMAGES`` it writes the store that the
configuration names, through imgsortd's own store, in one transaction. The features are
unit vectors scattered around a few hundred centers. No picture exists.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store import Store, open_store
from imgsortd.adapters.store_records import FitRecord
from imgsortd.config import load_config
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import (
    ExtractorId,
    FileState,
    Layer,
    MovePhase,
    MoveResult,
    Op,
    Route,
    Stamp,
    Vectors,
)
from imgsortd.core.routing import cluster_folder

N_CENTERS = 300
DIMS = 512
EXTRACTOR = ExtractorId("synthetic", Layer.POOL5, DIMS)
# Distance of a feature to its center, as between photographs of one kind.
_SCATTER = 0.6
_CHUNK_ROWS = 8192
# The indices of a million rows are filled in random order: in memory, not page by page.
_CACHE_KIB = 1 << 20
_SIZE_BYTES, _MTIME_NS = 150_000, 1_700_000_000 * 10**9


def make_centers(seed: int = 0) -> Vectors:
    """Return ``N_CENTERS`` directions, float32 [300, 512], length 1, none below zero.

    Features of a ReLU network are not negative either.
    """
    rng = np.random.default_rng(seed)
    return _unit(np.abs(rng.standard_normal((N_CENTERS, DIMS))).astype(np.float32) ** 3)


def make_features(centers: Vectors, labels: npt.NDArray[np.intp], seed: int) -> Vectors:
    """Return one feature a label, float32 [n, d], length 1, around its center."""
    rng = np.random.default_rng(seed)
    dims = centers.shape[1]
    noise = rng.standard_normal((len(labels), dims), dtype=np.float32) * (_SCATTER / dims**0.5)
    return _unit(np.maximum(centers[labels] + noise, 0))


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def fill(store: Store, images: int, seed: int = 0) -> None:
    """Write ``images`` sorted files with their features, and the fit they were sorted by."""
    rng = np.random.default_rng(seed)
    centers = make_centers(seed)
    labels = rng.integers(0, N_CENTERS, images)
    hashes = np.sort(rng.integers(0, 2**63, images))
    store.db.conn.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    with store.atomic():
        fit_id = _save_fit(store, centers, labels)
        # In the order of their key, so that the largest table grows at its end only.
        for part in _chunks(images):
            vectors = make_features(centers, labels[part], seed + part.start)
            digests = [_digest(number) for number in hashes[part].tolist()]
            store.fits.put_features(EXTRACTOR, digests, vectors)
        # Files come in another order than their hashes.
        order = rng.permutation(images)
        for part in _chunks(images):
            _put_files(store, part.start, hashes[order[part]], labels[order[part]], fit_id)


def _chunks(images: int) -> Iterator[slice]:
    for start in range(0, images, _CHUNK_ROWS):
        yield slice(start, min(images, start + _CHUNK_ROWS))


def _digest(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(24)


def _save_fit(store: Store, centers: Vectors, labels: npt.NDArray[np.intp]) -> int:
    sizes = np.bincount(labels, minlength=len(centers)).tolist()
    record = FitRecord(FitTrigger.BOOTSTRAP, "synthetic", len(labels), 0, 0.0, None, 0.0)
    return store.fits.save(EXTRACTOR, centers, range(len(centers)), sizes, record).fit_id


def _put_files(
    store: Store,
    start: int,
    hashes: npt.NDArray[np.int64],
    labels: npt.NDArray[np.intp],
    fit_id: int,
) -> None:
    """Take files in, plan their moves and close these, as batches of the pipeline do."""
    names = [b"picture-%08d.jpg" % (start + row) for row in range(len(hashes))]
    stamps = [
        Stamp(start + row + 1, 150_000, 1_700_000_000_000_000_000) for row in range(len(names))
    ]
    arrivals = store.files.arrive(list(zip(names, stamps, strict=True)))
    batch = store.journal.next_batch()
    results = []
    for arrival, number, label in zip(arrivals, hashes.tolist(), labels.tolist(), strict=True):
        candidate, sha256 = arrival.candidate, _digest(number)
        store.files.set_read(candidate, sha256)
        folder = cluster_folder(label)
        route = Route(candidate.file_id, FileState.SORTED, folder, label, _SCATTER)
        dst = folder + b"/" + candidate.name
        move = store.journal.plan(
            candidate, sha256, route, op=Op.MOVE, dst=dst, fit_id=fit_id, batch=batch
        )
        results.append(MoveResult(move, MovePhase.DONE, dst))
    store.journal.close(results)


def main() -> None:
    """Fill a store and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic")
    parser.add_argument("config", type=Path)
    parser.add_argument("-n", "--images", type=int, required=True)
    options = parser.parse_args()
    started = time.perf_counter()
    config = load_config(options.config)
    store = open_store(config.database)
    try:
        fill(store, options.images)
    finally:
        store.close()
    size_bytes = config.database.stat().st_size
    seconds = time.perf_counter() - started
    print(json.dumps({"images": options.images, "fill_s": seconds, "size_bytes": size_bytes}))


if __name__ == "__main__":
    main()
