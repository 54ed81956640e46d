"""An inbox unmounted, mounted late or mounted over: it waits, and no file counts as gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults.books import check_books, check_kept
from inboxes import Inbox, quick_cli
from mounts import bind, tmpfs
from support import sums, wait_until

MakeInbox = Callable[..., Inbox]


def found(one: Inbox, times: int) -> None:
    """Wait until the inbox was taken into use again, for the so many-th time."""
    wait_until(lambda: one.daemon.log.count("inbox found") >= times, 60, "found\n" + one.daemon.log)


def put_back(one: Inbox) -> None:
    """Sort nine pictures and put them back into the inbox, where they stay."""
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    done = quick_cli("undo", one)
    assert done.returncode == 0, done.stderr
    assert one.status().counts["undone"] == 9


def is_lost(one: Inbox) -> None:
    wait_until(lambda: one.status().phase == "inbox_lost", 30, "inbox_lost\n" + one.daemon.log)
    assert "another folder is there than before" in one.status().note


def test_files_that_an_undo_has_put_back_are_not_gone_while_their_disk_is_unmounted(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "disk"):
        with bind(tmp_path / "disk", tmp_path / "inbox"):
            one = make(rescan_s=1)
            put_back(one)
        is_lost(one)
        found(one, 1)  # the bare mount point is an inbox, too
        assert one.status().counts["undone"] == 9
        with bind(tmp_path / "disk", tmp_path / "inbox"):
            is_lost(one)
            found(one, 2)

            assert one.status().counts["undone"] == 9
            assert sums(one.inbox) == one.dropped
            assert sums(one.target) == {}
            assert one.status().watching == "inotify"
            one.daemon.stop(9)


def test_a_disk_mounted_over_the_inbox_is_sorted_and_the_files_under_it_wait(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = make(rescan_s=1)
    put_back(one)
    under = dict(one.dropped)
    with tmpfs(one.inbox):
        found(one, 1)
        one.dropped = {}
        one.drop(2)
        wait_until(lambda: sums(one.target) == one.dropped, 60, "sorted\n" + one.daemon.log)
    found(one, 2)

    assert one.status().counts["undone"] == 9
    assert sums(one.inbox) == under
    assert sums(one.target) == one.dropped


def test_a_start_before_its_disk_is_mounted_ends_no_move_and_finishes_it_later(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "disk"):
        with bind(tmp_path / "disk", tmp_path / "inbox"):
            one = make(rescan_s=1)
            one.drop(3)
            one.daemon.start(IMGSORTD_FAULT_POINT="claim_synced:2")
            assert one.daemon.process is not None
            assert one.daemon.process.wait(60) == -9
            assert len(list(one.inbox.rglob(".imgsortd-claim/*"))) == 1
        one.daemon.start()
        found(one, 1)
        open_moves = one.status().open_moves
        assert len(open_moves) >= 8  # one was copied already
        assert all("is another folder" in move.error for move in open_moves)
        with bind(tmp_path / "disk", tmp_path / "inbox"):
            check_kept(one)
            one.wait_sorted(90)

            check_books(one)
            one.daemon.stop(9)


def test_a_claim_that_no_move_knows_comes_back_with_the_disk_that_hides_it(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "disk"):
        one = make(rescan_s=1)
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        one.drop(1)
        one.wait_sorted()
        picture = next(one.target.rglob("*.png"))
        claims = tmp_path / "disk" / "sub" / ".imgsortd-claim"
        claims.mkdir(parents=True)
        picture.rename(tmp_path / "picture.png")
        (claims / "77-picture.png").write_bytes((tmp_path / "picture.png").read_bytes())

        with bind(tmp_path / "disk", one.inbox):
            wait_until(lambda: sums(one.target) == one.dropped, 60, "sorted\n" + one.daemon.log)

            wait_until(lambda: not claims.exists(), 30, "no claim left")
            assert "claim without a journal row given back" in one.daemon.log
            one.daemon.stop(9)


def test_an_inbox_mounted_late_is_locked_when_it_is_there(make: MakeInbox, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk"):
        one = make(rescan_s=1)
        one.daemon.start()
        one.daemon.wait_ready()
        with bind(tmp_path / "disk", one.inbox):
            found(one, 1)
            two = make("two", inbox=str(one.inbox))

            two.daemon.start()

            assert two.daemon.process is not None
            assert two.daemon.process.wait(30) == 1
            assert "another imgsortd is at work there" in " ".join(two.daemon.log.split())
            one.daemon.stop(9)


def test_moves_go_on_where_the_inbox_was_deleted_and_made_anew(make: MakeInbox) -> None:
    one = make(rescan_s=1)
    put_back(one)

    for path in one.inbox.iterdir():
        path.unlink()
    one.inbox.rmdir()
    one.inbox.mkdir()
    found(one, 1)

    wait_until(lambda: one.status().counts["undone"] == 0, 30, "gone with their folder")
    one.dropped = {}
    one.drop(2)
    wait_until(lambda: sums(one.target) == one.dropped, 60, "sorted\n" + one.daemon.log)
