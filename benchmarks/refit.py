"""A refit of very many stored features: seconds, memory; and what ``status`` takes with them.

The store is as a large library leaves it, but no picture exists. The refit is what ``imgsortd
refit`` does, in a process that has torch loaded, but no weights: the memory is to be the fit's.
"""

from __future__ import annotations

import resource
import shutil
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.figures import Figure, Part, Unit, at_most, figure_of, say
from benchmarks.processes import call, imgsortd, write_config
from benchmarks.shelf import Labels, NoModel, open_roots
from imgsortd.clusters.fit import compute_fit, fit_source
from imgsortd.config import load_config
from imgsortd.library import open_library
from imgsortd.names import cluster_folder
from imgsortd.records import (
    ExtractorId,
    FileState,
    FitTrigger,
    Layer,
    Move,
    MovePhase,
    MoveResult,
    Op,
    Root,
    Route,
    Stamp,
    Vectors,
)
from imgsortd.refits.adopting import Adoption
from imgsortd.refits.facts import start_now
from imgsortd.store.database import Store, open_for_writing
from imgsortd.store.fits import FitRecord

PEAK_TARGET, _STATUS_TARGET = at_most(2000.0), at_most(0.3)
# The promises are given for so many stored features.
_PROMISED_FEATURES = 1_000_000
_N_CLUSTERS = 100  # the article's
_STATUS_ROUNDS, _MB, _KIB = 5, 1e6, 1024
N_CENTERS, _DIMS = 300, 512
_EXTRACTOR = ExtractorId("synthetic", Layer.POOL5, _DIMS)
# Distance of a feature to its center, as between photographs of one kind.
_SCATTER = 0.6
_CHUNK_ROWS = 8192
# The indices of a million rows are filled in random order: in memory, not page by page.
_CACHE_KIB = 1 << 20
_SIZE_BYTES, _MTIME_NS = 150_000, 1_700_000_000 * 10**9


def measure(options: Namespace, work: Path) -> list[Part]:
    """Fill a store of each size, refit it in a process of its own, and ask for its status."""
    part = Part("refit")
    for images in options.refit_sizes:
        folder = work / str(images)
        clusters = {"n_clusters": _N_CLUSTERS, "min_images": _N_CLUSTERS}
        config_file = write_config(folder, clusters=clusters)
        say(f"refit: {images:,} features")
        call(fill, config_file, images)
        values = call(refit_once, config_file).values
        status_s, start_s = [], []
        for _ in range(_STATUS_ROUNDS):  # in turns with a command that reads no store
            status_s.append(imgsortd("status", "-c", config_file).wall_s)
            start_s.append(imgsortd("--version").wall_s)
        shutil.rmtree(folder)  # a million features are gigabytes
        part.raw[str(images)] = values | {"status_s": status_s, "program_start_s": start_s}
        part.figures += size_figures(images, part.raw[str(images)])
    part.notes = [
        f"synthetic features: unit vectors of {_DIMS} around {N_CENTERS} centers, k={_N_CLUSTERS}; "
        "each size in a process of its own, torch loaded, no weights",
        "peak: the greatest RSS of that process; the fit's: that without what was there before",
        "status: the whole command, the start of Python in it; MB = 10⁶ bytes",
    ]
    return [part]


def size_figures(images: int, values: dict[str, Any]) -> list[Figure]:
    """Turn one size's numbers into figures; the promises are for a million and more."""
    promised = images >= _PROMISED_FEATURES
    peak, status = (PEAK_TARGET, _STATUS_TARGET) if promised else (None, None)
    peak_mb, fit_mb = values["peak_bytes"] / _MB, values["fit_bytes"] / _MB
    return [
        Figure(f"{images:,} features, {values['algorithm']}", values["refit_s"], Unit.SECONDS),
        Figure("  peak memory", peak_mb, Unit.MEGABYTES, peak),
        Figure("  of it the fit's", fit_mb, Unit.MEGABYTES),
        figure_of("  status", values["status_s"], Unit.SECONDS, status),
        figure_of("    of it Python and the program", values["program_start_s"], Unit.SECONDS),
    ]


def refit_once(config_file: str) -> dict[str, Any]:
    """Refit as the command does when no daemon runs; return its seconds and its memory."""
    import sklearn.cluster  # noqa: F401  both are loaded before the fit's memory is counted
    import torch  # noqa: F401

    config = load_config(Path(config_file))
    before_bytes, started = psutil.Process().memory_info().rss, time.perf_counter()
    store = open_for_writing(config.database)
    library = open_library(config, store, NoModel(_EXTRACTOR), open_roots(config, store))
    in_force, moves = library.in_force, library.moves
    start = start_now(store, config.refit.max_churn)
    source = fit_source(store, _EXTRACTOR, in_force, start)
    fitted = compute_fit(source, config.clusters.wanted, config.clusters.random_state)
    adoption = Adoption(config, store, _EXTRACTOR, in_force, moves)
    basis, trigger = in_force.model, FitTrigger.REQUEST
    settled = adoption.settle(fitted, trigger, basis=basis, accept=True)
    summary = settled.moved(adoption.follow(settled.following)).as_dict()
    store.close()
    peak_bytes = _KIB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit_bytes, refit_s = peak_bytes - before_bytes, time.perf_counter() - started
    told = {key: summary[key] for key in ("n_images", "n_clusters", "algorithm", "fit_s")}
    return {**told, "refit_s": refit_s, "peak_bytes": peak_bytes, "fit_bytes": fit_bytes}


def make_centers() -> Vectors:
    """Return directions, float32 [300, 512], length 1, none below zero as after a ReLU."""
    rng = np.random.default_rng(0)
    return _unit(np.abs(rng.standard_normal((N_CENTERS, _DIMS))).astype(np.float32) ** 3)


def make_features(centers: Vectors, labels: Labels, seed: int) -> Vectors:
    """Return one feature a label, float32 [n, d], length 1, around its center."""
    rng, dims = np.random.default_rng(seed), centers.shape[1]
    noise = rng.standard_normal((len(labels), dims), dtype=np.float32) * (_SCATTER / dims**0.5)
    return _unit(np.maximum(centers[labels] + noise, 0))


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def fill(config_file: str, images: int) -> dict[str, Any]:
    """Write ``images`` sorted files with their features, and the fit they were sorted by."""
    rng = np.random.default_rng(0)
    centers, labels = make_centers(), rng.integers(0, N_CENTERS, images)
    hashes = np.sort(rng.integers(0, 2**63, images))
    store = open_for_writing(load_config(Path(config_file)).database)
    store.db.conn.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    chunks = [slice(start, start + _CHUNK_ROWS) for start in range(0, images, _CHUNK_ROWS)]
    with store.atomic():
        sizes = np.bincount(labels, minlength=N_CENTERS).tolist()
        record = FitRecord(FitTrigger.BOOTSTRAP, "synthetic", images, 0, 0.0, None, 0.0)
        fit_id = store.fits.save(_EXTRACTOR, centers, range(N_CENTERS), sizes, record).fit_id
        # In the order of their key, so that the largest table grows at its end only.
        for part in chunks:
            vectors = make_features(centers, labels[part], part.start)
            store.fits.put_features(_EXTRACTOR, _digests(hashes[part]), vectors)
        # Files come in another order than their hashes.
        order = rng.permutation(images)
        for part in chunks:
            digests = _digests(hashes[order[part]])
            _put_files(store, part.start, digests, labels[order[part]].tolist(), fit_id)
    store.close()
    return {"images": images}


def _digests(numbers: Labels) -> list[bytes]:
    return [number.to_bytes(8, "big") + bytes(24) for number in numbers.tolist()]


def _put_files(
    store: Store, start: int, digests: Sequence[bytes], labels: Sequence[int], fit_id: int
) -> None:
    """Take files in, plan their moves and close these, as batches of the pipeline do."""
    batch, results = store.journal.next_batch(), []
    numbers = range(start, start + len(digests))
    stamps = [Stamp(number + 1, _SIZE_BYTES, _MTIME_NS) for number in numbers]
    names = [b"picture-%08d.jpg" % number for number in numbers]
    arrivals = store.files.arrive(list(zip(names, stamps, strict=True)))
    for arrival, sha256, label in zip(arrivals, digests, labels, strict=True):
        candidate, folder = arrival.candidate, cluster_folder(label)
        store.files.set_read(candidate, sha256)
        route = Route(candidate.file_id, FileState.SORTED, folder, label, _SCATTER)
        dst, stamp = folder + b"/" + candidate.name, candidate.stamp
        planned = Move(
            0, candidate.file_id, Op.MOVE, Root.INBOX, candidate.name, stamp, sha256, dst
        )
        move = store.journal.plan(planned, route, batch=batch, fit_id=fit_id)
        results.append(MoveResult(move, MovePhase.DONE, dst))
    store.journal.close(results)
