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

from imgsortd.adapters.locking import Locks, lock_file, running_pid
from imgsortd.errors import LockedError, StoreError

HOLDER = """
import sys, time
from pathlib import Path
from imgsortd.adapters.locking import Locks
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
