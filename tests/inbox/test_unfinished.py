"""A file that only looks unfinished is given time: its download may still be under way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import warm
from inboxes import Inbox, sums_of
from line import Line
from support import RED, paint, paint_groups, wait_until


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Return a line that waits ten minutes, with six pictures sorted."""
    line = Line(tmp_path)
    line.patience_s = 600.0
    paint_groups(line.config.inbox, 2)
    line.restart()
    line.run()
    line.now_s = 0.0
    return line


def whole_and_half(folder: Path) -> tuple[bytes, bytes]:
    """Return a JPEG, and the same with room laid out for its second half."""
    data = paint(folder / "made.jpg", RED, 7, 128).read_bytes()
    half = len(data) // 2
    return data, data[:half] + bytes(len(data) - half)


def look(line: Line, now_s: float) -> dict[str, int]:
    line.now_s = now_s
    line.process(line.read())
    return line.counts()


def test_a_download_with_room_laid_out_for_it_is_sorted_when_it_is_whole(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    whole, half = whole_and_half(one.folder)
    download = one.inbox / "download.jpg"

    download.write_bytes(half)
    wait_until(lambda: one.status().unread, 30, "an unfinished file in status")

    (waiting,) = one.status().unread
    assert waiting.file == "download.jpg"
    assert waiting.reason.startswith("unfinished, as it seems: incomplete: the JPEG has no end")
    assert one.status().counts["set_aside"] == 0
    with open(download, "r+b") as file:
        file.seek(len(whole) // 2)
        file.write(whole[len(whole) // 2 :])
    one.dropped |= sums_of(one.folder / "made.jpg")
    one.wait_sorted()
    one.check()
    assert one.status().counts["set_aside"] == 0
    assert one.status().unread == []


def test_what_stays_unfinished_for_ten_minutes_is_set_aside_and_not_before(line: Line) -> None:
    _, half = whole_and_half(line.config.inbox.parent)
    line.put("download.jpg", half)

    before = [look(line, now_s) for now_s in (10, 300, 609)]
    after = look(line, 611)

    assert [counts.get("pending") for counts in before] == [1, 1, 1]
    assert (after.get("set_aside"), after.get("pending")) == (1, None)


def test_each_change_gives_an_unfinished_file_its_time_again(line: Line) -> None:
    _, half = whole_and_half(line.config.inbox.parent)
    path = line.put("download.jpg", half)
    look(line, 10)

    with open(path, "r+b") as file:
        file.write(half[: len(half) // 2])
    look(line, 500)

    assert look(line, 700).get("pending") == 1
    assert look(line, 1200).get("set_aside") == 1


def test_an_event_without_a_change_does_not_end_the_wait_early(line: Line) -> None:
    _, half = whole_and_half(line.config.inbox.parent)
    line.put("download.jpg", half)
    look(line, 10)

    line.intake.hint([b"download.jpg"], 300.0)

    assert look(line, 301).get("pending") == 1
    assert look(line, 611).get("set_aside") == 1


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "tiff", "bmp", "empty", "zeros"])
def test_a_file_that_ends_too_early_or_has_not_begun_counts_as_unfinished(
    line: Line, kind: str
) -> None:
    made = line.config.inbox.parent / f"noise.{kind if len(kind) < 5 else 'png'}"
    Image.effect_noise((128, 128), 90).convert("RGB").save(made)
    contents = {"empty": b"", "zeros": bytes(4096)}
    line.put("download.jpg", contents.get(kind, cut(made.read_bytes())))

    counts = look(line, 10)

    assert counts.get("pending") == 1


def test_a_run_for_cron_leaves_what_has_just_changed_and_sets_aside_what_has_not(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    paint_groups(one.inbox, 2)
    _, half = whole_and_half(one.folder)
    (one.inbox / "download.jpg").write_bytes(half)
    clock = one.folder / "clock"
    clock.write_text("0")

    first = run_once(one, clock)
    clock.write_text("700")
    second = run_once(one, clock)

    assert first["pending"] == 1
    assert (second["pending"], second["set_aside"]) == (0, 1)


def run_once(one: Inbox, clock: Path) -> dict[str, int]:
    command = [*one.daemon.program, "run", "--once", "-c", str(one.folder / "config.yaml")]
    done = warm.run(command, {"IMGSORTD_TEST_CLOCK": str(clock)})
    assert done.returncode == 0, done.stderr
    return one.status().counts
