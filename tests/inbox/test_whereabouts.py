"""The inbox is known by more than its path: another folder there makes no file gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import Bench
from imgsortd.errors import LockedError, WatchError
from imgsortd.inbox.whereabouts import Whereabouts
from imgsortd.records import MovePhase
from imgsortd.system.filesystem import stamp_of
from mounts import tmpfs


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def knows(bench: Bench, **changes: object) -> Whereabouts:
    """Return a new start's knowledge of the inbox."""
    return Whereabouts(bench.inbox, bench.store, **changes)  # type: ignore[arg-type]


def meet(whereabouts: Whereabouts, bench: Bench) -> None:
    whereabouts.meet(os.stat(bench.inbox))


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


def test_files_of_the_former_folder_are_away_until_it_is_back(bench: Bench) -> None:
    file_id = pending(bench, "a.png")
    where = knows(bench)
    meet(where, bench)
    assert not where.is_away(file_id)
    swap(bench)
    assert where.is_away(file_id)  # before the next look has told
    with pytest.raises(WatchError):
        meet(where, bench)
    meet(where, bench)
    new_id = pending(bench, "b.png")
    assert (where.is_away(file_id), where.is_away(new_id)) == (True, False)

    swap(bench)
    with pytest.raises(WatchError):
        meet(where, bench)
    meet(where, bench)

    assert (where.is_away(file_id), where.is_away(new_id)) == (False, True)


def test_the_next_start_knows_it_too(bench: Bench) -> None:
    file_id = pending(bench, "a.png")
    meet(knows(bench), bench)
    swap(bench)

    where = knows(bench)

    assert where.is_away(file_id)
    with pytest.raises(WatchError):
        where.insist()
    with pytest.raises(WatchError):
        meet(where, bench)
    meet(where, bench)
    assert knows(bench).is_away(file_id)
    swap(bench)
    again = knows(bench)
    with pytest.raises(WatchError):
        meet(again, bench)
    meet(again, bench)
    assert not again.is_away(file_id)


def test_a_folder_that_was_deleted_takes_its_files_with_it(bench: Bench) -> None:
    file_id = pending(bench, "a.png")
    where = knows(bench, is_removed=lambda _: True)
    meet(where, bench)
    swap(bench)
    with pytest.raises(WatchError):
        meet(where, bench)

    meet(where, bench)

    assert not where.is_away(file_id)


def test_a_file_that_is_seen_is_not_away(bench: Bench) -> None:
    file_id = pending(bench, "a.png")
    meet(knows(bench), bench)
    swap(bench)
    where = knows(bench)
    where.accept()
    meet(where, bench)

    where.seen([file_id])

    assert not where.is_away(file_id)
    assert not knows(bench).is_away(file_id)


def test_the_same_folder_under_another_path_is_the_choice_of_its_owner(bench: Bench) -> None:
    file_id = pending(bench, "a.png")
    meet(knows(bench), bench)

    other = Whereabouts(bench.target, bench.store)

    other.meet(os.stat(bench.target))
    assert not other.is_away(file_id)


def test_what_was_noted_and_cannot_be_read_is_no_reason_to_stop(bench: Bench) -> None:
    meet(knows(bench), bench)
    (bench.config.state_dir / "inbox.json").write_text("[]")

    meet(knows(bench), bench)


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
    where = bench.mover._home = knows(bench)
    meet(where, bench)
    with tmpfs(bench.inbox):
        (at_once,) = bench.recover()
        with pytest.raises(WatchError):
            meet(where, bench)
        meet(where, bench)
        (later,) = bench.recover()
        open_moves = bench.store.journal.unfinished()

    assert [result.phase for result in (at_once, later)] == [MovePhase.PLANNED] * 2
    assert "the inbox is another folder than when this was planned" in at_once.error
    assert "mount the former one again (a.png)" in later.error
    assert [one.move_id for one in open_moves] == [move.move_id]
    with pytest.raises(WatchError):
        meet(where, bench)
    meet(where, bench)
    assert [result.phase for result in bench.recover()] == [MovePhase.DONE]
