"""Every file is found: in bursts, after lost events, without any watch, whatever its name."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from PIL import Image

import warm
from faults.figures import Figure
from inboxes import Inbox, sums_of
from mounts import tmpfs
from support import GREEN, RED, nest, paint, paint_groups, sums, wait_until


def tiny(folder: Path, number: int) -> Path:
    """Write a picture of some hundred bytes, no two alike."""
    path = folder / f"{number}.bmp"
    colour = (number % 251, number // 251 % 251, 100 + number // 63_001)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


@pytest.mark.parametrize("files", [1_000, pytest.param(10_000, marks=pytest.mark.faults)])
def test_thousands_of_files_at_once_are_sorted_in_bounded_memory(
    make: Callable[..., Inbox], record_property: Figure, files: int
) -> None:
    # The fit is of some of them only: what one of thousands takes is measured by itself.
    clusters = {"n_clusters": 3, "min_images": files // 10, "wait_most": "1s"}
    one = make(clusters=clusters, refit={"growth": "off"})
    made = one.folder / "made"
    made.mkdir()
    paths = [tiny(made, number) for number in range(files)]
    one.dropped = sums(made)
    one.daemon.start()
    one.daemon.wait_ready()
    assert one.daemon.process is not None
    process = psutil.Process(one.daemon.process.pid)
    before_mb, most_mb = process.memory_info().rss / 1e6, 0.0
    fds: list[int] = []

    for path in paths:
        path.rename(one.inbox / path.name)
    while one.status().counts["sorted"] < files:
        most_mb = max(most_mb, process.memory_info().rss / 1e6)
        # From here on the decoders are there, and all that opens once.
        if one.status().counts["sorted"] > files // 10:
            fds.append(process.num_fds())
        assert one.daemon.is_alive(), one.daemon.log[-2000:]
    one.wait_sorted()

    one.check()
    record_property("files", files)
    record_property("memory grew by MB", round(most_mb - before_mb))
    record_property("descriptors", f"{min(fds)} to {max(fds)}")
    assert most_mb - before_mb < 100
    half = len(fds) // 2
    assert max(fds[half:]) <= max(fds[:half]) + 4


def test_files_whose_events_the_kernel_dropped_are_found_at_once(
    make: Callable[..., Inbox],
) -> None:
    one = make(rescan_s=86_400)
    one.daemon.start()
    one.daemon.wait_ready()
    one.drop(2)
    one.wait_sorted()

    one.daemon.send(signal.SIGSTOP)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit + 100):  # alternating names: equal events in a row are merged
        path = one.inbox / f"noise-{number % 2}.png"
        path.write_bytes(b"")
    for number in range(2):
        (one.inbox / f"noise-{number}.png").unlink()
    one.drop(10)  # events without room
    one.daemon.send(signal.SIGCONT)

    one.wait_sorted()
    one.check()


def test_a_file_of_another_owner_is_taken_whole_though_its_writer_pauses(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "target"):  # where taking it early would cost what follows
        one = make(program=(warm.WRAPPED, "without-lease"), settle_s=0.4, rescan_s=1)
        one.drop(2)
        one.daemon.start()
        wait_until(lambda: "daemon ready" in one.daemon.log or not one.daemon.is_alive())
        if one.daemon.process is not None and one.daemon.process.poll() == 77:
            pytest.skip("it takes root to drop a capability")
        whole = paint(one.folder / "whole.bmp", RED, 5).read_bytes()
        picture, rest = whole, [b"and more"] * 3  # a bitmap ends where its header says

        with open(one.inbox / "slow.bmp", "wb", buffering=0) as writer:
            os.fchown(writer.fileno(), 65_533, 65_533)
            writer.write(picture)
            for part in rest:
                threading.Event().wait(0.7)  # settled by its quiet, yet not left alone
                writer.write(part)

        (one.folder / "whole.bmp").write_bytes(whole + b"".join(rest))
        one.dropped |= sums_of(one.folder / "whole.bmp")
        one.wait_sorted()
        one.check()
        one.daemon.stop()


def refused_here(one: Inbox) -> bool:
    """Wait for the wrapped daemon; tell whether this machine permits no user namespace."""
    wait_until(lambda: "daemon ready" in one.daemon.log or not one.daemon.is_alive())
    return one.daemon.process is not None and one.daemon.process.poll() == 77


def test_folders_without_a_watch_are_listed_and_the_number_to_set_is_said(
    make: Callable[..., Inbox],
) -> None:
    one = make(program=(warm.WRAPPED, "few-watches=5"), rescan_s=86_400)
    for number in range(20):
        (one.inbox / str(number)).mkdir(parents=True)
    one.drop(2)
    one.daemon.start()
    if refused_here(one):
        pytest.skip("user namespaces are not permitted here")
    wait_until(lambda: one.status().watching == "polling", 60, "polling\n" + one.daemon.log)

    for number in range(20):
        one.drop(1, str(number))
    one.wait_sorted()

    one.check()
    said = f"only 5 of 21 folders of {one.inbox} are watched: the inotify limit"
    assert said in one.daemon.log
    assert "raise fs.inotify.max_user_watches; listing it every 5 s instead" in one.daemon.log


@pytest.mark.parametrize(
    "thread",
    [
        "reader",
        *(pytest.param(name, marks=pytest.mark.faults) for name in ("emitter", "dispatcher")),
    ],
)
def test_a_watch_whose_thread_dies_is_made_anew_and_that_is_said(
    make: Callable[..., Inbox], thread: str
) -> None:
    one = make(program=(warm.WRAPPED, f"dying={thread}"), rescan_s=1)
    one.daemon.start()
    one.daemon.wait_ready()
    one.drop(2)  # the first event ends the thread
    one.wait_sorted()
    wait_until(lambda: "watch deaf" in one.daemon.log, 60, "deaf\n" + one.daemon.log)

    one.drop(2)
    one.wait_sorted()

    one.check()
    assert one.status().watching == "inotify"
    assert any("watching it anew" in error.detail for error in one.status().errors)


def test_without_a_single_watch_files_are_found_and_the_number_to_set_is_said(
    make: Callable[..., Inbox],
) -> None:
    one = make(program=(warm.WRAPPED, "few-watches=0"))
    one.drop(2)
    one.daemon.start()
    if refused_here(one):
        pytest.skip("user namespaces are not permitted here")

    one.drop(2)
    one.wait_sorted()

    one.check()
    assert "fs.inotify.max_user_watches" in one.daemon.log
    assert one.status().watching == "polling"


NAMES = [
    b"-rf.png",
    b"--help.png",
    b"new\nline.png",
    b"\xff\xfe invalid.png",
    "café ☕ 🖼.png".encode(),
    "cafe\u0301.png".encode(),
    b"CASE.png",
    b"case.PNG",
    b"\x1b[2J.png",
    b"<script>alert(1)<script>.png",
    b"a" * 251 + b".png",
    b"a" * 251 + b".pnG",
    b" .png ",
    b"'quoted' \"twice\" $HOME `id`.png",
    b"%s%n{0}.png",
    b"no-suffix",
]


def test_every_name_arrives_as_it_was(make: Callable[..., Inbox]) -> None:
    one = make()
    expected = {}
    for number, name in enumerate(NAMES):
        path = paint(one.folder / "made.png", RED, number)
        expected[name] = path.read_bytes()
        one.bring(path, os.fsdecode(name))
    one.drop(2)

    one.daemon.start()
    one.wait_sorted()

    one.check()
    arrived = {
        entry.name: Path(os.fsdecode(entry.path)).read_bytes()
        for folder in os.scandir(os.fsencode(one.target))
        if folder.is_dir()
        for entry in os.scandir(folder.path)
    }
    assert {name: arrived.get(name) for name in NAMES} == expected
    assert "\x1b[2J" not in one.daemon.log


def test_links_holes_and_what_is_no_file_at_all(make: Callable[..., Inbox]) -> None:
    one = make()
    one.drop(2)
    twice = paint(one.folder / "twice.png", GREEN, 1)
    os.link(twice, one.inbox / "hardlinked.png")
    one.dropped |= {next(iter(sums_of_one(twice))): 1}
    with open(one.folder / "holes.png", "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.seek(8 << 20)
        file.write(b"IEND")  # with zeros alone it would look like an unfinished download
    one.bring(one.folder / "holes.png", "holes.png")
    secret = one.folder / "secret.png"
    paint(secret, RED, 9)
    (one.inbox / "link.png").symlink_to(secret)
    (one.inbox / "folder-link").symlink_to(one.folder)
    os.mkfifo(one.inbox / "fifo.png")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(one.inbox / "socket.png"))
    before = secret.read_bytes(), twice.read_bytes()

    one.daemon.start()
    wait_until(lambda: one.status().counts["seen"] == sum(one.dropped.values()))
    wait_until(lambda: one.status().counts["pending"] == 0)
    one.daemon.send(signal.SIGHUP)  # looks at everything again
    wait_until(lambda: "configuration reloaded" in one.daemon.log)

    assert sums(one.target) == one.dropped
    assert (secret.read_bytes(), twice.read_bytes()) == before
    left = {path.name for path in one.inbox.iterdir() if not path.name.startswith(".imgsortd")}
    assert left == {"link.png", "folder-link", "fifo.png", "socket.png"}
    for kind in ("name='link.png'", "name='fifo.png'", "name='socket.png'"):
        assert 1 <= one.daemon.log.count(kind) <= 2  # once a life of the loop
    listener.close()


def test_a_device_is_left_alone_with_one_line(make: Callable[..., Inbox]) -> None:
    one = make()
    one.drop(2)
    try:
        os.mknod(one.inbox / "null.png", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(one.inbox / "loop.png", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    except PermissionError:
        pytest.skip("devices cannot be made here")

    one.daemon.start()
    wait_until(lambda: one.status().counts["sorted"] == sum(one.dropped.values()), 60, "sorted")
    one.daemon.stop()

    assert sums(one.target) == one.dropped
    assert (one.inbox / "null.png").is_char_device()
    assert (one.inbox / "loop.png").is_block_device()
    for name in ("null.png", "loop.png"):
        assert one.daemon.log.count(f"name={name!r}") == 1


def test_folders_nested_without_end_keep_no_daemon_from_starting(
    make: Callable[..., Inbox],
) -> None:
    one = make(rescan_s=1)
    one.drop(2)
    nest(one.inbox, 1500)

    one.daemon.start()

    wait_until(lambda: one.status().counts["sorted"] == 6, 60, "sorted\n" + one.daemon.log)
    one.drop(1)
    wait_until(lambda: one.status().counts["sorted"] == 9, 60, "sorted\n" + one.daemon.log)
    assert sums(one.target) == one.dropped
    one.daemon.stop()
    subprocess.run(["rm", "-rf", one.inbox], check=True)  # pytest's clean-up would recurse


@pytest.mark.faults
def test_trees_that_are_copied_in_side_by_side_are_sorted_whole(
    make: Callable[..., Inbox],
) -> None:
    one = make(clusters={"n_clusters": 3, "min_images": 200}, refit={"growth": "off"})
    made = one.folder / "made"
    for number in range(1280):
        folder = made / f"tree-{number % 8}" / str(number % 5) / str(number % 4)
        folder.mkdir(parents=True, exist_ok=True)
        tiny(folder, number)
    one.dropped = sums(made)
    one.daemon.start()
    one.daemon.wait_ready()

    copies = [subprocess.Popen(["cp", "-r", tree, one.inbox]) for tree in made.iterdir()]
    assert [copy.wait(120) for copy in copies] == [0] * 8
    one.wait_sorted(120)

    one.check()
    assert one.daemon.is_alive()


def test_a_file_that_is_touched_again_and_again_while_it_is_sorted_is_sorted_once(
    make: Callable[..., Inbox],
) -> None:
    one = make(settle_s=0.05, rescan_s=1, batch={"max_images": 4, "max_wait_s": 0.1})
    one.drop(4)
    one.daemon.start()
    one.wait_sorted()
    path = paint(one.folder / "made.png", GREEN, 99)
    one.bring(path, "touched.png")

    for _ in range(50):
        with suppress(FileNotFoundError):  # it has been sorted by now
            os.utime(one.inbox / "touched.png")
        threading.Event().wait(0.02)

    one.wait_sorted()
    one.check()
    assert one.status().counts["seen"] == 13


def sums_of_one(path: Path) -> dict[str, int]:
    folder = path.parent / "one-of"
    folder.mkdir()
    os.link(path, folder / path.name)
    found = sums(folder)
    (folder / path.name).unlink()
    folder.rmdir()
    return found


def test_every_way_of_writing_a_file_is_waited_for(make: Callable[..., Inbox]) -> None:
    one = make(settle_s=0.5)
    one.daemon.start()
    one.daemon.wait_ready()
    one.drop(2)
    made = one.folder / "made"
    made.mkdir(exist_ok=True)
    data = {
        name: paint(made / f"{name}.png", GREEN, number).read_bytes()
        for number, name in enumerate(("bytewise", "reopened", "old", "future", "tree"))
    }
    one.dropped |= sums(made)

    def bytewise() -> None:  # the last 30 bytes one by one
        with open(one.inbox / "bytewise.png", "wb", buffering=0) as file:
            file.write(data["bytewise"][:-30])
            for byte in data["bytewise"][-30:]:
                file.write(bytes([byte]))
                threading.Event().wait(0.1)

    def reopened() -> None:  # open, write, close, again and again
        for start in range(0, len(data["reopened"]), 1 + len(data["reopened"]) // 20):
            with open(one.inbox / "reopened.png", "ab") as file:
                file.write(data["reopened"][start : start + 1 + len(data["reopened"]) // 20])
            threading.Event().wait(0.15)

    writers = [threading.Thread(target=bytewise), threading.Thread(target=reopened)]
    for writer in writers:
        writer.start()
    for name, stamp in (("old", 0), ("future", 4_070_908_800)):  # as tar and bad clocks do
        (made / f"{name}.png").rename(one.inbox / f"{name}.png")
        os.utime(one.inbox / f"{name}.png", (stamp, stamp))
    (one.folder / "tree" / "a" / "b").mkdir(parents=True)
    (made / "tree.png").rename(one.folder / "tree" / "a" / "b" / "tree.png")
    (one.folder / "tree").rename(one.inbox / "tree")
    for writer in writers:
        writer.join()

    one.wait_sorted()
    one.check()


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4))
def test_sigterm_at_any_moment_ends_it_in_time_and_the_next_start_goes_on(
    make: Callable[..., Inbox], seed: int
) -> None:
    one, rng = make(batch={"max_images": 4, "max_wait_s": 0.1}), random.Random(seed)
    for life in range(1, 6):
        one.drop(6)
        one.daemon.start()
        # From here on it listens to signals; before, SIGTERM ends Python itself.
        wait_until(lambda life=life: one.daemon.log.count("daemon starting") >= life)
        # Any moment of the work is the right one.
        threading.Event().wait(rng.uniform(0.0, 2.0))

        assert one.daemon.stop(signal.SIGTERM, timeout_s=10) == 0

        assert set(sums(one.inbox, one.target)) == set(one.dropped)

    one.daemon.start()
    one.wait_sorted()
    one.check()


def test_a_wall_clock_that_jumps_changes_nothing(make: Callable[..., Inbox]) -> None:
    clock = "clock.txt"
    one = make(refit={"interval": "1h", "growth": "off"})
    file = one.folder / clock
    file.write_text("0")
    one.daemon.program = (warm.WRAPPED, f"clock={file}")
    one.daemon.start()
    one.drop(3)
    one.wait_sorted()

    for jump_s in (86_400, -86_400, -900_000_000, 2_000_000_000, 0):
        replacement = one.folder / "clock.new"
        replacement.write_text(str(jump_s))
        replacement.rename(file)
        one.drop(1)
        one.wait_sorted()
        one.check()

    status = one.status()
    assert one.daemon.is_alive()
    assert status.last_fit is not None
    assert status.last_fit.age_s >= 0
    assert one.daemon.stop(timeout_s=10) == 0
    one.daemon.start()
    paint_groups(one.folder / "more", 1, seed=77)
    one.drop(1)
    one.wait_sorted()
    one.check()
