"""Near-duplicates in the library: by the hashes first, then by the features."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_hashes import Pair
from imgsortd.core.near_pairs import MAX_BITS, Rows, are_near, groups_of, near_pairs
from imgsortd.core.perceptual import differing_bits
from imgsortd.core.records import ExtractorId, Vectors

_PAIRS_AT_ONCE = 4096

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two near-duplicates by SHA-256, with what their hashes and features say."""

    first: bytes
    second: bytes
    bits: int
    cosine: float


@dataclass(frozen=True, slots=True)
class NearGroup:
    """Pictures that hang together by pairs: SHA-256, in order."""

    members: list[bytes]
    pairs: list[NearPair]


@dataclass(frozen=True, slots=True)
class NearFound:
    """The groups, of how many pictures, and of how many of them not all pairs were looked at."""

    groups: list[NearGroup]
    compared: int
    crowded: int


def find_near(
    store: Store, extractor: ExtractorId, stands: Callable[[bytes], bool], tell: Tell
) -> NearFound:
    """Find the groups of near-duplicates, those pairs left out that a person has kept.

    Bounded by the budget of :func:`imgsortd.core.near_pairs.near_pairs`: 40 bytes a picture,
    and features for 4,096 pairs at a time.

    Parameters
    ----------
    stands
        Tells whether a picture is on disk still.
    """
    tell("comparing hashes")
    names, hashes = store.hashes.standing()
    near = near_pairs(hashes, MAX_BITS)
    kept = store.hashes.kept()
    found: list[NearPair] = []
    for start in range(0, len(near.first), _PAIRS_AT_ONCE):
        tell(f"comparing features: {start:,} of {len(near.first):,} pairs")
        part = slice(start, start + _PAIRS_AT_ONCE)
        first, second = near.first[part], near.second[part]
        bits = differing_bits(hashes[first], hashes[second])
        found += _verified(store, extractor, names, first, second, bits)
    return NearFound(_grouped(_wanted(found, kept, stands)), len(hashes), near.crowded)


def _verified(
    store: Store,
    extractor: ExtractorId,
    names: npt.NDArray[np.uint8],
    first: Rows,
    second: Rows,
    bits: npt.NDArray[np.uint8],
) -> Iterator[NearPair]:
    """Yield the pairs whose features say so, too; a picture without features is in none."""
    rows = np.unique(np.concatenate([first, second]))
    by_row = [names[row].tobytes() for row in rows]
    stored = store.fits.get_features(extractor, by_row)
    nothing = np.zeros(extractor.dims, dtype=np.float32)
    vectors: Vectors = np.stack([stored.get(name, nothing) for name in by_row])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    a, b = np.searchsorted(rows, first), np.searchsorted(rows, second)
    cosines = np.einsum("ij,ij->i", vectors[a], vectors[b])
    for at in np.flatnonzero(are_near(bits, cosines)):
        yield NearPair(by_row[a[at]], by_row[b[at]], int(bits[at]), float(cosines[at]))


def _wanted(
    found: list[NearPair], kept: Collection[Pair], stands: Callable[[bytes], bool]
) -> list[NearPair]:
    standing = {name: stands(name) for pair in found for name in (pair.first, pair.second)}
    return [
        pair
        for pair in found
        if (pair.first, pair.second) not in kept and standing[pair.first] and standing[pair.second]
    ]


def _grouped(pairs: list[NearPair]) -> list[NearGroup]:
    if not pairs:
        return []
    members = sorted({name for pair in pairs for name in (pair.first, pair.second)})
    number = {name: at for at, name in enumerate(members)}
    ends = np.array([(number[pair.first], number[pair.second]) for pair in pairs])
    group_of: dict[bytes, NearGroup] = {}
    groups = []
    for rows in groups_of(ends[:, 0], ends[:, 1]):
        groups.append(NearGroup([members[row] for row in rows], []))
        group_of |= dict.fromkeys(groups[-1].members, groups[-1])
    for pair in pairs:
        group_of[pair.first].pairs.append(pair)
    return groups
