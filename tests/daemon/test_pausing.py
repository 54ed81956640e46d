"""The delay between tries."""

from __future__ import annotations

from imgsortd.daemon.pausing import Pause


def test_nothing_is_due_before_anything_failed() -> None:
    pause = Pause(2, 60)

    assert not pause.take(1e9)


def test_a_try_is_due_after_the_delay_and_only_once() -> None:
    pause = Pause(2, 60)

    pause.try_later(100)

    assert not pause.take(101.9)
    assert pause.take(102)
    assert not pause.take(200)


def test_the_delay_doubles_up_to_the_longest() -> None:
    pause = Pause(2, 60)
    delays = []

    for _ in range(7):
        pause.try_later(0)
        delays.append(next(s for s in range(100) if pause.take(s)))

    assert delays == [2, 4, 8, 16, 32, 60, 60]


def test_failures_while_a_try_is_due_do_not_put_it_off() -> None:
    pause = Pause(2, 60)
    pause.try_later(0)

    for now_s in range(10):
        pause.try_later(now_s)

    assert pause.take(2)


def test_after_a_success_the_delay_is_short_again() -> None:
    pause = Pause(2, 60)
    for _ in range(5):
        pause.try_later(0)
        pause.take(1000)

    pause.went_well()
    pause.try_later(0)

    assert pause.take(2)
