"""A plan promises every file a name of its own, and knows what stands already."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsortd.library import Library
from imgsortd.moves.planning import Planner
from imgsortd.records import Candidate, Choice, FileState, FitTrigger, Op, Root, Stamp, Unreadable
from imgsortd.store.fits import FitRecord
from support import make_config, make_library

CLUSTER_IDS = (4, 7, 9)


@contextmanager
def fitted_library(folder: Path, **changes: Any) -> Iterator[Library]:
    """Open a library with three clusters, numbered 4, 7 and 9."""
    library, store = make_library(make_config(folder, **changes))
    record = FitRecord(FitTrigger.REQUEST, "KMeans", 3, 0, 0.0, None, 0.0)
    with store.atomic():
        library.in_force.model = store.fits.save(
            library.extractor.id, np.eye(3, dtype=np.float32), CLUSTER_IDS, (1, 1, 1), record
        )
    yield library
    store.close()


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with fitted_library(tmp_path) as library:
        yield library


def planner_of(library: Library) -> Planner:
    return library.moves.planner(library.in_force.fit_id)


def arrive(library: Library, name: bytes, data: bytes) -> tuple[Candidate, bytes]:
    """Take a file into the store as read; it need not be on disk to be planned for."""
    stamp = Stamp(inode=1, size_bytes=len(data), mtime_ns=1)
    [arrival] = library.store.files.arrive([(name, stamp)])
    sha256 = hashlib.sha256(data).digest()
    library.store.files.set_read(arrival.candidate, sha256)
    return arrival.candidate, sha256


def test_a_picture_goes_to_the_folder_of_its_labels_cluster_id(library: Library) -> None:
    with library.store.atomic():
        move = planner_of(library).route(*arrive(library, b"deep/a.jpg", b"a"), Choice(7, 0.5))

    assert move is not None
    assert (move.dst, move.src, move.op, move.src_root) == (
        b"cluster_7/a.jpg",
        b"deep/a.jpg",
        Op.MOVE,
        Root.INBOX,
    )


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"a.jpg", b"a-1.jpg", b"x/a.jpg", b"y/a.jpg", b"x" * 251 + b".jpg"]),
            st.integers(0, 2),
            st.booleans(),
        ),
        max_size=12,
        unique_by=lambda file: file[0],
    ),
    st.sets(st.sampled_from(["cluster_4/a.jpg", "cluster_7/a-1.jpg", "_set_aside/a.jpg"])),
)
def test_no_two_moves_get_one_name_nor_one_that_stands(
    files: list[tuple[bytes, int, bool]], standing: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder, fitted_library(Path(folder)) as library:
        for name in standing:
            (library.config.target / name).parent.mkdir(exist_ok=True)
            (library.config.target / name).write_text("somebody else's")
        moves = []

        for number, (name, label, readable) in enumerate(files):
            with library.store.atomic():  # a planner of its own: promises outlive it
                planner = planner_of(library)
                candidate, sha256 = arrive(library, name, b"%d" % number)
                moves.append(
                    planner.route(candidate, sha256, Choice(CLUSTER_IDS[label], 0.0))
                    if readable
                    else planner.set_aside(Unreadable(candidate, sha256, "broken"))
                )

        names = [move.dst for move in moves if move is not None]
        assert len(names) == len(files)
        assert len({*names, *(name.encode() for name in standing)}) == len(names) + len(standing)
        assert all(len(name.split(b"/")[1]) <= 255 for name in names)


def test_a_picture_for_review_goes_there_with_the_reason(library: Library) -> None:
    choice = Choice(None, 1.5, "far from every cluster")

    with library.store.atomic():
        move = planner_of(library).route(*arrive(library, b"a.jpg", b"a"), choice)

    assert move is not None
    assert move.dst == b"_review/a.jpg"
    assert library.store.journal.outcome(move.move_id) == (
        FileState.REVIEW,
        None,
        "far from every cluster",
    )


def test_a_cluster_that_a_person_has_named_has_its_own_folder(library: Library) -> None:
    with library.store.atomic():
        library.store.connection.execute("UPDATE clusters SET folder = ? WHERE id = 7", (b"Sea",))
        move = planner_of(library).route(*arrive(library, b"a.jpg", b"a"), Choice(7, 0.5))

    assert move is not None
    assert move.dst == b"Sea/a.jpg"


def test_twins_in_one_batch_are_an_original_and_a_duplicate(library: Library) -> None:
    with library.store.atomic():
        planner = planner_of(library)
        first = planner.route(*arrive(library, b"a.jpg", b"same"), Choice(4, 0.0))
        second = planner.route(*arrive(library, b"b.jpg", b"same"), Choice(4, 0.0))

    assert first is not None
    assert second is not None
    outcome = library.store.journal.outcome
    assert outcome(first.move_id) == (FileState.SORTED, 4, "")
    assert outcome(second.move_id) == (FileState.DUPLICATE, 4, "same bytes as cluster_4/a.jpg")


@pytest.mark.parametrize(("data", "state"), [(b"same", "duplicate"), (b"other", "sorted")])
def test_a_file_that_stands_unknown_to_the_store_is_an_original_if_its_bytes_agree(
    library: Library, data: bytes, state: str
) -> None:
    (library.config.target / "cluster_4").mkdir()
    (library.config.target / "cluster_4" / "a.jpg").write_bytes(data)

    with library.store.atomic():
        move = planner_of(library).route(*arrive(library, b"a.jpg", b"same"), Choice(4, 0.0))

    assert move is not None
    assert move.dst == b"cluster_4/a-1.jpg"
    assert library.store.journal.outcome(move.move_id)[0] == state


def test_a_skipped_duplicate_is_planned_no_move_and_is_done(tmp_path: Path) -> None:
    with fitted_library(tmp_path, duplicates="skip") as library, library.store.atomic():
        planner = planner_of(library)
        planner.route(*arrive(library, b"a.jpg", b"same"), Choice(4, 0.0))

        assert planner.route(*arrive(library, b"b.jpg", b"same"), Choice(4, 0.0)) is None

        assert library.store.files.counts().duplicates == 1
        assert [name for name, _ in library.store.files.handled()] == [b"a.jpg", b"b.jpg"]


def test_a_file_follows_only_from_the_folder_it_stands_in(library: Library) -> None:
    file = library.config.inbox / "a.jpg"
    file.write_bytes(b"a")
    with library.store.atomic():
        candidate, sha256 = arrive(library, b"a.jpg", b"a")
        move = planner_of(library).route(candidate, sha256, Choice(4, 0.0))
    assert move is not None
    [result] = library.mover.apply([move])
    with library.store.atomic():
        library.store.journal.close([result])
    number = candidate.file_id

    with library.store.atomic():
        planner = planner_of(library)
        from_elsewhere, from_review = planner.follow(number, 9, 4), planner.follow(number, None, 9)
        other, to_review = planner.follow(number, 4, 9), planner.follow(number, 4, None)
        library.store.pins.put(sha256, 4)
        pinned = planner.follow(number, 4, 9)
        library.store.pins.remove([sha256])
    (library.config.target / "cluster_4" / "a.jpg").unlink()
    with library.store.atomic():
        gone = planner_of(library).follow(number, 4, 9)

    assert (from_elsewhere, from_review, pinned, gone) == (None, None, None, None)
    assert other is not None
    assert (other.src_root, other.src, other.dst) == (
        Root.TARGET,
        b"cluster_4/a.jpg",
        b"cluster_9/a.jpg",
    )
    assert to_review is not None
    assert (to_review.src, to_review.dst) == (b"cluster_4/a.jpg", b"_review/a.jpg")
