"""Stores filled with made-up features: no picture, no VGG16."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

import numpy as np

from imgsortd.clusters.fit import Fitted
from imgsortd.records import ExtractorId, Model, Vectors
from imgsortd.store.database import Store


def groups(each: int, n_groups: int, dims: int, seed: int = 0) -> Vectors:
    """Return unit vectors around far-off centers, float32 [n_groups * each, dims]."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(np.eye(n_groups, dims), each, axis=0)
    vectors += rng.normal(0, 0.02, vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def mix(sizes: Sequence[int], dims: int = 48, spread: float = 0.9, seed: int = 0) -> Vectors:
    """Return unit vectors of kinds that touch, and some that look alike, one kind after the other.

    Every third kind lies half way to the one before it, as two sorts of one thing do.
    """
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(len(sizes), dims))
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    middles[2::3] += middles[1::3][: len(middles[2::3])]
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    vectors = np.repeat(middles, sizes, axis=0)
    vectors += rng.normal(0, spread / np.sqrt(dims), vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def name_of(number: int) -> bytes:
    """Return the file name of a made-up picture."""
    return b"%06d.jpg" % number


def fill(
    store: Store,
    extractor: ExtractorId,
    vectors: Vectors,
    numbers: Sequence[int],
    *,
    waiting: bool = False,
) -> None:
    """Keep each vector as that of a sorted file, which is named after its number.

    All stand in ``cluster_0``, or are ``waiting`` in the inbox to be routed.
    """
    hashes = [hashlib.sha256(name_of(number)).digest() for number in numbers]
    place = ("pending", None, None) if waiting else ("sorted", 0, b"cluster_0/")
    with store.atomic():
        store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, cluster_id, dst, "
            "seen_at) VALUES (?, 1, 1, 1, ?, ?, ?, ?, 0)",
            [
                (name_of(number), sha256, *place[:2], place[2] and place[2] + name_of(number))
                for number, sha256 in zip(numbers, hashes, strict=True)
            ],
        )
        store.fits.put_features(extractor, hashes, vectors)
        if store.is_of_this_version():
            note_places(store.connection)


def note_places(connection: sqlite3.Connection) -> None:
    """Let rows that a test has written stand where their states and names say."""
    connection.execute(
        "UPDATE files SET inbox_id = 1, in_inbox = state IN ('pending', 'undone') OR in_inbox, "
        "in_target = dst IS NOT NULL AND state NOT IN ('pending', 'gone'), "
        "target_id = iif(dst IS NULL, NULL, 2) WHERE inbox_id IS NULL"
    )


def stand_by(store: Store, model: Model, fitted: Fitted) -> None:
    """Let each file stand in the folder of the cluster that a fit has put it into."""
    labels = zip(fitted.file_ids.tolist(), fitted.fit.labels.tolist(), strict=True)
    with store.atomic():
        store.connection.executemany(
            "UPDATE files SET state = 'sorted', cluster_id = ?1, in_target = 1, target_id = 2, "
            "dst = CAST('cluster_' || ?1 || '/' || src AS BLOB) WHERE id = ?2",
            [(model.cluster_ids[label], file_id) for file_id, label in labels],
        )
