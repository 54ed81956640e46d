"""One process for a state folder and an inbox; a kill -9 releases both."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsortd.errors import LockedError, NoSpaceError, StoreError
from imgsortd.system.locks import Hold, Locks, lock_file, running_pid
from mounts import bind, remount, tmpfs

HOLDER = """
import sys, time
from pathlib import Path
from imgsortd.system.locks import Locks
with Locks(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "state", tmp_path / "inbox"


@pytest.fixture
def holder(folders: tuple[Path, Path]) -> Iterator[subprocess.Popen[bytes]]:
    """Return another process that holds both locks."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, folders)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_with_the_pid_of_the_first(
    folders: tuple[Path, Path], holder: subprocess.Popen[bytes]
) -> None:
    state, _ = folders

    with pytest.raises(LockedError) as caught, Locks(state):
        pass

    assert str(caught.value) == (
        f"state_dir {state}: another imgsortd is at work there (pid {holder.pid}); "
        f"stop it first, or ask it: imgsortd status"
    )
    assert caught.value.exit_code == 1
    assert running_pid(state) == holder.pid


@pytest.mark.usefixtures("holder")
def test_an_inbox_is_not_shared_by_two_state_folders(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other-state"

    with (
        pytest.raises(LockedError, match=r"inbox .*/inbox: another imgsortd is at work there"),
        Locks(other, folders[1]),
    ):
        pass

    assert running_pid(other) is None  # what was locked before the refusal is free again


@pytest.mark.parametrize("where", ["inside", "around"])
def test_no_inbox_stands_in_or_above_another(
    folders: tuple[Path, Path], holder: subprocess.Popen[bytes], tmp_path: Path, where: str
) -> None:
    inside = folders[1] / "a" / "b"
    inside.mkdir(parents=True)
    inbox = inside if where == "inside" else tmp_path

    with pytest.raises(LockedError) as caught, Locks(tmp_path.with_suffix(".state"), inbox):
        pass

    place = f"in {folders[1]} above it" if where == "inside" else "in a folder of it"
    assert str(caught.value) == (
        f"inbox {inbox}: another imgsortd is at work {place} (pid {holder.pid}); "
        f"stop it first, or take folders that do not contain one another"
    )


@pytest.mark.usefixtures("holder")
def test_an_inbox_beside_another_is_no_concern(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "inbox-2").mkdir()

    with Locks(tmp_path / "other", tmp_path / "inbox-2") as locks:
        assert ("inbox", *identity(tmp_path / "inbox-2")) in locks.held


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_dev, path.stat().st_ino


def test_one_process_may_go_over_to_an_inbox_inside_its_own(folders: tuple[Path, Path]) -> None:
    state, inbox = folders
    (inbox / "new").mkdir()

    with Locks(state, inbox) as locks:
        wanted = locks.also(state, inbox / "new")
        locks.only(wanted)

        assert ("inbox", *identity(inbox / "new")) in locks.held
        assert ("inbox", *identity(inbox)) not in locks.held


def test_who_only_reads_an_inbox_may_do_so_beside_others_but_not_beside_a_daemon(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _, inbox = folders
    (inbox / "sub").mkdir()

    with (
        Locks(tmp_path / "1", inbox, Hold.TO_READ),
        Locks(tmp_path / "2", inbox, Hold.TO_READ),
        pytest.raises(LockedError),
    ):
        Locks(tmp_path / "3", inbox).__enter__()
    with Locks(tmp_path / "3", inbox), pytest.raises(LockedError):
        Locks(tmp_path / "1", inbox, Hold.TO_READ).__enter__()
    with Locks(tmp_path / "3", inbox / "sub"), pytest.raises(LockedError, match="in a folder"):
        Locks(tmp_path / "1", inbox, Hold.TO_READ).__enter__()


def test_a_read_only_inbox_is_locked_all_the_same(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with bind(folders[1], tmp_path / "seen"):
        remount(tmp_path / "seen", "ro,bind")

        with Locks(folders[0], tmp_path / "seen"), pytest.raises(LockedError, match="inbox"):
            Locks(tmp_path / "other", folders[1]).__enter__()


def test_a_full_disk_at_the_first_start_is_told_with_what_to_do(tmp_path: Path) -> None:
    with (
        tmpfs(tmp_path / "disk", "1m,nr_inodes=1"),
        pytest.raises(NoSpaceError) as caught,
        Locks(tmp_path / "disk" / "state"),
    ):
        pass

    assert str(caught.value) == (
        f"state_dir {tmp_path}/disk/state: its disk is full (No space left on device); free some "
        f"space there, or choose a state_dir on another disk"
    )


def test_a_kill_9_releases_the_locks(
    folders: tuple[Path, Path], holder: subprocess.Popen[bytes]
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)

    assert running_pid(folders[0]) is None
    with Locks(*folders):
        assert running_pid(folders[0]) == os.getpid()


def test_the_end_of_the_block_releases_the_locks(folders: tuple[Path, Path]) -> None:
    with Locks(*folders):
        pass

    assert running_pid(folders[0]) is None


def test_nobody_runs_where_there_is_no_state_folder(tmp_path: Path) -> None:
    assert running_pid(tmp_path / "none") is None


def test_the_state_folder_and_the_lock_are_for_their_owner_alone(
    folders: tuple[Path, Path],
) -> None:
    state, _ = folders

    state.mkdir(mode=0o755, exist_ok=True)
    with Locks(state):
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (state, lock_file(state))]

    assert modes == [0o700, 0o600]


def test_a_state_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(StoreError, match=r"state_dir .*/file/state: cannot be written by uid \d+"),
        Locks(tmp_path / "file" / "state"),
    ):
        pass


def test_a_look_at_the_status_does_not_keep_a_daemon_from_starting(tmp_path: Path) -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            running_pid(tmp_path / "state")

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        taken = 0
        for _ in range(50):
            with Locks(tmp_path / "state"):
                taken += 1
    finally:
        stop.set()
        watcher.join()

    assert taken == 50


def test_a_target_has_one_owner_at_a_time_and_may_be_anothers_inbox(tmp_path: Path) -> None:
    target, state = tmp_path / "target", [tmp_path / f"state-{n}" for n in range(3)]
    inboxes = [tmp_path / f"inbox-{n}" for n in range(2)]
    for folder in (target, *inboxes):
        folder.mkdir()
    with Locks(state[0], inboxes[0], target=target):
        with pytest.raises(LockedError, match=rf"target .*: another imgsortd.*\(pid {os.getpid()}"):
            Locks(state[1], inboxes[1], target=target).__enter__()
        with Locks(state[2], target):
            pass

    with Locks(state[1], inboxes[1], target=target):
        pass


def test_a_target_that_is_not_there_is_held_when_it_is(tmp_path: Path) -> None:
    target, states = tmp_path / "target", [tmp_path / "state-1", tmp_path / "state-2"]
    with Locks(states[0], target=target) as locks:
        target.mkdir()
        locks.also(states[0], target=target)

        with pytest.raises(LockedError, match="target"):
            Locks(states[1], target=target).__enter__()
