"""Every file is found: in bursts, after lost events, without any watch, whatever its name."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from faults.figures import Figure
from inboxes import Inbox
from support import GREEN, RED, paint, paint_groups, sums, wait_until

WRAPPED = str(Path(__file__).parents[1] / "wrapped_imgsortd.py")


def tiny(folder: Path, number: int) -> Path:
    """Write a picture of some hundred bytes, no two alike."""
    path = folder / f"{number}.bmp"
    colour = (number % 251, number // 251 % 251, 100 + number // 63_001)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def test_ten_thousand_files_at_once_are_sorted_in_bounded_memory(
    make: Callable[..., Inbox], record_property: Figure
) -> None:
    one = make(clusters={"n_clusters": 3, "min_images": 1000}, refit={"growth": "off"})
    made = one.folder / "made"
    made.mkdir()
    paths = [tiny(made, number) for number in range(10_000)]
    one.dropped = sums(made)
    one.daemon.start()
    one.daemon.wait_ready()
    assert one.daemon.process is not None
    process = psutil.Process(one.daemon.process.pid)
    before_mb, most_mb = process.memory_info().rss / 1e6, 0.0
    fds: list[int] = []

    for path in paths:
        path.rename(one.inbox / path.name)
    while one.status().counts["sorted"] < 10_000:
        most_mb = max(most_mb, process.memory_info().rss / 1e6)
        if one.status().counts["sorted"] > 1000:  # the decoders are there, and all that opens once
            fds.append(process.num_fds())
        assert one.daemon.is_alive(), one.daemon.log[-2000:]
    one.wait_sorted()

    one.check()
    record_property("files", 10_000)
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


def test_without_a_single_watch_files_are_found_and_the_number_to_set_is_said(
    make: Callable[..., Inbox],
) -> None:
    one = make(program=(WRAPPED, "few-watches"))
    one.drop(2)
    one.daemon.start()
    wait_until(lambda: "daemon ready" in one.daemon.log or not one.daemon.is_alive())
    if one.daemon.process is not None and one.daemon.process.poll() == 77:
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
    one.daemon.program = (WRAPPED, f"clock={file}")
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
    assert status.last_fit["age_s"] >= 0
    assert one.daemon.stop(timeout_s=10) == 0
    one.daemon.start()
    paint_groups(one.folder / "more", 1, seed=77)
    one.drop(1)
    one.wait_sorted()
    one.check()
