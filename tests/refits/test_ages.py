"""A young library is not held to its first guess, a grown one asks; a number means its folder.

On made-up features, by imgsortd's own line: real files, no model (``benchmarks.shelf``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks import shelf as shelves

from imgsortd.errors import ProposalError, UndoError
from imgsortd.moves.undo import Undo, UndoChoice, UndoReport
from imgsortd.names import cluster_of
from imgsortd.records import ExtractorId, FitState, Layer, Vectors
from imgsortd.refits.changes import Change, read_proposal
from imgsortd.refits.decisions import reject
from imgsortd.refits.due import Age
from imgsortd.refits.facts import maturity_now
from imgsortd.target.corrections import Corrections
from inboxes import Inbox, quick_cli
from support import decisions_of, each_file_below, wait_until
from synthetic import groups

EACH, KINDS, DIMS = 60, 8, 16
QUIET_S, A_DAY_S = 60.0, 86_500.0
FEATURES: Vectors = groups(EACH, KINDS, DIMS)
EXTRACTOR = ExtractorId("made", Layer.POOL5, DIMS)


class Shelf(shelves.Shelf):
    """One on which a person does more."""

    @property
    def age(self) -> Age | None:
        """Whether it is young or grown; None before the first fit."""
        maturity = maturity_now(self.store, self.library.config.refit.max_churn)
        return None if maturity is None else maturity.age

    def drop_twins(self, numbers: Sequence[int], times: int) -> None:
        """Put the same pictures into the inbox again, under other names."""
        for number in numbers:
            for copy in range(times):
                twin = self.library.config.inbox / f"{number:07d}-{copy}.jpg"
                twin.write_bytes(shelves.bytes_of(number))

    def unpin(self, number: int) -> None:
        """Free a picture; it stays where it stands."""
        with self.store.atomic():
            self.store.pins.remove([shelves.sha256_of(number)])

    def make_folder(self, name: str, numbers: Sequence[int]) -> int | None:
        """Make a folder in target and put pictures into it; return its cluster, if it is one."""
        for number in numbers:
            self.put(number, name, None)
            with self.store.atomic():
                self.store.pins.put(shelves.sha256_of(number), None)
        folder = self.library.config.target / name
        library = self.library
        corrections = Corrections(library.store, library.in_force, library.folders)
        corrections.make_cluster(name.encode(), folder.stat().st_ino)
        return cluster_of(name.encode(), self.names)


@pytest.fixture
def make_shelf(tmp_path: Path) -> Iterator[Callable[..., Shelf]]:
    """Return what makes an empty library, which finds the number of clusters itself."""
    shelves: list[Shelf] = []

    def make_shelf(**settings: Any) -> Shelf:
        clusters = {"n_clusters": "auto", "auto_least": 2, "min_images": 40, "max_share": "off"}
        clusters |= settings.pop("clusters", {})
        folder = tmp_path / str(len(shelves))
        shelves.append(Shelf(folder, EXTRACTOR, FEATURES, clusters=clusters, **settings))
        return shelves[-1]

    yield make_shelf
    for shelf in shelves:
        shelf.close()


def kind(number: int, first: int = 0, last: int = EACH) -> list[int]:
    return [number * EACH + at for at in range(first, last)]


def several(kinds: Sequence[int], first: int = 0, last: int = EACH) -> list[int]:
    """Return some pictures of each kind, mixed."""
    return [
        number for row in zip(*(kind(k, first, last) for k in kinds), strict=True) for number in row
    ]


def grown(
    make_shelf: Callable[..., Shelf],
    parts: Sequence[tuple[int, int]] = ((0, 24), (24, 32), (32, 42)),
    **settings: Any,
) -> Shelf:
    """Return a library of four kinds that has grown twice by a quarter and changed nothing."""
    shelf = make_shelf(**settings)
    for first, last in parts:
        shelf.drop(several(range(4), first, last))
        shelf.work(2 * 3600)  # longer than any quiet_s here
    assert shelf.age is Age.GROWN
    return shelf


def folders(shelf: Shelf) -> dict[int, set[int]]:
    """Return the kinds that each cluster's folder holds; -1 is review."""
    stands = shelf.folders(len(FEATURES))
    return {
        cluster_id: {number // EACH for number in np.flatnonzero(stands == cluster_id).tolist()}
        for cluster_id in set(stands.tolist()) - {-2}
    }


def clusters(shelf: Shelf) -> dict[int, set[int]]:
    """Return the same without review."""
    return {number: kinds for number, kinds in folders(shelf).items() if number >= 0}


def on_disk(shelf: Shelf) -> dict[str, int]:
    """Count the files of each folder."""
    target = shelf.library.config.target
    return {path.name: len(os.listdir(path)) for path in target.iterdir() if path.is_dir()}


# --- young ------------------------------------------------------------------------------


def test_a_young_library_takes_what_comes_next_as_if_it_had_been_there_at_once(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = make_shelf(clusters={"n_clusters": 4})

    first = young_refit(shelf)

    assert [fit.state for fit in shelf.fits] == [FitState.ADOPTED] * 2
    assert len(set(first.tolist()) - {-1, -2}) == 4  # four clusters of two kinds
    assert sorted(min(kinds) for number, kinds in folders(shelf).items() if number >= 0) == [
        0,
        1,
        2,
        3,
    ]
    assert all(len(kinds) == 1 for number, kinds in folders(shelf).items() if number >= 0)
    assert shelf.age is Age.YOUNG


def young_refit(shelf: Shelf) -> npt.NDArray[np.int64]:
    """Let two kinds come, and then two more; return the folders by the first of the two fits."""
    shelf.drop(kind(0) + kind(1))
    shelf.work(QUIET_S)
    first = shelf.folders(len(FEATURES))
    shelf.drop(kind(2) + kind(3))
    shelf.work(QUIET_S)
    return first


def undo(shelf: Shelf, batch: int | None = None) -> UndoReport:
    return Undo(shelf.store, shelf.library.moves).run(UndoChoice(batch))


def undo_following(shelf: Shelf) -> None:
    (batch,) = shelf.store.records.batches_of(2)
    assert undo(shelf, batch).fit_in_force == 1


@pytest.mark.parametrize(
    "take_back",
    [lambda shelf: decisions_of(shelf.library).rollback(), undo_following],
    ids=["rollback", "undo"],
)
def test_a_young_refit_is_taken_back_in_one_step(
    take_back: Callable[[Shelf], object], make_shelf: Callable[..., Shelf]
) -> None:
    shelf = make_shelf()
    before = young_refit(shelf)

    take_back(shelf)

    known = before >= -1
    assert (shelf.folders(len(FEATURES))[known] == before[known]).all()
    assert [(fit.fit_id, fit.in_force) for fit in shelf.fits] == [(1, True), (2, False)]


@pytest.mark.parametrize("is_rollback", [True, False])
def test_undoing_what_took_a_fit_back_puts_it_in_force_again(
    is_rollback: bool, make_shelf: Callable[..., Shelf]
) -> None:
    shelf = make_shelf()
    young_refit(shelf)
    after = shelf.folders(len(FEATURES))
    (batch,) = shelf.store.records.batches_of(2)
    back = (
        decisions_of(shelf.library).rollback().batch if is_rollback else undo(shelf, batch).made[0]
    )

    report = undo(shelf, back)

    assert report.fit_in_force == 2
    assert (shelf.folders(len(FEATURES)) == after).all()
    assert [(fit.fit_id, fit.in_force) for fit in shelf.fits] == [(1, False), (2, True)]


def test_a_refit_that_moves_nothing_is_not_taken_back_with_the_next_arrivals(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = make_shelf(clusters={"review_quantile": "off"})
    shelf.drop(several(range(4), 0, 20))
    shelf.work(QUIET_S)
    shelf.drop(several(range(4), 20, 40))
    shelf.work(QUIET_S)
    shelf.drop([kind(0)[50]])
    shelf.work(QUIET_S)

    report = undo(shelf)

    assert (len(shelf.fits), report.returned, report.fit_in_force) == (2, 1, None)


def test_an_ordinary_undo_takes_no_fit_back(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf()
    shelf.drop(several(range(4), 0, 20))
    shelf.work(QUIET_S)

    report = undo(shelf, 1)

    assert report.returned == 64
    assert report.fit_in_force is None
    assert shelf.fits[0].in_force


def test_files_stay_where_they_are_with_move_sorted_false(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf(refit={"move_sorted": False})
    shelf.drop(kind(0) + kind(1))
    shelf.work(QUIET_S)
    before = shelf.folders(len(FEATURES))

    shelf.drop(kind(2) + kind(3))
    shelf.work(QUIET_S)

    assert len(shelf.fits) == 2
    assert (shelf.folders(len(FEATURES))[before >= 0] == before[before >= 0]).all()


@pytest.mark.parametrize("wanted", [4, "auto"])
def test_a_named_and_a_pinned_folder_keep_their_number_and_what_is_nearest_to_them(
    wanted: int | str, make_shelf: Callable[..., Shelf]
) -> None:
    shelf = make_shelf(clusters={"n_clusters": wanted})
    shelf.drop(several((0, 1)))
    shelf.work(QUIET_S)
    stands = shelf.folders(len(FEATURES))
    # Two folders of one kind, where so many clusters are wanted: the next fit would join them.
    named, pinned = dict.fromkeys(n for n in stands[kind(0)].tolist() if n >= 0), kind(1)[5]
    shelf.name(next(iter(named)), "Apples")
    shelf.pin(pinned, int(stands[kind(1)[0]]))

    shelf.drop(several((2, 3, 4, 5)))
    shelf.work(QUIET_S)

    found = folders(shelf)
    assert shelf.names == {next(iter(named)): b"Apples"}
    assert found[next(iter(named))] == {0}
    assert 1 in found[int(stands[kind(1)[0]])]
    assert shelf.folders(len(FEATURES))[pinned] == stands[kind(1)[0]]
    assert len(shelf.fits) == 2


def test_a_folder_that_was_made_by_hand_goes_on_though_its_pins_are_freed(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = make_shelf()
    shelf.drop(several((0, 1)))
    shelf.work(QUIET_S)
    made = shelf.make_folder("cluster_40", kind(0)[3:9])
    for number in kind(0)[3:9]:
        shelf.unpin(number)

    shelf.drop(several((2, 3)))
    shelf.work(QUIET_S)

    assert made == 40
    assert folders(shelf)[40] == {0}
    assert shelf.fits[-1].n_clusters == 5  # on top


def test_some_odd_pins_do_not_carry_a_folder_off(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf()
    shelf.drop(several((0, 1, 2)))
    shelf.work(QUIET_S)
    number = {min(kinds): cluster_id for cluster_id, kinds in clusters(shelf).items()}
    shelf.name(number[0], "Apples")
    for odd in kind(1)[10:15]:
        shelf.pin(odd, number[0])

    for new in (3, 4):
        shelf.drop(kind(new))
        shelf.work(QUIET_S)

    stands = shelf.folders(len(FEATURES))
    in_apples = np.flatnonzero(stands == number[0])
    assert shelf.names == {number[0]: b"Apples"}
    assert set(kind(1)[10:15]) <= set(in_apples.tolist())
    assert np.mean(stands[kind(0)] == number[0]) > 0.9
    assert {row // EACH for row in in_apples.tolist()} == {0, 1}


def test_until_all_files_have_followed_a_fit_it_is_not_taken_back(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = make_shelf()
    shelf.drop(kind(0) + kind(1))
    shelf.work(QUIET_S)
    before = shelf.folders(len(FEATURES))
    shelf.library.mover.stopping = lambda: len(shelf.fits) > 1  # as a full disk would
    shelf.drop(kind(2) + kind(3))
    shelf.work(QUIET_S)
    still = shelf.store.records.count_following()
    (batch,) = shelf.store.records.batches_of(2)

    with pytest.raises(ProposalError, match=f"{still} files are still to follow fit 2"):
        decisions_of(shelf.library).rollback()
    shelf.library.mover.stopping = lambda: False
    shelf.library.moves.recover()
    undo(shelf, batch)

    assert still > 0
    assert (shelf.folders(len(FEATURES))[before >= -1] == before[before >= -1]).all()


def test_an_undo_that_is_stopped_takes_back_all_that_followed_a_fit_in_the_end(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = make_shelf()
    shelf.drop(kind(0) + kind(1))
    shelf.work(QUIET_S)
    before = shelf.folders(len(FEATURES))
    shelf.drop(kind(2) + kind(3))
    shelf.work(QUIET_S)
    (batch,) = shelf.store.records.batches_of(2)
    asked = iter([False])

    shelf.library.mover.stopping = lambda: next(asked, True)
    with pytest.raises(UndoError, match="the others follow at the next start"):
        undo(shelf, batch)
    shelf.library.mover.stopping = lambda: False
    shelf.library.moves.recover()

    assert (shelf.folders(len(FEATURES))[before >= -1] == before[before >= -1]).all()
    assert [(fit.fit_id, fit.in_force) for fit in shelf.fits] == [(1, True), (2, False)]


@pytest.mark.parametrize("duplicates", ["set_aside", "skip"])
def test_twins_that_do_not_stay_hold_up_no_refit(
    duplicates: str, make_shelf: Callable[..., Shelf]
) -> None:
    shelf = make_shelf(duplicates=duplicates)
    shelf.drop(several((0, 1)))
    shelf.drop_twins(several((0, 1)), 2)
    shelf.work(QUIET_S)

    shelf.drop(kind(2))
    shelf.work(QUIET_S)

    assert [fit.state for fit in shelf.fits] == [FitState.ADOPTED] * 2
    assert sorted(clusters(shelf).values()) == [{0}, {1}, {2}]


# --- grown ------------------------------------------------------------------------------


def test_a_grown_library_makes_one_proposal_when_a_burst_is_over(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = grown(make_shelf)
    fits = len(shelf.fits)

    for first in range(0, 36, 6):  # the kinds that are new, with a breath between
        shelf.drop(several((4, 5, 6, 7), first, first + 6))
        shelf.work(10)
    during = len(shelf.fits)
    shelf.work(QUIET_S)

    assert during == fits
    assert [fit.state for fit in shelf.fits[fits:]] == [FitState.PROPOSED]


@pytest.mark.parametrize(("age", "waits_s"), [(Age.GROWN, 86_400), (Age.YOUNG, 7_200)])
def test_arrivals_that_never_end_hold_up_a_grown_library_for_a_day_and_a_young_one_less(
    age: Age, waits_s: float, make_shelf: Callable[..., Shelf]
) -> None:
    settings = {"clusters": {"quiet_s": 3600}, "refit": {"drift": "off", "interval": "off"}}
    if age is Age.GROWN:
        shelf = grown(make_shelf, **settings)
    else:
        shelf = make_shelf(**settings)
        shelf.drop(several(range(4), 0, 42))
        shelf.work(2 * 3600)
    fits, numbers = len(shelf.fits), iter(several(range(4), 42) + several((4, 5, 6)))
    shelf.drop([next(numbers) for _ in range(50)])  # more than a quarter
    shelf.work(0)

    began_s = shelf.now_s
    while len(shelf.fits) == fits and shelf.now_s < began_s + 2 * waits_s:
        shelf.drop([next(numbers)])
        shelf.work(1800)

    assert waits_s <= shelf.now_s - began_s <= waits_s + 2 * 1800


def test_a_proposal_does_what_it_shows(make_shelf: Callable[..., Shelf]) -> None:
    shelf = grown(make_shelf)
    shelf.drop(several((4, 5)))
    shelf.work(QUIET_S)
    waiting = shelf.store.records.waiting()
    assert waiting is not None
    proposal = read_proposal(shelf.store, waiting, 10_000)

    shelf.accept()

    disk, target = on_disk(shelf), shelf.library.config.target
    for change in proposal.changes:
        if change.change is not Change.VANISHES:
            assert disk[f"cluster_{change.cluster_id}"] == change.after
    appearing = [change for change in proposal.changes if change.change is Change.APPEARS]
    from_review = sum(group.total for group in proposal.moves if group.old_id is None)
    assert appearing
    assert from_review > 0
    assert all(group.files for group in proposal.moves)
    assert all(
        (target / os.fsdecode(group.new_folder) / os.fsdecode(os.path.basename(name))).exists()
        for group in proposal.moves
        for name in group.files
    )
    assert shelf.age is Age.GROWN


def test_a_proposal_can_be_accepted_for_routing_only(make_shelf: Callable[..., Shelf]) -> None:
    shelf = grown(make_shelf)
    shelf.drop(several((4, 5)))
    shelf.work(QUIET_S)
    before = shelf.folders(len(FEATURES))

    shelf.accept(move=False)

    assert (shelf.folders(len(FEATURES))[before >= 0] == before[before >= 0]).all()


def test_what_the_fit_takes_out_of_review_by_itself_goes_back_with_the_others(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = grown(make_shelf)
    shelf.drop(several((4, 5), 0, 40))
    shelf.work(QUIET_S)
    shelf.drop(several((4, 5), 40, 48))  # after the proposal, also into review
    shelf.work(QUIET_S)
    before = shelf.folders(len(FEATURES))
    fits = len(shelf.fits)

    shelf.accept()
    after = shelf.folders(len(FEATURES))
    undo(shelf)

    assert (before[several((4, 5), 40, 48)] == -1).any()
    assert (after != before).sum() > 8
    assert (shelf.folders(len(FEATURES)) == before).all()
    assert len(shelf.fits) == fits


def test_accepting_a_fit_again_makes_no_other_one_due(make_shelf: Callable[..., Shelf]) -> None:
    shelf = grown(make_shelf)
    shelf.drop(several((4, 5)))
    shelf.work(QUIET_S)
    shelf.accept()
    shelf.drop(several(range(4), 42, 50))
    shelf.work(QUIET_S)
    number = shelf.store.records.current_id()
    decisions_of(shelf.library).rollback()
    fits = len(shelf.fits)

    shelf.accept(number)
    shelf.work(QUIET_S)

    assert shelf.store.records.current_id() == number
    assert len(shelf.fits) == fits


def test_a_rejected_proposal_moves_nothing(make_shelf: Callable[..., Shelf]) -> None:
    shelf = grown(make_shelf)
    shelf.drop(several((4, 5)))
    shelf.work(QUIET_S)
    before = shelf.folders(len(FEATURES))

    reject(shelf.store, None)
    shelf.work(QUIET_S)

    assert (shelf.folders(len(FEATURES)) == before).all()


def test_more_than_a_fifth_of_the_arrivals_in_review_is_drift(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = grown(make_shelf, refit={"drift": 50}, parts=((0, 30), (30, 40), (40, 52)))
    fits = len(shelf.fits)

    shelf.drop(several(range(4), 52) + kind(4, 0, 19))  # 51, and growth needs 52
    shelf.work(QUIET_S)

    assert [fit.trigger for fit in shelf.fits[fits:]][:1] == ["drift"]


# --- a number means its folder ------------------------------------------------------------


def test_a_number_stays_with_what_stands_in_its_folder_and_not_with_what_never_stood_there(
    make_shelf: Callable[..., Shelf],
) -> None:
    shelf = grown(make_shelf)
    shelf.drop(kind(5))  # a new kind, most of it in review, nearest to some folder
    shelf.work(QUIET_S)
    before = folders(shelf)

    shelf.accept()

    after = folders(shelf)
    for number, kinds in after.items():
        if number in before and number >= 0:
            assert kinds <= before[number]


@pytest.mark.parametrize("loses_what", ["backbone", "database", "database, restored"])
def test_one_dragged_picture_swaps_no_numbers_where_former_labels_are_lost(
    loses_what: str, make: Callable[..., Inbox]
) -> None:
    one = make(clusters={"n_clusters": 3, "min_images": 60})
    one.drop(20)
    one.daemon.start()
    one.wait_sorted()
    wait_until(lambda: one.status().backup, what="a backup")
    before = kinds_of_folders(one)
    dragged = next(path for path in each_file_below(one.target) if "red" in path.name)
    (green,) = [folder for folder, kinds in before.items() if kinds == {"green"}]
    dragged.rename(one.target / green / "dragged.png")
    wait_until(lambda: "dragged.png" in quick_cli("pins", one).stdout, what="pinned")
    assert one.daemon.stop() == 0

    if loses_what == "backbone":
        file = one.folder / "config.yaml"
        file.write_text(file.read_text() + "model: {backbone: efficientnet_lite0}\n")
    else:
        one.config.database.unlink()
        if loses_what == "database":
            shutil.rmtree(one.config.state_dir / "backups")
    one.daemon.start()
    trigger = "backbone" if loses_what == "backbone" else "rebuild"
    if loses_what == "database, restored":  # it knows the dragged one by its bytes
        one.daemon.wait_ready(2)
    else:
        wait_until(lambda: f"fit adopted trigger={trigger}" in one.daemon.log, what="a fit")
    one.drop(1)
    one.wait_sorted()

    (one.target / green / "dragged.png").rename(one.folder / "dragged.png")
    assert kinds_of_folders(one) == before


def kinds_of_folders(one: Inbox) -> dict[str, set[str]]:
    """Return the colours that each cluster's folder holds."""
    found: dict[str, set[str]] = {}
    for path in each_file_below(one.target):
        colour = [name for name in ("red", "green", "blue") if name in path.name]
        if path.parent.name.startswith("cluster_"):
            found.setdefault(path.parent.name, set()).update(colour)
    return found
