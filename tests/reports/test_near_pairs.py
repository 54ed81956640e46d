"""Near hashes are found without comparing all, each pair once, within a budget."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.pictures.hashing import differing_bits
from imgsortd.reports.near_pairs import Budget, Hashes, are_near, groups_of, near_pairs

WORDS = st.integers(0, 2**64 - 1)
BITS = st.lists(st.integers(0, 63), max_size=9, unique=True)


def flipped(word: int, bits: list[int]) -> int:
    for bit in bits:
        word ^= 1 << bit
    return word


def pairs_of(hashes: Hashes, max_bits: int, budget: Budget | None = None) -> list[tuple[int, int]]:
    found = near_pairs(hashes, max_bits, budget)
    return list(zip(found.first.tolist(), found.second.tolist(), strict=True))


@given(st.lists(st.tuples(WORDS, st.lists(BITS, max_size=4)), max_size=6), st.integers(0, 7))
def test_all_pairs_within_7_bits_are_found_and_no_others(
    families: list[tuple[int, list[list[int]]]], max_bits: int
) -> None:
    words = [flipped(word, bits) for word, some in families for bits in ([], *some)]
    hashes = np.array(words, dtype=np.uint64)

    found = pairs_of(hashes, max_bits)

    expected = [
        (a, b)
        for a in range(len(words))
        for b in range(a + 1, len(words))
        if (words[a] ^ words[b]).bit_count() <= max_bits
    ]
    alike = max((words.count(word) for word in words), default=0)
    if alike <= 4:  # of more with one hash, four stand for all towards other hashes
        assert found == expected
    assert set(found) <= set(expected)
    assert len(set(found)) == len(found)


def test_each_way_to_differ_in_7_bits_over_the_bands_is_found() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    others = words.copy()
    for row in range(len(words)):
        for bit in rng.permutation(64)[:7]:
            others[row] ^= np.uint64(1) << np.uint64(bit)

    found = set(pairs_of(np.concatenate([words, others]), 7))

    assert {(row, row + 3000) for row in range(3000)} <= found


def test_pictures_with_one_hash_hang_together_however_many_they_are() -> None:
    hashes = np.zeros(5000, dtype=np.uint64)

    found = near_pairs(hashes, 7)

    assert len(found.first) < 33 * 5000
    assert found.crowded == 5000
    assert [len(group) for group in groups_of(found.first, found.second)] == [5000]


def test_a_crowd_stays_within_the_budget_is_told_and_pushes_no_lonely_pair_out() -> None:
    rng = np.random.default_rng(1)
    crowd = rng.integers(0, 2**14, 4000).astype(np.uint64)
    lonely = rng.integers(0, 2**64, 200, dtype=np.uint64)
    copies = lonely ^ np.uint64(0x1001_0010_0100_0003)  # 7 bits
    hashes = np.concatenate([crowd, lonely, copies])

    found = near_pairs(hashes, 7, Budget(comparisons=50_000, pairs=5_000))

    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert {(row, row + 200) for row in range(4000, 4200)} <= pairs
    assert 3000 < found.crowded <= 4000
    assert len(pairs) < 5_000 * 16 + 33 * 4200


def test_200_000_hashes_take_little_memory_and_all_copies_are_found() -> None:
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 2**64, 200_000, dtype=np.uint64)
    hashes[:1000] = hashes[1000:2000]
    for _ in range(6):
        hashes[:1000] ^= np.uint64(1) << rng.integers(0, 64, 1000).astype(np.uint64)

    tracemalloc.start()
    found = near_pairs(hashes, 7)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert {(row, row + 1000) for row in range(1000)} <= pairs
    assert found.crowded == 0
    assert peak_bytes < 100e6


def test_no_hashes_make_no_pairs() -> None:
    found = near_pairs(np.empty(0, dtype=np.uint64), 7)

    assert (len(found.first), found.crowded) == (0, 0)
    assert groups_of(found.first, found.second) == []


def test_more_bits_than_the_bands_are_made_for_are_refused() -> None:
    with pytest.raises(ValueError, match="max_bits must be from 0 to 7, got 8"):
        near_pairs(np.zeros(2, dtype=np.uint64), 8)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30))
def test_groups_are_what_hangs_together_each_member_once(pairs: list[tuple[int, int]]) -> None:
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)

    groups = groups_of(ends[:, 0], ends[:, 1])

    of = {int(row): at for at, group in enumerate(groups) for row in group}
    assert sorted(of) == sorted({end for pair in pairs for end in pair})
    assert sum(len(group) for group in groups) == len(of)
    assert all(of[a] == of[b] for a, b in pairs)
    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)


def test_the_less_the_hashes_agree_the_more_the_features_must() -> None:
    bits = np.array([0, 0, 6, 6, 7, 8], dtype=np.uint8)
    cosines = np.array([0.74, 0.76, 0.92, 0.94, 0.97, 1.0], dtype=np.float32)

    assert are_near(bits, cosines).tolist() == [False, True, False, True, True, False]


def test_hashes_differ_in_as_many_bits_as_they_do() -> None:
    first, second = (
        np.array([0, 0b1011], dtype=np.uint64),
        np.array([2**64 - 1, 1], dtype=np.uint64),
    )

    assert differing_bits(first, second).tolist() == [64, 2]
