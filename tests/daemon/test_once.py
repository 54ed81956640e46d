"""``run --once``: what is there is sorted, what is still being written is left."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

import warm
from support import DaemonProcess, make_config, paint_groups, tree


def run_once(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the program once on ``folder``'s configuration, with quick stand-ins for the model."""
    return warm.run([warm.QUICK, "run", "--once", "-c", str(folder / "config.yaml")])


def test_what_is_there_is_fitted_sorted_and_the_program_ends(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    paint_groups(config.inbox, each=4)

    done = run_once(tmp_path)

    assert done.returncode == 0, done.stderr
    assert sum(len(files) for files in tree(config.target).values()) == 12
    assert "daemon stopped signal=none, all is done" in done.stderr


def test_too_few_for_a_first_fit_wait_in_the_inbox_for_the_next_run(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    paint_groups(config.inbox, each=1)

    first = run_once(tmp_path)
    waiting = sorted(os.listdir(config.inbox))
    paint_groups(config.inbox, each=4, seed=50)
    second = run_once(tmp_path)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert waiting == ["blue-0.png", "green-0.png", "red-0.png"]
    assert os.listdir(config.inbox) == []


def test_an_empty_inbox_is_no_error(tmp_path: Path) -> None:
    make_config(tmp_path)

    assert run_once(tmp_path).returncode == 0


def test_a_file_that_is_still_written_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    config = make_config(tmp_path, settle_s=1)
    paint_groups(config.inbox, each=4)
    done = threading.Event()

    def write() -> None:
        with open(config.inbox / "growing.png", "wb", buffering=0) as file:
            while not done.wait(0.1):
                file.write(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        result = run_once(tmp_path)
    finally:
        done.set()
        writer.join()

    assert result.returncode == 0, result.stderr
    assert os.listdir(config.inbox) == ["growing.png"]


def test_a_target_that_takes_no_file_is_exit_code_1_with_the_reason(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    paint_groups(config.inbox, each=4)
    config.target.rmdir()
    config.target.symlink_to("/proc/self")  # a folder in which nobody can make one

    done = run_once(tmp_path)

    assert done.returncode == 1
    assert "not all was sorted" in done.stderr
    assert len(os.listdir(config.inbox)) == 12


def test_a_second_one_is_refused_while_a_daemon_runs(daemon: DaemonProcess, tmp_path: Path) -> None:
    make_config(tmp_path)
    daemon.program = (warm.QUICK,)
    daemon.start()
    daemon.wait_ready()

    refused = run_once(tmp_path)

    assert daemon.process is not None
    assert refused.returncode == 1
    assert str(daemon.process.pid) in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_early(
    daemon: DaemonProcess, tmp_path: Path, number: signal.Signals
) -> None:
    make_config(tmp_path, settle_s=600)
    daemon.program = (warm.QUICK,)
    daemon.start("--once")
    daemon.wait_ready()

    assert daemon.stop(number) == 0

    assert f"daemon stopped signal={number.name}" in daemon.log
