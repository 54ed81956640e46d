"""A wall clock that jumps, files from 1970 and 2099, a past that lies in the future."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.books import check_books
from imgsortd.store.database import open_for_writing
from inboxes import Inbox, quick_cli
from support import paint, wait_until

DAY_S = 86_400.0
MakeInbox = Callable[..., Inbox]


class Clock:
    """The wall clock of a daemon, as wrong as it is told to be."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.environ = {"IMGSORTD_TEST_CLOCK": str(self._file)}
        self.jump_to(0)

    def jump_to(self, offset_s: float) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(str(offset_s))
        part.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.mark.parametrize("years", [-30, 70])
def test_the_clock_jumps_there_and_back_and_everything_is_sorted(
    make: MakeInbox, clock: Clock, years: int
) -> None:
    one = make(rescan_s=1)
    one.drop(3)
    one.daemon.start(**clock.environ)
    one.wait_sorted()
    for offset_s in (years * 365 * DAY_S, 0, -3, 3):
        clock.jump_to(offset_s)
        one.drop(2)
        one.wait_sorted()

    check_books(one)
    wait_until(lambda: one.status().daemon == "running", 30, "running")
    assert one.daemon.stop(timeout_s=10) == 0


def test_files_of_any_date_are_sorted_and_keep_it(make: MakeInbox, tmp_path: Path) -> None:
    one = make(clusters={"n_clusters": 1, "min_images": 1})
    dates = {"minus.png": -1, "epoch.png": 0, "far.png": 4_070_908_800}
    one.daemon.start()
    one.daemon.wait_ready()

    for seed, (name, unix_s) in enumerate(dates.items()):
        picture = paint(tmp_path / name, (200, 30, 30), seed)
        os.utime(picture, (unix_s, unix_s))
        one.bring(picture, name)

    one.wait_sorted()
    check_books(one)
    found = {path.name: path.stat().st_mtime for path in one.target.rglob("*.png")}
    assert found == dates


def test_a_heartbeat_from_the_future_is_no_sign_of_life_and_no_nonsense(
    make: MakeInbox, clock: Clock
) -> None:
    one = make()
    one.drop(3)
    clock.jump_to(400 * DAY_S)
    one.daemon.start(**clock.environ)
    one.wait_sorted()

    report = one.status()

    assert report.daemon == "not responding"
    assert report.heartbeat_age_s == 0
    assert report.last_fit is not None
    assert report.last_fit.age_s == 0
    clock.jump_to(0)
    wait_until(lambda: one.status().daemon == "running", 40, "a new heartbeat")
    assert one.status().uptime_s == 0
    done = quick_cli("status", one)
    assert done.returncode == 0
    assert " -" not in done.stdout, done.stdout


def test_a_fit_dated_in_the_future_does_not_put_off_the_next_one(
    make: MakeInbox, clock: Clock
) -> None:
    one = make(refit={"interval": "1h", "growth": None})
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    one.daemon.stop()
    first = date_the_fit(one, time.time() + 400 * DAY_S)
    one.drop(1)

    one.daemon.start()

    wait_until(lambda: fit_id(one) > first, 30, "another fit\n" + one.daemon.log)
    one.wait_sorted()
    check_books(one)
    last = one.status().last_fit
    assert last is not None
    assert last.created_at < time.time() + 1
    assert "in 59 min" in one.status().next_fit or "1 h" in one.status().next_fit


def date_the_fit(one: Inbox, unix_s: float) -> int:
    store = open_for_writing(one.config.database)
    store.connection.execute("UPDATE fits SET created_at = ?1, decided_at = ?1", (unix_s,))
    store.connection.commit()
    store.close()
    return fit_id(one)


def fit_id(one: Inbox) -> int:
    last = one.status().last_fit
    assert last is not None
    return int(last.fit_id)
