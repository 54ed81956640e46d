"""The delay between tries."""

from __future__ import annotations

from imgsortd.core.backoff import Backoff


def test_nothing_is_due_before_anything_failed() -> None:
    backoff = Backoff(2, 60)

    assert not backoff.is_waiting
    assert not backoff.take(1e9)


def test_a_try_is_due_after_the_delay_and_only_once() -> None:
    backoff = Backoff(2, 60)

    backoff.fail(100)

    assert not backoff.take(101.9)
    assert backoff.take(102)
    assert not backoff.take(200)


def test_the_delay_doubles_up_to_the_longest() -> None:
    backoff = Backoff(2, 60)
    delays = []

    for _ in range(7):
        backoff.fail(0)
        delays.append(next(s for s in range(100) if backoff.take(s)))

    assert delays == [2, 4, 8, 16, 32, 60, 60]


def test_failures_while_a_try_is_due_do_not_put_it_off() -> None:
    backoff = Backoff(2, 60)
    backoff.fail(0)

    for now_s in range(10):
        backoff.fail(now_s)

    assert backoff.take(2)


def test_after_a_success_the_delay_is_short_again() -> None:
    backoff = Backoff(2, 60)
    for _ in range(5):
        backoff.fail(0)
        backoff.take(1000)

    backoff.reset()
    backoff.fail(0)

    assert backoff.take(2)
