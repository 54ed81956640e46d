"""How far pictures lie from the middle of their cluster: the center that the fit in force has.

Not the distances that are stored with them: each of these is of the fit that a picture was sorted
by, and what a refit has moved has none.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from imgsortd.adapters.store_web import Member, WebRows
from imgsortd.core.records import ExtractorId, Vectors

_AT_ONCE_BYTES = 2**26


def distances_to_middle(
    rows: WebRows, extractor: ExtractorId | None, members: Iterable[Member], center: Vectors | None
) -> dict[bytes, float]:
    """Return the distance of each picture with features to the middle, by its SHA-256.

    Parameters
    ----------
    center
        The middle, float32 [d]. None for the mean of these pictures, equal bytes once: for a
        cluster that is in force no more. Of many, the features are read twice then, a part at
        a time: they may be gigabytes.
    """
    hashes = sorted({sha256 for _, sha256 in members if sha256 is not None})
    distances: dict[bytes, float] = {}
    if extractor is None:
        return distances
    held: list[tuple[list[bytes], Vectors]] = []
    if center is None:
        are_few = 4 * extractor.dims * len(hashes) <= _AT_ONCE_BYTES
        held = list(rows.vectors(extractor, hashes)) if are_few else []
        total, count = np.zeros(extractor.dims), 0
        for some, vectors in held or rows.vectors(extractor, hashes):
            total += vectors.sum(axis=0, dtype=np.float64)
            count += len(some)
        center = (total / max(1, count)).astype(np.float32)
    for some, vectors in held or rows.vectors(extractor, hashes):
        lengths = np.linalg.norm(vectors - center, axis=1)
        distances.update(zip(some, lengths.tolist(), strict=True))
    return distances
