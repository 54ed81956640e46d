"""Run as a program: fit many features from a store and print by how many MB memory grew."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from imgsortd.clusters.fit import FitSource, compute_fit
from imgsortd.records import ExtractorId, Layer
from imgsortd.store import features
from imgsortd.store.database import open_for_writing
from synthetic import fill

PART = 4_000
EXTRACTOR = ExtractorId("synthetic", Layer.POOL5, 512)


def peak_mb() -> float:
    """Return the most memory this process has had at once."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM in /proc/self/status")


def fit(database: Path, n_images: int, whole_up_to: int) -> None:
    """Fill a store and fit it, in parts of 2 MB."""
    vectors = np.random.default_rng(0).standard_normal((PART, 512), dtype=np.float32)
    store = open_for_writing(database)
    store.connection.execute("PRAGMA synchronous=OFF")
    for start in range(0, n_images, PART):
        fill(store, EXTRACTOR, vectors, range(start, start + PART))
    store.close()
    fitted = compute_fit(FitSource(database, EXTRACTOR, vectors[:5], n_images, whole_up_to), 5, 0)
    assert len(fitted.file_ids) == n_images


if __name__ == "__main__":
    features._STREAM_BYTES = 2**21
    folder, n_images = Path(sys.argv[1]), int(sys.argv[2])
    fit(folder / "small.db", PART, 2_000)  # scikit-learn's own threads and buffers
    before = peak_mb()
    fit(folder / "big.db", n_images, 2_000)
    print(peak_mb() - before)
