"""The inbox is known by more than its path: another folder there makes no file gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import Bench
from imgsortd.errors import LockedError, WatchError
from imgsortd.inbox.companions import Companions
from imgsortd.inbox.intake import Intake
from imgsortd.inbox.listing import Inbox
from imgsortd.inbox.whereabouts import Identity, Whereabouts
from imgsortd.records import MovePhase
from imgsortd.system.filesystem import stamp_of
from mounts import tmpfs


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def knows(
    bench: Bench,
    on_arrival: Callable[[], None] = lambda: None,
    is_removed: Callable[[Identity], bool] = lambda _: False,
) -> Whereabouts:
    """Return a new start's knowledge of the inbox."""
    return Whereabouts(bench.inbox, bench.roots, on_arrival, is_removed)


def meet(whereabouts: Whereabouts, bench: Bench) -> None:
    whereabouts.meet(os.stat(bench.inbox))


def meet_another(whereabouts: Whereabouts, bench: Bench) -> None:
    """Meet a folder that is not the former one; it is taken where it stays."""
    with pytest.raises(WatchError):
        meet(whereabouts, bench)
    meet(whereabouts, bench)


def waiting(bench: Bench) -> list[str]:
    """Return the names of files that wait in the folder that is the inbox now."""
    return sorted(map(os.fsdecode, bench.store.files.pending_names()))


def swap(bench: Bench) -> None:
    """Put another folder in the inbox's place; a second swap brings the first back."""
    other = bench.inbox.with_name("other")
    other.mkdir(exist_ok=True)
    bench.inbox.rename(bench.inbox.with_name("between"))
    other.rename(bench.inbox)
    bench.inbox.with_name("between").rename(other)


def pending(bench: Bench, name: str) -> int:
    """Take a file of the inbox into the store, as one that waits."""
    stamp = os.stat(bench.put(name))
    with bench.store.atomic():
        (arrival,) = bench.store.files.arrive([(os.fsencode(name), stamp_of(stamp))])
    return arrival.candidate.file_id


def test_another_folder_is_refused_at_the_first_look_and_taken_at_the_second(bench: Bench) -> None:
    where = knows(bench)
    meet(where, bench)
    swap(bench)

    with pytest.raises(WatchError, match="another folder is there than before"):
        meet(where, bench)

    meet(where, bench)


def test_a_folder_that_flaps_is_refused_each_time(bench: Bench) -> None:
    where = knows(bench)
    meet(where, bench)
    for _ in range(2):
        swap(bench)
        with pytest.raises(WatchError):
            meet(where, bench)
        swap(bench)

        meet(where, bench)


def test_files_of_the_former_folder_wait_for_it(bench: Bench) -> None:
    pending(bench, "a.png")
    where = knows(bench)
    meet(where, bench)
    assert not where.is_away
    swap(bench)
    assert where.is_away  # before the next look has told
    meet_another(where, bench)
    assert waiting(bench) == []
    pending(bench, "b.png")

    swap(bench)
    meet_another(where, bench)

    assert waiting(bench) == ["a.png"]
    assert bench.store.files.counts().pending == 2


def test_the_next_start_knows_it_too(bench: Bench) -> None:
    pending(bench, "a.png")
    meet(knows(bench), bench)
    swap(bench)

    where = knows(bench)

    assert where.is_away
    with pytest.raises(WatchError):
        bench.roots.insist()
    meet_another(where, bench)
    assert waiting(bench) == []
    swap(bench)
    meet_another(knows(bench), bench)
    assert waiting(bench) == ["a.png"]


def test_a_folder_that_was_deleted_takes_its_files_with_it(bench: Bench) -> None:
    pending(bench, "a.png")
    where = knows(bench, is_removed=lambda _: True)
    meet(where, bench)
    swap(bench)

    meet_another(where, bench)

    assert waiting(bench) == ["a.png"]  # and the next listing finds it gone


def test_a_file_that_is_found_in_the_new_folder_is_known_there(bench: Bench) -> None:
    pending(bench, "a.png")
    pending(bench, "b.png")
    where = knows(bench)
    meet(where, bench)
    swap(bench)
    meet_another(where, bench)
    bench.put("a.png")

    intake = Intake(
        Inbox(bench.inbox, True, (), "auto"),
        bench.store,
        where,
        Companions(bench.config, bench.store),
        0.0,
    )
    intake.scan(0.0)

    assert waiting(bench) == ["a.png"]
    assert bench.store.files.counts().pending == 2


def test_where_another_imgsortd_is_at_work_the_folder_is_not_taken(bench: Bench) -> None:
    locked = ["another imgsortd"]

    def on_arrival() -> None:
        if locked:
            raise LockedError(locked[0])

    where = knows(bench, on_arrival=on_arrival)

    with pytest.raises(WatchError, match="another imgsortd"):
        meet(where, bench)
    locked.clear()

    meet(where, bench)


def test_a_move_whose_file_may_be_on_an_unmounted_disk_stays_open(bench: Bench) -> None:
    bench.put("a.png")
    move = bench.plan("a.png", "cluster_0/a.png")
    where = knows(bench)
    meet(where, bench)
    with tmpfs(bench.inbox):
        (at_once,) = bench.recover()
        with pytest.raises(WatchError):
            meet(where, bench)
        meet(where, bench)
        (later,) = bench.recover()
        open_moves = bench.store.journal.unfinished()

    assert [result.phase for result in (at_once, later)] == [MovePhase.PLANNED] * 2
    assert "is another folder than when this was planned" in at_once.error
    assert "mount the former one again" in later.error
    assert [one.move_id for one in open_moves] == [move.move_id]
    with pytest.raises(WatchError):
        meet(where, bench)
    meet(where, bench)
    assert [result.phase for result in bench.recover()] == [MovePhase.DONE]
