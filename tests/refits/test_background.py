"""A fit that is due waits until it would see all there is, and not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsortd.records import Arrivals, FileState, Move, Op, Root, Route, Stamp
from imgsortd.refits.background import Asked, BackgroundFits
from line import Line
from support import fits_of, make_grown, paint_groups
from synthetic import note_places

DAY_S = 86_400.0
QUIET = Arrivals(unread=0, quiet_s=31.0)
STILL_COMING = [
    Arrivals(unread=1, quiet_s=31.0),
    Arrivals(settling=1, quiet_s=31.0),
    Arrivals(quiet_s=29.0),
    Arrivals(unread=40, quiet_s=0.0),
]


class Waiting:
    """A line whose fits are the daemon's, on a clock and with arrivals that are made up."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        clusters = {"quiet_s": 30, "wait_most": "2h", **changes.pop("clusters", {})}
        self.line = Line(folder, clusters=clusters, **changes)
        self.errors: list[str] = []
        self.arrivals, self.now_s = QUIET, 0.0
        self.fits = self._make()

    def _make(self) -> BackgroundFits:
        return fits_of(
            self.line.library,
            lambda event, detail: self.errors.append(f"{event}: {detail}"),
            lambda _: self.arrivals,
        )

    def bring(self, each: int, seed: int) -> None:
        """Let pictures of three colours be read."""
        paint_groups(self.line.config.inbox, each, seed=seed)
        self.line.process(self.line.read())
        self.fits = self._make()

    def is_begun(self, after_s: float) -> bool:
        """Let time pass in steps of half a minute; tell whether a fit is begun by then."""
        until_s = self.now_s + after_s
        while not self.fits.is_fitting and self.now_s < until_s:
            self.now_s = min(until_s, self.now_s + 30)
            self.fits.step(self.now_s)
        return self.fits.is_fitting

    def end(self) -> None:
        """Let the fit that is begun come to its end."""
        self.fits.wait()
        self.now_s += 1
        self.fits.step(self.now_s)
        assert not self.fits.is_fitting
        assert self.errors == []


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Waiting]]:
    made: list[Waiting] = []

    def make(**changes: Any) -> Waiting:
        made.append(Waiting(tmp_path, **changes))
        return made[-1]

    yield make
    for one in made:
        one.fits.wait()
        one.line.close()


def sorted_library(make: Callable[..., Waiting], **changes: Any) -> Waiting:
    """Return a library of nine sorted pictures to which growth of a third is due a refit."""
    one = make(refit={"growth": 0.3, "interval": "off", "max_churn": 0.1, **changes})
    one.bring(3, 0)
    assert one.is_begun(60)
    one.end()
    one.line.run()
    one.bring(1, 100)
    return one


@pytest.mark.parametrize("arrivals", STILL_COMING)
def test_the_first_fit_waits_while_files_are_unread_or_still_come(
    make: Callable[..., Waiting], arrivals: Arrivals
) -> None:
    one = make()
    one.bring(2, 0)
    one.arrivals = arrivals

    early = one.is_begun(7_200)
    one.arrivals = QUIET

    assert not early
    assert one.is_begun(60)


def test_the_first_fit_is_of_all_pictures_that_came_while_it_waited(
    make: Callable[..., Waiting],
) -> None:
    one = make()
    one.bring(2, 0)
    one.arrivals = Arrivals(unread=9, quiet_s=0.0)
    assert not one.is_begun(600)
    paint_groups(one.line.config.inbox / "more", 3, seed=50)
    report = one.line.process(one.line.read())
    one.fits.heard_of(report.waiting)
    one.arrivals = QUIET

    assert one.is_begun(60)
    one.end()

    record = one.line.store.fits.current_record()
    assert record is not None
    assert record.n_images == 15


def test_the_first_fit_waits_no_longer_than_it_is_configured(make: Callable[..., Waiting]) -> None:
    one = make(clusters={"wait_most": "30m"})
    one.bring(2, 0)
    one.arrivals = Arrivals(unread=9, quiet_s=0.0)

    assert not one.is_begun(1_800)
    assert one.is_begun(60)


def test_a_wait_begins_anew_where_nothing_was_due_in_between(make: Callable[..., Waiting]) -> None:
    one = sorted_library(make)
    one.arrivals = Arrivals(unread=9, quiet_s=0.0)
    assert not one.is_begun(7_000)
    one.fits.rule = replace(one.fits.rule, growth=9.0)
    assert not one.is_begun(600)
    one.fits.rule = replace(one.fits.rule, growth=0.3)

    assert not one.is_begun(7_000)
    assert one.is_begun(600)


def test_a_refit_of_a_young_library_waits_as_long_as_the_first_fit(
    make: Callable[..., Waiting],
) -> None:
    one = sorted_library(make)
    one.arrivals = Arrivals(unread=9, quiet_s=0.0)

    assert not one.is_begun(7_200)
    assert one.is_begun(60)


def test_a_refit_of_a_grown_library_waits_for_quiet_a_day_at_most(
    make: Callable[..., Waiting],
) -> None:
    one = sorted_library(make)
    make_grown(one.line.store)
    one.arrivals = Arrivals(unread=9, quiet_s=0.0)

    assert not one.is_begun(DAY_S)
    assert one.is_begun(60)


def test_a_grown_library_whose_review_fills_up_does_not_wait_for_a_day(
    make: Callable[..., Waiting],
) -> None:
    one = sorted_library(make, growth="off", drift=50)
    make_grown(one.line.store)
    fit = one.line.library.in_force.model
    assert fit is not None
    with one.line.store.atomic():
        one.line.store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, seen_at, state, dst, sha256, "
            "fit_id, distance) VALUES (?, 1, 1, 1, 0, ?, ?, ?, ?, 0)",
            [
                (name, "review" if number < 11 else "sorted", b"_review/" + name, name, fit.fit_id)
                for number, name in enumerate(b"%d.png" % number for number in range(50))
            ],
        )
        note_places(one.line.store.connection)
        hashes = [b"%d.png" % number for number in range(50)]
        vectors = np.eye(3, dtype=np.float32)[np.arange(50) % 3]
        one.line.store.fits.put_features(one.line.extractor.id, hashes, vectors)
    one.fits = one._make()
    one.arrivals = Arrivals(unread=9, quiet_s=0.0)

    assert not one.is_begun(7_200)
    assert one.is_begun(60)


def test_a_fit_waits_for_files_that_still_follow_the_one_before_but_not_for_ever(
    make: Callable[..., Waiting],
) -> None:
    one = sorted_library(make)
    store, dst = one.line.store, b"cluster_1/held up.png"
    with store.atomic():
        src, stamp = b"cluster_0/held up.png", Stamp(1, 1, 1)
        move = Move(0, 1, Op.MOVE, Root.TARGET, src, stamp, b"sha256", dst)
        route = Route(1, FileState.SORTED, b"cluster_1", 1)
        store.journal.plan(move, route, batch=99, fit_id=1)
        store.records.note_switch(99, 1, 1)

    assert not one.is_begun(7_200)
    assert one.is_begun(60)


def test_what_a_person_asks_for_waits_for_nothing(make: Callable[..., Waiting]) -> None:
    one = sorted_library(make)
    one.arrivals = Arrivals(unread=9, quiet_s=0.0)
    answers: list[str] = []
    assert not one.is_begun(30)

    asked = Asked({}, lambda _: None, lambda state, _: answers.append(state))
    one.fits.ask(asked, one.now_s)
    one.end()

    assert answers == ["done"]


def test_files_of_a_young_library_follow_a_refit_that_was_due(
    make: Callable[..., Waiting],
) -> None:
    one = make(
        clusters={"n_clusters": 1}, refit={"growth": 0.3, "interval": "off", "max_churn": 0.1}
    )
    one.bring(3, 0)
    assert one.is_begun(60)
    one.end()
    one.line.run()
    assert {name.split("/")[0] for name in one.line.files()} == {"cluster_0"}
    clusters = one.line.config.clusters.model_copy(update={"n_clusters": 3})
    config = one.line.config.model_copy(update={"clusters": clusters})
    one.line.library = replace(one.line.library, config=config)
    one.bring(1, 100)

    assert one.is_begun(60)
    one.end()
    one.line.run()

    together: dict[str, set[str]] = {}
    for name in one.line.files():
        folder, file = name.split("/")
        together.setdefault(folder, set()).add(file.split("-")[0])
    assert sorted(together.values(), key=sorted) == [{"blue"}, {"green"}, {"red"}]
    fits = one.line.store.records.list_fits()
    assert [fit.in_force for fit in fits] == [True, False]
    assert one.line.store.records.batches_of(fits[0].fit_id) != []
