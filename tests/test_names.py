"""A cluster's folder has one plain name, that no other cluster has or may get."""

from __future__ import annotations

import pytest

from imgsortd.names import cluster_of, folder_of, folder_problem

NAMED = {3: b"Receipts", 4: b"Cats"}


@pytest.mark.parametrize(
    "folder", [b"Bills", b"cluster_7", b"Urlaub \xff", b"cluster_07", b"a" * 255, b"-x", b" "]
)
def test_a_plain_name_that_nobody_has_is_taken(folder: bytes) -> None:
    assert folder_problem(folder, 7, NAMED) == ""


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        (b"", "must not be empty"),
        (b"a/b", "without a slash"),
        (b"a\0b", "without a slash or a zero byte"),
        (b".", "must not begin with a dot"),
        (b"..", "must not begin with a dot"),
        (b"_review", "must not begin with a dot or an underscore"),
        (b"\xc3\xa4" * 128, "at most 255 bytes, got 256"),
        (b"cluster_8", "is the folder of cluster 8"),
        (b"Receipts", "is the folder of cluster 3"),
    ],
)
def test_a_name_that_cannot_be_says_why(folder: bytes, problem: str) -> None:
    assert problem in folder_problem(folder, 7, NAMED)


def test_a_cluster_keeps_its_own_name() -> None:
    assert folder_problem(b"Receipts", 3, NAMED) == ""


def test_a_named_cluster_has_its_folder_and_its_number() -> None:
    assert (folder_of(3, NAMED), folder_of(7, NAMED)) == (b"Receipts", b"cluster_7")
    assert [cluster_of(name, NAMED) for name in (b"Receipts", b"cluster_3", b"Dogs")] == [
        3,
        3,
        None,
    ]
