"""Which hashes differ in few bits, found without comparing each with all others.

A hash is cut into four bands of 16 bits. Two hashes that differ in up to 7 bits have a band
that differs in one bit at most, for four bands of two or more make 8. So each is compared
with those that share a band, or all of it but one bit (multi-index hashing; Norouzi, Punjani
and Fleet, Fast Search in Hamming Space with Multi-Index Hashing, 2012).

Hashes that crowd (pages of text, pictures of one colour) could still make as many pairs as
if each were compared with all. There each is compared with its nearest neighbours in the
order of the bits, within a budget, and how many were cut short is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from imgsortd.pictures.hashing import HASH_BITS, differing_bits

MAX_BITS = 7
LEAST_COSINE, COSINE_A_BIT = 0.75, 0.03
SAME_HASH_NEIGHBOURS = 32
_BAND_BITS = 16
_BANDS = HASH_BITS // _BAND_BITS
_TOP = np.uint64(HASH_BITS - _BAND_BITS)
_CHUNK = 1 << 20

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


def are_near(bits: npt.NDArray[np.uint8], cosines: npt.NDArray[np.float32]) -> npt.NDArray[np.bool]:
    """Tell which pairs are near-duplicates, bool of the shape of both.

    The less the hashes agree, the more the features must: the cosine is at least 0.75 where
    no bit differs, and 0.03 more with each that does, up to 7 (docs/duplicates.md has what
    this was measured to find, and to find wrongly).
    """
    return (bits <= MAX_BITS) & (cosines >= LEAST_COSINE + COSINE_A_BIT * bits)


@dataclass(frozen=True, slots=True)
class Budget:
    """What the search may cost.

    Attributes
    ----------
    comparisons
        Most comparisons for one band and bit, of which there are 68.
    pairs
        Most pairs of hashes that are kept; of more, the least different of each hash.
    """

    comparisons: int = 20_000_000
    pairs: int = 1_000_000


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Rows ``first`` < ``second``, int64 [m], each pair once, in order.

    ``crowded`` counts the pictures of which not all candidates were compared, or kept.
    """

    first: Rows
    second: Rows
    crowded: int


def near_pairs(hashes: Hashes, max_bits: int, budget: Budget | None = None) -> NearPairs:
    """Return the pairs whose hashes differ in no more than some bits.

    Parameters
    ----------
    hashes
        uint64 [n].
    max_bits
        0 to 7.

    Notes
    -----
    Of pictures with one and the same hash, each makes pairs with the next 32 in line:
    all of them where they are no more than 33.
    """
    if not 0 <= max_bits <= MAX_BITS:
        raise ValueError(f"max_bits must be from 0 to {MAX_BITS}, got {max_bits}")
    budget = budget or Budget()
    order = np.argsort(hashes, kind="stable")
    different, starts, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    first, second, crowded = _same_hash(starts, counts)
    near = _Found(different, budget.pairs)
    for band in range(_BANDS):
        _compare(different, band, max_bits, budget.comparisons, near)
    more_first, more_second, cut = _expand(*near.pairs(), starts, counts)
    near.crowded[cut] = True
    crowded += int(counts[near.crowded & (counts <= SAME_HASH_NEIGHBOURS + 1)].sum())
    first = order[np.concatenate([first, more_first])]
    second = order[np.concatenate([second, more_second])]
    low, high = np.minimum(first, second), np.maximum(first, second)
    sequence = np.lexsort((high, low))
    return NearPairs(low[sequence], high[sequence], crowded)


def groups_of(first: Rows, second: Rows) -> list[Rows]:
    """Return the rows that hang together by pairs, int64 each, in order; the largest first."""
    members, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
    edges = np.ones(len(first), dtype=bool), (ends[: len(first)], ends[len(first) :])
    graph = coo_array(edges, shape=(len(members), len(members)))
    count, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(1, count))
    groups = [members[part] for part in np.split(order, bounds) if len(part)]
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))


def _same_hash(starts: Rows, counts: Rows) -> tuple[Rows, Rows, int]:
    """Pair each row of sorted hashes with those behind it that have the same hash."""
    ends = np.repeat(starts + counts, counts)
    rows = np.arange(len(ends))
    stops = np.minimum(ends, rows + 1 + SAME_HASH_NEIGHBOURS)
    none = np.empty(0, dtype=np.int64)
    first, second = zip((none, none), *_ranges(rows, rows + 1, stops), strict=True)
    crowded = int(counts[counts > SAME_HASH_NEIGHBOURS + 1].sum())
    return np.concatenate(first), np.concatenate(second), crowded


def _expand(a: Rows, b: Rows, starts: Rows, counts: Rows) -> tuple[Rows, Rows, Rows]:
    """Make pairs of pictures of pairs of hashes, the first four of each hash."""
    some = np.minimum(counts, 4)
    each_a, each_b = some[a], some[b]
    pairs = each_a * each_b
    of_pair = np.repeat(np.arange(len(a)), pairs)
    number = np.arange(len(of_pair)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    first = starts[a][of_pair] + number // each_b[of_pair]
    second = starts[b][of_pair] + number % each_b[of_pair]
    cut = np.concatenate([a[counts[a] > 4], b[counts[b] > 4]])
    return first, second, cut


def _compare(hashes: Hashes, band: int, max_bits: int, comparisons: int, near: _Found) -> None:
    """Compare the hashes that share a band, or all of it but one bit."""
    up, down = (np.uint64(_BAND_BITS * bands) for bands in (_BANDS - 1 - band, band + 1))
    turned = hashes << up  # the band is the highest 16 bits, those above it follow
    if band < _BANDS - 1:
        turned |= hashes >> down
    order = np.argsort(turned, kind="stable")
    turned = turned[order]
    keys = (turned >> _TOP).astype(np.int64)
    bounds = np.searchsorted(keys, np.arange((1 << _BAND_BITS) + 1))
    everyone = np.arange(len(hashes))
    for bit in range(-1, _BAND_BITS):
        if bit < 0:
            rows, others = everyone, keys
            begins = rows + 1
        else:
            rows = everyone[(keys >> bit) & 1 == 0]  # a pair is met from one side alone
            others = keys[rows] | (1 << bit)
            begins = bounds[others]
        ends = bounds[others + 1]
        if int((ends - begins).sum()) > comparisons:
            flipped = turned[rows] ^ np.uint64(0 if bit < 0 else 1 << (bit + int(_TOP)))
            narrow = _narrowed(begins, ends, np.searchsorted(turned, flipped), comparisons)
            near.crowded[order[rows[narrow[1] - narrow[0] < ends - begins]]] = True
            begins, ends = narrow
        for a, b in _ranges(rows, begins, ends):
            close = differing_bits(turned[a], turned[b]) <= max_bits
            near.add(order[a[close]], order[b[close]])


def _narrowed(begins: Rows, ends: Rows, middle: Rows, comparisons: int) -> tuple[Rows, Rows]:
    """Narrow the ranges around a place in each until all stay within the budget."""
    reach = 1 << int(np.max(ends - begins)).bit_length()
    while True:
        from_, to = np.maximum(begins, middle - reach), np.minimum(ends, middle + reach)
        to = np.maximum(from_, to)
        if reach == 1 or int((to - from_).sum()) <= comparisons:
            return from_, to
        reach //= 2


def _ranges(rows: Rows, begins: Rows, ends: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield each row with each number from its begin to its end, about a million at a time."""
    lengths = np.maximum(ends - begins, 0)
    totals = np.cumsum(lengths)
    at = 0
    while at < len(rows):
        done = int(totals[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(totals, done + _CHUNK, side="right")))
        part = lengths[at:stop]
        offsets = np.arange(int(part.sum())) - np.repeat(np.cumsum(part) - part, part)
        yield np.repeat(rows[at:stop], part), np.repeat(begins[at:stop], part) + offsets
        at = stop


class _Found:
    """Pairs of hashes, each once, and no more than a number of them."""

    def __init__(self, hashes: Hashes, most: int) -> None:
        self._hashes, self._most = hashes, most
        self._kept = np.empty(0, dtype=np.int64)
        self._new: list[Rows] = []
        self._n_new = 0
        self.crowded = np.zeros(len(hashes), dtype=bool)

    def add(self, a: Rows, b: Rows) -> None:
        low, high = np.minimum(a, b), np.maximum(a, b)
        self._new.append(low * len(self._hashes) + high)
        self._n_new += len(a)
        if self._n_new > self._most:
            self._merge()

    def pairs(self) -> tuple[Rows, Rows]:
        self._merge()
        return self._of(self._kept)

    def _of(self, codes: Rows) -> tuple[Rows, Rows]:
        n = max(1, len(self._hashes))
        return codes // n, codes % n

    def _merge(self) -> None:
        codes = np.concatenate([self._kept, *self._new])
        codes.sort()  # np.unique goes by a hash table, which took a hundred times as long here
        codes = codes[np.diff(codes, prepend=-1) > 0]
        self._new, self._n_new = [], 0
        if len(codes) > self._most:
            order = np.argsort(self._ranks(*self._of(codes)), kind="stable")
            for lost in self._of(codes[order[self._most :]]):
                self.crowded[lost] = True
            codes = np.sort(codes[order[: self._most]])
        self._kept = codes

    def _ranks(self, a: Rows, b: Rows) -> Rows:
        """Return the place of each pair among those of its hashes, the least different first.

        The better one of two: a pair of hashes that have no other is never lost to a crowd.
        """
        bits = differing_bits(self._hashes[a], self._hashes[b])
        ends = np.concatenate([a, b])
        order = np.lexsort((np.concatenate([bits, bits]), ends))
        begins = np.searchsorted(ends[order], ends[order])
        ranks = np.empty(len(ends), dtype=np.int64)
        ranks[order] = np.arange(len(ends)) - begins
        return np.minimum(ranks[: len(a)], ranks[len(a) :])
