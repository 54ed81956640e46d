"""Signals in the middle of the work: it ends or goes on, and no file is in two minds."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import warm
from faults.books import check_books, check_kept
from faults.figures import Figure
from inboxes import QUICK, Inbox
from mounts import tmpfs
from support import wait_until

STOPS_WITHIN_S = 10  # the promise
MakeOne = Callable[[str], Inbox]
SLOW_COPIES = (warm.WRAPPED, "slow-copies")


@pytest.fixture
def make_one(folder: Path) -> Iterator[MakeOne]:
    """Make an inbox, its target ``here`` or ``across``, on a filesystem of its own."""
    with ExitStack() as stack:

        def make(where: str) -> Inbox:
            if where == "across":
                stack.enter_context(tmpfs(folder / "target"))
            return Inbox(folder, rescan_s=1)

        yield make


def start(one: Inbox, lives: int) -> None:
    """Start it and wait until it listens to signals."""
    one.daemon.start()
    logged(one, "daemon starting", lives)


def logged(one: Inbox, text: str, times: int = 1) -> None:
    log = one.folder / "daemon.log"
    wait_until(
        lambda: log.exists() and one.daemon.log.count(text) >= times, 30, f"{text!r} {times} times"
    )


@pytest.mark.parametrize("lives", [3, pytest.param(10, marks=pytest.mark.faults)])
@pytest.mark.parametrize("where", ["here", "across"])
def test_sigterm_at_any_moment_ends_it_in_time_with_closed_books(
    make_one: MakeOne, figure: Figure, where: str, lives: int
) -> None:
    one = make_one(where)
    draw = random.Random(where)
    for life in range(lives):
        one.drop(4)
        start(one, life + 1)
        one.drop(1)
        # Any moment of the work is the right one.
        time.sleep(draw.uniform(0, 1.2))

        assert one.daemon.stop(signal.SIGTERM, STOPS_WITHIN_S) == 0

        check_kept(one, most=1)
        assert one.status().open_moves == []
    start(one, lives + 1)
    one.wait_sorted()

    check_books(one)
    figure("SIGTERM", lives)


@pytest.mark.parametrize("where", [pytest.param("here", marks=pytest.mark.faults), "across"])
def test_stopped_or_reloaded_at_any_moment_it_goes_on(make_one: MakeOne, where: str) -> None:
    one = make_one(where)
    draw = random.Random(where)
    start(one, 1)
    logged(one, "daemon ready")
    for _ in range(6):
        one.drop(4)
        # Any moment of the work is the right one, and any length of a stop.
        time.sleep(draw.uniform(0, 0.6))
        one.daemon.send(signal.SIGSTOP)
        time.sleep(draw.uniform(0, 0.3))
        one.daemon.send(signal.SIGCONT)
        time.sleep(draw.uniform(0, 0.3))
        one.daemon.send(signal.SIGHUP)
    one.wait_sorted()

    check_books(one)
    logged(one, "daemon ready", 2)
    assert "refused" not in one.daemon.log
    assert one.daemon.stop(signal.SIGTERM, STOPS_WITHIN_S) == 0


def test_sigterm_in_the_middle_of_slow_copies_ends_it_in_time(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "target"):
        one = Inbox(tmp_path, SLOW_COPIES)
        one.drop(20)
        one.daemon.start()
        wait_until(lambda: any(one.target.rglob("*.png")), 60, "the first copy")

        assert one.daemon.stop(signal.SIGTERM, STOPS_WITHIN_S) == 0

        check_kept(one, most=1)
        assert len(list(one.inbox.rglob("*.png"))) > 20  # at half a second each, most are left
        one.daemon.program = QUICK
        one.daemon.start()
        one.wait_sorted()
        one.daemon.stop()
        check_books(one)


def test_ctrl_c_twice_ends_it_once(make_one: MakeOne) -> None:
    one = make_one("across")
    draw = random.Random(2)
    lives = 5
    for life in range(lives):
        one.drop(4)
        start(one, life + 1)
        # Any moment of the work is the right one; the second comes while it ends.
        time.sleep(draw.uniform(0, 0.8))

        one.daemon.send(signal.SIGINT)
        time.sleep(draw.uniform(0, 0.1))
        assert one.daemon.stop(signal.SIGINT, STOPS_WITHIN_S) == 0

        check_kept(one, most=1)
    start(one, lives + 1)
    one.wait_sorted()

    check_books(one)
    assert "Traceback" not in one.daemon.log
