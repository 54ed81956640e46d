"""Stores filled with made-up features: no picture, no VGG16."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from imgsortd.adapters.store import Store
from imgsortd.core.records import ExtractorId, Vectors


def groups(each: int, n_groups: int, dims: int, seed: int = 0) -> Vectors:
    """Return unit vectors around far-off centers, float32 [n_groups * each, dims]."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(np.eye(n_groups, dims), each, axis=0)
    vectors += rng.normal(0, 0.02, vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def name_of(number: int) -> bytes:
    """Return the file name of a made-up picture."""
    return b"%06d.jpg" % number


def fill(store: Store, extractor: ExtractorId, vectors: Vectors, numbers: Sequence[int]) -> None:
    """Keep each vector as that of a sorted file, which is named after its number."""
    hashes = [hashlib.sha256(name_of(number)).digest() for number in numbers]
    with store.atomic():
        store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, cluster_id, dst, "
            "seen_at) VALUES (?, 1, 1, 1, ?, 'sorted', 0, ?, 0)",
            [
                (name_of(number), sha256, b"cluster_0/" + name_of(number))
                for number, sha256 in zip(numbers, hashes, strict=True)
            ],
        )
        store.fits.put_features(extractor, hashes, vectors)
