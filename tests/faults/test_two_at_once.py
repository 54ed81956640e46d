"""Two of them on one inbox: the second is refused, whatever it would do with the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import warm
from faults.books import check_books
from inboxes import QUICK, Inbox

MakeInbox = Callable[..., Inbox]


def is_refused(two: Inbox, first: Inbox, text: str) -> None:
    """See that a second daemon ends by itself, and names the pid of the first."""
    two.daemon.start()
    assert two.daemon.process is not None
    assert two.daemon.process.wait(30) == 1
    assert first.daemon.process is not None
    said = " ".join(two.daemon.log.split())
    assert text in said
    assert f"(pid {first.daemon.process.pid})" in said


@pytest.mark.parametrize(
    "op",
    [
        "move",
        "copy",
        *(pytest.param(op, marks=pytest.mark.faults) for op in ("hardlink", "symlink")),
    ],
)
def test_a_second_daemon_on_the_inbox_is_refused_for_every_op(make: MakeInbox, op: str) -> None:
    one = make(op=op)
    one.drop(3)
    one.daemon.start()
    one.daemon.wait_ready()
    two = make("two", op=op, inbox=str(one.inbox))

    is_refused(two, one, f"inbox {one.inbox}: another imgsortd is at work there")

    assert list(two.target.iterdir()) == []
    assert one.daemon.stop() == 0


@pytest.mark.parametrize("op", ["move", "copy"])
def test_a_daemon_inside_or_around_the_inbox_of_another_is_refused(
    make: MakeInbox, tmp_path: Path, op: str
) -> None:
    one = make("one", op=op)
    one.daemon.start()
    one.daemon.wait_ready()
    inside = make("inside", op=op, inbox=str(one.inbox / "sub"))
    around = make("around", op=op, inbox=str(one.folder))

    is_refused(inside, one, f"another imgsortd is at work in {one.inbox} above it")
    is_refused(around, one, "another imgsortd is at work in a folder of it")

    assert one.daemon.stop() == 0


def test_sort_is_refused_on_the_inbox_of_a_daemon(make: MakeInbox, tmp_path: Path) -> None:
    one = make()
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    assert one.daemon.process is not None

    for folder in (one.inbox, one.folder / "inbox" / "."):
        done = warm.run([*QUICK, "sort", str(folder), str(tmp_path / "sorted"), "--op", "copy"])

        assert done.returncode == 1
        assert f"(pid {one.daemon.process.pid})" in " ".join(done.stderr.split())

    check_books(one)
