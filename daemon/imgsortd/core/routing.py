"""Where does a picture go? To its nearest center, under a name nobody has.

Distances are Euclidean. For L2-normalised features (pool5, fc2) they rank
exactly as cosine distances do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import numpy.typing as npt

from imgsortd.core.names import NAME_MAX_BYTES as NAME_MAX_BYTES
from imgsortd.core.names import base_name as base_name
from imgsortd.core.names import cluster_folder as cluster_folder
from imgsortd.core.names import cluster_number as cluster_number
from imgsortd.core.records import Vectors

SET_ASIDE_FOLDER = b"_set_aside"
REVIEW_FOLDER = b"_review"
_CHUNK_ROWS = 65_536
_BATCH_ROWS = 32
_ONE_THREAD_PRODUCTS = 2**18  # OpenBLAS, interface/gemm.c: no more multiplications than these


def nearest(
    features: Vectors, centers: Vectors
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return the label of each feature's nearest center and the distance to it.

    Parameters
    ----------
    features
        float32 [n, d].
    centers
        float32 [k, d].

    Returns
    -------
    labels
        intp [n], row numbers in ``centers``; the lower one where two are equally near.
    distances
        float32 [n], Euclidean.
    """
    labels = np.empty(len(features), dtype=np.intp)
    distances = np.empty(len(features), dtype=np.float32)
    half_norms = 0.5 * np.einsum("ij,ij->i", centers, centers)
    for start in range(0, len(features), _CHUNK_ROWS):
        part = features[start : start + _CHUNK_ROWS]
        # argmin |x-c|² = argmin ½|c|² - x·c: one matrix product, no [n, k, d] array.
        found = np.argmin(half_norms - _products(part, centers), axis=1)
        labels[start : start + len(part)] = found
        distances[start : start + len(part)] = np.linalg.norm(part - centers[found], axis=1)
    return labels, distances


def center_distances(features: Vectors, centers: Vectors) -> Vectors:
    """Return the Euclidean distance of each feature to each center, float32 [n, k].

    For a batch, or for few centers: all n times k are in memory.
    """
    squares = np.einsum("ij,ij->i", features, features)[:, None]
    squares = squares + np.einsum("ij,ij->i", centers, centers)
    squares -= 2 * _products(features, centers)
    distances: Vectors = np.sqrt(np.maximum(squares, 0))
    return distances


def _products(features: Vectors, centers: Vectors) -> Vectors:
    """Return each feature times each center, float32 [n, k].

    A batch is multiplied in slices so small that OpenBLAS leaves them to the calling
    thread: 0.6 ms for 16 features and 1,000 centers. Its other threads halve that on
    an idle machine, and cost 20 ms where the model or the decoders hold the cores.
    """
    rows = _ONE_THREAD_PRODUCTS // max(1, features.size)
    if len(features) > _BATCH_ROWS or rows == 0:
        return features @ centers.T
    products = np.empty((len(features), len(centers)), dtype=np.float32)
    for start in range(0, len(centers), rows):
        part = slice(start, start + rows)
        np.matmul(features, centers[part].T, out=products[:, part])
    return products


def name_choices(name: bytes) -> Iterator[bytes]:
    """Yield ``photo.jpg``, ``photo-1.jpg``, ``photo-2.jpg`` … each within 255 bytes.

    The stem is cut on bytes where the number needs the room; the suffix is kept.
    """
    stem, dot, suffix = name.rpartition(b".")
    if not dot or not stem or len(suffix) > 16:
        stem, suffix = name, b""
    else:
        suffix = dot + suffix
    first = stem[: NAME_MAX_BYTES - len(suffix)] + suffix
    yield first
    for number in count(1):
        tail = b"-%d%s" % (number, suffix)
        choice = stem[: NAME_MAX_BYTES - len(tail)] + tail
        if choice != first:  # a name of 255 bytes may end in -1 already
            yield choice


def free_name(folder: bytes, name: bytes, taken: Callable[[bytes], bool]) -> bytes:
    """Return ``folder/name`` for the first choice of name that is not taken."""
    for choice in name_choices(name):
        path = folder + b"/" + choice
        if not taken(path):
            return path
    raise AssertionError("name_choices never ends")
