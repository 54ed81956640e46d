"""Missing files and new ones are paired by their bytes, one to one, and folders by contents."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from imgsortd.store.lookup import Absent
from imgsortd.target.corrections import Stranger, match_moves, renamed_to

names = st.sampled_from([b"a/1", b"a/2", b"b/1", b"b/3", b"c/2", b"c/9"])
hashes = st.sampled_from([b"x", b"y", b"z"])


def absent(*rows: tuple[int, bytes, bytes]) -> list[Absent]:
    return [Absent(*row) for row in rows]


def test_a_file_under_another_folder_is_the_missing_one_of_the_same_bytes() -> None:
    rows = absent((1, b"cluster_1/a.png", b"x"), (2, b"cluster_1/b.png", b"y"))

    pairs = match_moves(rows, [Stranger(b"cluster_2/a.png", b"x")])

    assert pairs == [(rows[0], Stranger(b"cluster_2/a.png", b"x"))]


def test_of_equal_bytes_each_goes_to_the_one_that_kept_its_name() -> None:
    rows = absent((1, b"cluster_1/a.png", b"x"), (2, b"cluster_1/b.png", b"x"))
    files = [Stranger(b"cluster_2/b.png", b"x"), Stranger(b"cluster_3/a.png", b"x")]

    pairs = match_moves(rows, files)

    assert {(row.file_id, file.dst) for row, file in pairs} == {
        (1, b"cluster_3/a.png"),
        (2, b"cluster_2/b.png"),
    }


def test_one_copy_in_two_places_is_one_move_and_a_stranger() -> None:
    rows = absent((1, b"cluster_1/a.png", b"x"))
    files = [Stranger(b"cluster_2/other.png", b"x"), Stranger(b"cluster_3/a.png", b"x")]

    assert match_moves(rows, files) == [(rows[0], files[1])]


@given(
    st.lists(st.tuples(names, hashes), max_size=8),
    st.dictionaries(names, hashes, max_size=6),
)
def test_pairs_are_one_to_one_of_equal_bytes_and_as_many_as_can_be(
    missing: list[tuple[bytes, bytes]], found: dict[bytes, bytes]
) -> None:
    rows = [Absent(number, *row) for number, row in enumerate(missing)]
    files = [Stranger(*file) for file in found.items()]

    pairs = match_moves(rows, files)

    assert all(row.sha256 == file.sha256 for row, file in pairs)
    assert len({row.file_id for row, _ in pairs}) == len(pairs)
    assert len({file.dst for _, file in pairs}) == len(pairs)
    both = Counter(row.sha256 for row in rows) & Counter(file.sha256 for file in files)
    assert len(pairs) == both.total()


@given(
    st.lists(st.tuples(names, hashes), max_size=8),
    st.dictionaries(names, hashes, max_size=6),
    st.randoms(),
)
def test_the_order_of_a_listing_changes_no_pair(
    missing: list[tuple[bytes, bytes]], found: dict[bytes, bytes], random: object
) -> None:
    rows = [Absent(number, *row) for number, row in enumerate(missing)]
    files = [Stranger(*file) for file in found.items()]
    before = match_moves(rows, files)

    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(files)  # type: ignore[attr-defined]

    assert match_moves(rows, files) == before


def test_a_folder_that_is_gone_has_become_the_one_with_most_of_its_files() -> None:
    assert renamed_to(10, [(b"Cats", 6), (b"Dogs", 4)]) == b"Cats"
    assert renamed_to(10, [(b"Cats", 5), (b"Dogs", 5)]) is None
    assert renamed_to(10, []) is None
