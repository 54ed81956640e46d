"""The daemon as a process of its own: what arrives is sorted, whatever is done to it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warm
from imgsortd.reports.status import OpenMove
from imgsortd.store.database import open_for_reading
from inboxes import QUICK, Inbox, quick_cli, sums_of
from mounts import remount, tmpfs
from support import (
    BLUE,
    GREEN,
    RED,
    DaemonProcess,
    make_config,
    paint,
    paint_groups,
    run_cli,
    sums,
    wait_until,
)

# One life with real VGG16


@pytest.fixture(scope="module")
def one_that_died(tmp_path_factory: pytest.TempPathFactory, conv_weights: Path) -> Iterator[Inbox]:
    """Return an inbox whose daemon, with VGG16, died while it moved the second of 6 pictures."""
    folder = tmp_path_factory.mktemp("life")
    one = Inbox(folder, ("-m", "imgsortd"), model={"weights": str(conv_weights)})
    one.drop(2)
    one.daemon.start(IMGSORTD_FAULT_POINT="renamed:2")
    assert one.daemon.process is not None
    assert one.daemon.process.wait(120) == -9
    one.daemon.start()
    one.daemon.wait_ready(2)
    one.wait_sorted(120)  # each test may be the first of its process
    yield one
    if one.daemon.is_alive():
        one.daemon.stop(9)


@pytest.fixture
def life(one_that_died: Inbox) -> Inbox:
    """Return it in its second life, or in a later one where a test has ended that."""
    one = one_that_died
    if not one.daemon.is_alive():
        lives = one.daemon.log.count("daemon ready")
        one.daemon.start()
        one.daemon.wait_ready(lives + 1)
    return one


def test_pictures_that_were_there_before_the_start_are_sorted_once(life: Inbox) -> None:
    life.wait_sorted(120)

    life.check()
    assert "recovered moves=6 errors=0" in life.daemon.log
    folders = {path.name for path in life.target.iterdir()}
    assert {name for name in folders if name.startswith("cluster_")} == {
        "cluster_0",
        "cluster_1",
        "cluster_2",
    }


def test_a_burst_while_it_runs_is_sorted(life: Inbox) -> None:
    life.drop(2)
    life.drop(2, "sub/folder")

    life.wait_sorted(120)

    life.check()


def test_a_slow_writer_is_waited_for(life: Inbox, tmp_path: Path) -> None:
    data = paint(tmp_path / "slow.png", RED, 1, 8).read_bytes()

    with open(life.inbox / "slow.png", "wb", buffering=0) as file:
        for at in range(0, len(data), 2):
            file.write(data[at : at + 2])
            # Two bytes in 20 ms are the case itself, not a wait for something.
            time.sleep(0.02)
            assert (life.inbox / "slow.png").exists()
    (tmp_path / "whole.png").write_bytes(data)
    life.dropped |= sums_of(tmp_path / "whole.png")

    life.wait_sorted()
    life.check()


def test_a_file_written_beside_and_renamed_as_rsync_does_is_sorted_once(
    life: Inbox, tmp_path: Path
) -> None:
    picture = paint(tmp_path / "photo.png", GREEN, 2)
    life.dropped |= sums_of(picture)
    shutil.copy(picture, life.inbox / ".photo.png.Xy12Ab")

    (life.inbox / ".photo.png.Xy12Ab").rename(life.inbox / "photo.png")

    life.wait_sorted()
    life.check()


def test_a_tree_that_is_moved_in_is_sorted(life: Inbox, tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "tree" / f"{number}" / "deep" / "same-name.png", BLUE, 100 + number)

    life.bring(tmp_path / "tree", "tree")

    life.wait_sorted()
    life.check()


def test_a_batch_of_nothing_but_broken_files_does_not_stall(life: Inbox, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture %d" % number)
        life.bring(tmp_path / f"{number}.jpg", f"broken-{number}.jpg")
    life.drop()

    life.wait_sorted()

    life.check()
    assert len(list((life.target / "_set_aside").iterdir())) >= 3


def test_status_as_json_adds_up_while_it_runs(life: Inbox) -> None:
    done = run_cli("status", "-c", life.folder / "config.yaml", "--json")

    report = json.loads(done.stdout)
    counts = report["counts"]
    assert (done.returncode, report["daemon"]) == (0, "running")
    assert report["pid"] == life.daemon.process.pid if life.daemon.process else False
    assert counts["seen"] == sum(count for state, count in counts.items() if state != "seen")
    assert sum(cluster["files"] for cluster in report["clusters"]) == counts["sorted"]


def test_a_second_daemon_is_refused_with_the_first_ones_pid(life: Inbox) -> None:
    done = quick_cli("run", life)

    assert done.returncode == 1
    assert life.daemon.process is not None
    assert f"(pid {life.daemon.process.pid})" in " ".join(done.stderr.split())


def test_a_refit_is_made_by_the_daemon_that_runs(life: Inbox) -> None:
    before = life.status().last_fit

    done = quick_cli("refit", life, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trigger"] == "request"
    assert before is not None
    after = life.status().last_fit
    assert after is not None
    assert after.fit_id > before.fit_id


def test_sigterm_lets_it_finish_its_batch_and_say_that_it_stopped(life: Inbox) -> None:
    life.drop()
    wait_until(lambda: life.status().phase == "sorting", what="sorting")

    code = life.daemon.stop(signal.SIGTERM)

    assert code == 0
    report = json.loads(run_cli("status", "-c", life.folder / "config.yaml", "--json").stdout)
    assert (report["daemon"], report["phase"], report["pid"]) == ("not running", "stopped", None)
    store = open_for_reading(life.config.database)
    beat = store.control.last_beat()
    store.close()
    assert beat is not None
    assert beat.phase == "stopped"
    assert "daemon stopped signal=SIGTERM" in life.daemon.log


def test_with_no_daemon_the_command_makes_the_refit_itself(make: Callable[..., Inbox]) -> None:
    one = make()
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    one.daemon.stop()

    done = quick_cli("refit", one, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trigger"] == "request"


# Deaths


def check_deaths(one: Inbox, points: list[str]) -> None:
    """Die at each fault point with new pictures at hand, and lose nothing in the end."""
    one.drop(3)
    for point in points:
        one.daemon.start(IMGSORTD_FAULT_POINT=point)
        one.drop()
        assert one.daemon.process is not None
        assert one.daemon.process.wait(60) == -9, point
        found = sums(one.inbox, one.target)
        assert all(1 <= found.get(content, 0) <= 2 * n for content, n in one.dropped.items()), point
    one.daemon.start()
    one.wait_sorted()
    one.check()
    places = {os.fsdecode(dst) for _, dst in placed(one)}
    assert len(places) == sum(one.dropped.values())


def placed(one: Inbox) -> list[tuple[int, bytes]]:
    store = open_for_reading(one.config.database)
    try:
        return list(store.files.placed())
    finally:
        store.close()


def test_killed_at_a_chain_of_points_it_sorts_everything_once(make: Callable[..., Inbox]) -> None:
    check_deaths(make(), ["read", "fit_saved", "planned", "renamed:2", "moves_synced", "closed"])


def test_killed_at_a_chain_of_points_between_filesystems_it_sorts_everything_once(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "target"):
        one = make()
        check_deaths(one, ["claimed", "staged_synced:2", "published:3", "copied:2"])
        one.daemon.stop(9)


def test_killed_at_any_moment_it_sorts_everything_once(make: Callable[..., Inbox]) -> None:
    one = make()
    one.drop(3)
    draw = random.Random(1)
    for life in range(4):
        one.daemon.start()
        one.daemon.wait_ready(life + 1)
        one.drop(4)
        # Any moment of the work is the right one.
        time.sleep(draw.uniform(0, 0.6))
        one.daemon.stop(9)

    one.daemon.start()
    one.wait_sorted()

    one.check()


# Signals


def rewrite(one: Inbox, **changes: Any) -> None:
    make_config(one.folder, **{"settle_s": 0.1, **changes})


def logged(one: Inbox, text: str, times: int = 1) -> None:
    wait_until(lambda: one.daemon.log.count(text) >= times, 30, f"{text!r} in\n{one.daemon.log}")


def test_a_new_configuration_is_taken_on_sighup(make: Callable[..., Inbox], tmp_path: Path) -> None:
    one = make()
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    (tmp_path / "second inbox").mkdir()
    rewrite(one, inbox=str(tmp_path / "second inbox"))

    one.daemon.send(signal.SIGHUP)

    logged(one, "daemon ready", 2)
    one.inbox = tmp_path / "second inbox"
    one.drop()
    one.wait_sorted()
    one.check()
    assert "configuration reloaded" in one.daemon.log


@pytest.mark.parametrize("was", ["no YAML", "wrong", "other weights", "locked", "no inbox"])
def test_a_configuration_that_cannot_work_is_refused_and_the_old_one_stays(
    make: Callable[..., Inbox], was: str
) -> None:
    one = make("one")
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    says = {
        "no YAML": "is not valid YAML",
        "wrong": "batch.max_wait_s must be seconds above 0",
        "other weights": "the clusters were fitted on",
        "locked": "another imgsortd is at work there",
        "no inbox": "inbox must be an existing folder",
    }[was]
    if was == "no YAML":
        (one.folder / "config.yaml").write_text("inbox: [")
    elif was == "wrong":
        with open(one.folder / "config.yaml", "a") as file:
            file.write("batch: {max_wait_s: -5}\n")
    elif was == "other weights":
        rewrite(one, model={"weights": "imagenet1k_v1"})
    elif was == "no inbox":
        one.inbox.rename(one.folder / "away")
    else:
        other = make("other")
        other.daemon.start()
        other.daemon.wait_ready()
        rewrite(one, state_dir=str(other.config.state_dir))

    one.daemon.send(signal.SIGHUP)

    logged(one, "reload refused, the old configuration stays in force")
    assert says in one.daemon.log
    if was == "no inbox":
        (one.folder / "away").rename(one.inbox)
    one.drop()
    one.wait_sorted()
    one.check()
    assert one.daemon.log.count("daemon ready") == 1  # it was not even interrupted


def test_a_daemon_on_the_same_inbox_with_another_state_is_refused(
    make: Callable[..., Inbox],
) -> None:
    one, other = make("one"), make("other")
    one.daemon.start()
    one.daemon.wait_ready()
    rewrite(other, inbox=str(one.inbox))

    other.daemon.start()

    assert other.daemon.process is not None
    assert other.daemon.process.wait(30) == 1
    assert one.daemon.process is not None
    said = " ".join(other.daemon.log.split())
    assert f"another imgsortd is at work there (pid {one.daemon.process.pid})" in said


def test_a_bad_configuration_at_the_start_is_exit_code_78(make: Callable[..., Inbox]) -> None:
    one = make()
    (one.folder / "config.yaml").write_text("inbox: [")

    one.daemon.start()

    assert one.daemon.process is not None
    assert one.daemon.process.wait(30) == 78
    assert "is not valid YAML" in one.daemon.log


class Systemd:
    """Listens on a real notify socket."""

    def __init__(self) -> None:
        self.address = f"@imgsortd-test-{os.getpid()}-{time.monotonic_ns()}"
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address[1:])
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.said.append(message.decode())

    def waits_for(self, text: str, times: int = 1) -> None:
        wait_until(lambda: "\n".join(self.said).count(text) >= times, 30, f"{text} in {self.said}")


def test_systemd_is_told_of_every_change_and_pinged_between(make: Callable[..., Inbox]) -> None:
    one, systemd = make(), Systemd()

    one.daemon.start(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="2000000")

    systemd.waits_for("STATUS=loading VGG16")
    systemd.waits_for("READY=1\nSTATUS=watching the inbox")
    systemd.waits_for("STATUS=waiting")
    systemd.waits_for("WATCHDOG=1", times=3)
    one.daemon.send(signal.SIGHUP)
    systemd.waits_for("READY=1", times=2)
    (one.folder / "config.yaml").write_text("nonsense: true")
    one.daemon.send(signal.SIGHUP)
    systemd.waits_for("READY=1", times=3)
    systemd.waits_for("STATUS=reload refused: ")
    assert one.daemon.stop(timeout_s=10) == 0
    systemd.waits_for("STOPPING=1")
    reloading = [message for message in systemd.said if message.startswith("RELOADING=1")]
    assert len(reloading) == 2
    assert all("\nMONOTONIC_USEC=" in message for message in reloading)
    assert systemd.said.index("STATUS=loading VGG16") < systemd.said.index(
        "READY=1\nSTATUS=watching the inbox"
    )
    assert systemd.said[-1] == "STOPPING=1"


def test_systemd_is_not_pinged_while_the_model_hangs_and_status_says_so(
    make: Callable[..., Inbox],
) -> None:
    one, systemd = make(program=(warm.WRAPPED, "model-hangs")), Systemd()
    one.daemon.start(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="400000")
    systemd.waits_for("WATCHDOG=1", times=3)

    one.drop(1)
    systemd.waits_for("STATUS=sorting: the model has not answered for over 2 s")
    pings = systemd.said.count("WATCHDOG=1")
    wait_until(lambda: one.status().note.startswith("the model has not answered"), 30, "the note")
    first = _beat_at(one)
    wait_until(lambda: _beat_at(one) > first, 30, "the loop goes on")

    assert systemd.said.count("WATCHDOG=1") == pings
    assert [error.event for error in one.status().errors] == ["model stuck"]
    assert one.daemon.stop(timeout_s=10) == 0
    assert sums(one.inbox) == one.dropped


def _beat_at(one: Inbox) -> float:
    store = open_for_reading(one.config.database)
    beat = store.control.last_beat()
    store.close()
    return 0.0 if beat is None else beat.beat_at


def test_with_memory_for_two_pictures_a_batch_is_halved_and_all_are_sorted(
    make: Callable[..., Inbox],
) -> None:
    one = make(program=(warm.WRAPPED, "memory-for=2"))
    one.drop(8)

    one.daemon.start()
    one.wait_sorted()

    one.check()
    assert "model out of memory images=" in one.daemon.log
    assert one.status().counts["set_aside"] == 0


def test_without_memory_for_any_picture_it_pauses_and_says_what_to_do(
    make: Callable[..., Inbox],
) -> None:
    one = make(program=(warm.WRAPPED, "memory-for=0"))
    one.drop(2)

    one.daemon.start()
    wait_until(lambda: one.status().phase == "paused", 30, "paused")

    assert "runs out of memory on every single picture" in one.status().note
    assert sums(one.inbox) == one.dropped
    assert one.daemon.stop(timeout_s=10) == 0
    one.daemon.program = QUICK
    one.daemon.start()
    one.wait_sorted()
    one.check()


def test_an_error_of_the_system_that_nobody_foresaw_pauses_and_does_not_end_it(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    fails = tmp_path / "fails"
    one = make(program=(warm.WRAPPED, f"disk-fails={fails}"))
    one.drop(2)
    one.daemon.start()
    one.wait_sorted()
    fails.touch()
    wait_until(lambda: one.status().phase == "paused", 30, "paused")
    one.drop(2)

    assert one.status().note == "[Errno 5] Input/output error; sorting goes on when it can"
    assert [error.event for error in one.status().errors] == ["step failed"]
    assert one.daemon.log.count("step failed") == 1
    fails.unlink()
    one.wait_sorted()
    one.check()
    assert one.daemon.stop() == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("truncated", "got SafetensorError after reading 1000000 bytes"),
        ("of another network", "of shape (64, 3, 3, 3), got torch.float32 of shape (3, 3)"),
    ],
)
def test_with_weights_that_are_not_whole_it_does_not_start_and_names_the_file(
    tmp_path: Path, conv_weights: Path, daemon: DaemonProcess, damage: str, words: str
) -> None:
    from safetensors.numpy import save_file

    weights = tmp_path / "conv.safetensors"
    if damage == "truncated":
        weights.write_bytes(conv_weights.read_bytes()[:1_000_000])
    else:
        save_file({"features.0.weight": np.zeros((3, 3), dtype=np.float32)}, weights)
    config = make_config(tmp_path, model={"weights": str(weights)})
    paint_groups(config.inbox, 1)
    before = sums(config.inbox)

    daemon.start()

    assert daemon.process is not None
    assert daemon.process.wait(120) == 78
    said = " ".join(daemon.log.split())
    assert f"{weights}: expected " in said
    assert words in said
    assert sums(config.inbox) == before


# Trouble around it


def test_a_full_or_read_only_target_is_waited_for_and_said(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "target", "2m"):
        one = make()
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        filler = one.target / "filler"
        _fill(filler)
        one.drop()

        wait_until(lambda: one.status().phase == "paused", 30, "paused")
        assert "no space: cannot move" in one.status().note
        assert len(one.status().open_moves) == 3
        assert len(list(one.inbox.glob("*.png"))) == 3
        filler.unlink()
        one.wait_sorted()
        one.check()
        remount(one.target, "ro")
        one.drop()

        wait_until(lambda: one.status().phase == "paused", 30, "paused")
        assert one.status().note == (
            f"target {one.target} takes no files: Read-only file system; "
            f"sorting goes on when it can"
        )
        remount(one.target, "rw")
        one.wait_sorted()
        one.check()
        wait_until(lambda: one.status().phase == "idle", 30, "idle")
        assert one.status().note == ""
        assert one.daemon.stop() == 0


def _fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_state_disk_is_waited_for_and_nothing_is_sorted_twice(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "state", "2m"):
        one = make()
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        _fill(one.config.state_dir / "filler")
        one.drop(3)

        logged(one, "sorting paused reason=")
        assert "the disk of state_dir is full" in one.daemon.log
        assert one.daemon.is_alive()
        (one.config.state_dir / "filler").unlink()

        one.wait_sorted()
        one.check()
        _fill(one.config.state_dir / "filler")
        assert one.daemon.stop() == 0


def test_an_inbox_that_was_removed_is_found_again(make: Callable[..., Inbox]) -> None:
    one = make(rescan_s=1)
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    shutil.rmtree(one.inbox)

    wait_until(lambda: one.status().phase == "inbox_lost", 30, "inbox_lost")
    assert one.status().note.startswith(f"inbox {one.inbox}: cannot be listed")
    one.inbox.mkdir()
    logged(one, "inbox found")
    one.drop()
    one.wait_sorted()

    one.check()
    assert one.status().watching == "inotify"


def test_an_inbox_replaced_between_two_looks_is_watched_again(make: Callable[..., Inbox]) -> None:
    one = make(rescan_s=1)
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    one.inbox.rename(one.folder / "old inbox")
    one.inbox.mkdir()

    one.drop()

    one.wait_sorted()
    one.check()
    logged(one, "inbox replaced")
    assert one.status().watching == "inotify"


def test_one_file_that_cannot_be_moved_does_not_hold_up_the_others(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    one = make(clusters={"n_clusters": 1, "min_images": 1})
    one.target.mkdir(exist_ok=True)
    (one.target / "_set_aside").symlink_to(tmp_path / "outside")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    one.bring(tmp_path / "broken.jpg", "broken.jpg")
    one.daemon.start()
    wait_until(lambda: one.daemon.log.count("file not sorted"), 30, "the error")

    one.drop(2)

    wait_until(lambda: one.status().counts["sorted"] == 6, 30, "the others sorted")
    assert one.status().phase != "paused"
    assert one.status().open_moves == [
        OpenMove("broken.jpg", "Not a directory (_set_aside/broken.jpg)")
    ]
    assert not (tmp_path / "outside").exists()
    (one.target / "_set_aside").unlink()
    one.wait_sorted()
    one.check()


def test_claims_of_a_lost_database_are_sorted_at_the_next_start(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "target"):
        one = make()
        one.drop(3)
        one.daemon.start(IMGSORTD_FAULT_POINT="claim_synced:2")
        assert one.daemon.process is not None
        assert one.daemon.process.wait(30) == -9
        shutil.rmtree(one.config.state_dir)
        # What the first life has sorted stays where it is; the new books begin without it.
        for path in one.target.rglob("*.png"):
            one.dropped.pop(next(iter(sums_of(path))))
            path.unlink()

        one.daemon.start()
        one.wait_sorted()

        one.check()
        assert "claim without a journal row given back" in one.daemon.log
        assert one.daemon.stop() == 0


def slow_program(one: Inbox, what_is_slow: str) -> None:
    """Let the quick daemon wait ten minutes in one place."""
    slow = one.folder / "slow.py"
    slow.write_text(
        f"import sys, time\nsys.path.insert(0, {str(Path(QUICK[0]).parent)!r})\n"
        f"import quick_imgsortd\n{what_is_slow} = lambda *_: time.sleep(600)\n"
        "from imgsortd.cli.app import main\nmain()\n"
    )
    one.daemon.program = (str(slow),)


def test_ctrl_c_stops_it_while_the_model_is_still_loading(make: Callable[..., Inbox]) -> None:
    one = make()
    slow_program(one, "sys.modules['imgsortd.networks.building'].build_extractor")
    one.daemon.start()
    logged(one, "daemon starting")

    assert one.daemon.stop(signal.SIGINT, timeout_s=10) == 0


def test_a_fit_that_takes_long_does_not_hold_up_the_end(make: Callable[..., Inbox]) -> None:
    one = make()
    slow_program(one, "quick_imgsortd.KMeans.fit")
    one.drop(3)
    one.daemon.start()
    logged(one, "fit started")

    assert one.daemon.stop(timeout_s=10) == 0


def test_a_daemon_that_was_stopped_for_long_finds_what_came_meanwhile(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()

    one.daemon.send(signal.SIGSTOP)
    one.drop(20)
    one.daemon.send(signal.SIGCONT)

    one.wait_sorted()
    one.check()


def test_the_quick_stand_in_needs_no_torch() -> None:
    code = "import quick_imgsortd, imgsortd.daemon.process, sys; sys.exit('torch' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(QUICK[0]).parent, timeout=60, check=False
    )

    assert done.returncode == 0
