"""Disks that are full or read-only, all at once or one by one: it waits, says why, goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faults.books import check_books, check_kept
from inboxes import Inbox
from mounts import bind, remount, tmpfs
from support import wait_until

MakeInbox = Callable[..., Inbox]


def fill(folder: Path) -> Path:
    """Leave no byte free on a folder's disk."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return filler


def note_says(one: Inbox, text: str) -> None:
    wait_until(lambda: text in one.status().note, 30, f"{text!r} in the note\n{one.daemon.log}")


def test_with_target_and_state_both_full_it_goes_on_when_both_have_room(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "target", "2m"), tmpfs(tmp_path / "state", "2m"):
        one = make()
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        fillers = [fill(one.target), fill(one.config.state_dir)]
        one.drop(3)

        wait_until(lambda: "sorting paused reason=" in one.daemon.log, 30, "paused")
        note_says(one, f"the disk of state_dir {one.config.state_dir} is full; free some space")
        check_kept(one)
        fillers[1].unlink()
        note_says(one, "no space: cannot move")
        check_kept(one)
        fillers[0].unlink()

        one.wait_sorted()
        check_books(one)
        assert one.daemon.stop() == 0


def test_target_and_state_on_one_full_disk_it_goes_on_when_there_is_room(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "disk", "3m"):
        target, state = str(tmp_path / "disk" / "target"), str(tmp_path / "disk" / "state")
        one = make(target=target, state_dir=state)
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        filler = fill(tmp_path / "disk")
        one.drop(3)

        note_says(one, "is full; free some space")
        check_kept(one)
        filler.unlink()

        one.wait_sorted()
        check_books(one)
        assert one.daemon.stop() == 0


def test_a_read_only_inbox_is_waited_for_and_said(make: MakeInbox, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "inbox"):
        one = make()
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        one.drop(3)
        remount(one.inbox, "ro")

        note_says(one, f"inbox {one.inbox} takes no files: Read-only file system")
        check_kept(one)
        remount(one.inbox, "rw")

        one.wait_sorted()
        check_books(one)
        assert one.daemon.stop() == 0


def test_with_a_read_only_state_folder_it_does_not_start_and_touches_nothing(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "state"):
        one = make()
        one.drop(3)
        remount(one.config.state_dir, "ro")

        one.daemon.start()

        assert one.daemon.process is not None
        assert one.daemon.process.wait(30) == 1
        assert "cannot be written" in " ".join(one.daemon.log.split())
        check_kept(one, most=1)
        remount(one.config.state_dir, "rw")
        one.daemon.start()
        one.wait_sorted()
        check_books(one)
        assert one.daemon.stop() == 0


def test_a_full_state_disk_at_the_first_start_is_said_and_with_room_it_starts(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "state", "2m"):
        one = make()
        one.drop(3)
        filler = fill(one.config.state_dir)

        one.daemon.start()

        assert one.daemon.process is not None
        assert one.daemon.process.wait(60) == 1
        said = " ".join(one.daemon.log.split())
        assert "the disk of state_dir is full; free some space there" in said
        assert "Traceback" not in said
        check_kept(one, most=1)
        filler.unlink()
        one.daemon.start()
        one.wait_sorted()
        check_books(one)
        assert one.daemon.stop() == 0


def test_a_start_on_a_full_state_disk_pauses_and_goes_on_when_there_is_room(
    make: MakeInbox, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "state", "2m"):
        one = make()
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        one.daemon.stop()
        filler = fill(one.config.state_dir)
        one.drop(3)

        one.daemon.start()

        wait_until(lambda: "sorting paused reason=" in one.daemon.log, 60, "paused")
        check_kept(one)
        assert one.daemon.is_alive()
        filler.unlink()
        one.wait_sorted()
        check_books(one)
        assert one.daemon.stop() == 0


def test_two_mounts_of_one_filesystem_are_two_to_it_although_the_device_is_one(
    make: MakeInbox, tmp_path: Path
) -> None:
    with bind(tmp_path / "disk", tmp_path / "disk"), bind(tmp_path / "disk", tmp_path / "second"):
        one = make(inbox=str(tmp_path / "disk" / "in"), target=str(tmp_path / "second" / "out"))
        assert os.stat(one.inbox).st_dev == os.stat(one.target).st_dev
        one.drop(3)
        one.daemon.start(IMGSORTD_FAULT_POINT="published:2")
        assert one.daemon.process is not None
        assert one.daemon.process.wait(30) == -9
        check_kept(one)

        one.daemon.start()

        one.wait_sorted()
        check_books(one)
        assert one.daemon.stop() == 0
