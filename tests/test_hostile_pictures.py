"""One picture cannot take the daemon down: others are sorted, it is set aside with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hostile_worker import DEEDS
from inboxes import Inbox
from support import wait_until

HOSTILE = str(Path(__file__).with_name("hostile_worker.py"))
EATS, HANGS, CRASHES, KILLS = DEEDS


def drop_hostile(one: Inbox, data: bytes, name: str) -> None:
    (one.folder / "made.png").write_bytes(data)
    one.bring(one.folder / "made.png", name)


def reasons(one: Inbox) -> dict[str, str]:
    return {file.file: file.reason for file in one.status().set_aside}


def test_pictures_that_eat_hang_and_crash_are_set_aside_and_the_others_sorted(
    make: Callable[..., Inbox],
) -> None:
    one = make(pictures={"max_decode_s": 2, "max_decode_memory_mb": 512})
    for name, data in {"eats.png": EATS, "hangs.png": HANGS, "crashes.png": CRASHES}.items():
        drop_hostile(one, data, name)
    one.drop(3)

    one.daemon.start(IMGSORTD_TEST_DECODER=HOSTILE)

    one.wait_sorted()
    assert reasons(one) == {
        "eats.png": "needs over 512 MB to decode (pictures.max_decode_memory_mb)",
        "hangs.png": "takes over 2 s to decode (pictures.max_decode_s)",
        "crashes.png": "crashes the decoder (SIGSEGV)",
    }
    assert one.status().counts["sorted"] == 9
    one.check()


def test_a_picture_that_kills_the_whole_daemon_is_set_aside_at_its_fourth_start(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    one.drop(3)
    drop_hostile(one, KILLS, "a-kills.png")
    deaths = 0

    for _ in range(10):
        one.daemon.start(IMGSORTD_TEST_DECODER=HOSTILE)
        wait_until(lambda: not one.daemon.is_alive() or one.status().counts["set_aside"])
        if one.daemon.is_alive():
            break
        assert one.daemon.process is not None
        assert one.daemon.process.returncode == -9
        deaths += 1

    one.wait_sorted()
    assert deaths == 3
    assert reasons(one) == {"a-kills.png": "ended imgsortd 3 times while it was read"}
    assert one.status().counts["sorted"] == 9
    one.check()


def test_a_stop_does_not_wait_for_a_picture_that_hangs(make: Callable[..., Inbox]) -> None:
    one = make(pictures={"max_decode_s": 600})
    drop_hostile(one, HANGS, "hangs.png")
    one.daemon.start(IMGSORTD_TEST_DECODER=HOSTILE)
    wait_until(lambda: (one.folder / "state/reading.json").exists(), what="it is being read")
    assert one.daemon.process is not None
    children = psutil.Process(one.daemon.process.pid).children

    wait_until(children, what="a decoding process")
    workers = children()
    code = one.daemon.stop(timeout_s=10)

    assert code == 0
    assert not any(worker.is_running() for worker in workers)
    assert (one.inbox / "hangs.png").read_bytes() == HANGS


@pytest.mark.parametrize("data", [CRASHES, pytest.param(HANGS, marks=pytest.mark.faults)])
def test_a_hostile_picture_that_comes_again_is_again_only_set_aside(
    make: Callable[..., Inbox], data: bytes
) -> None:
    one = make(pictures={"max_decode_s": 1})
    one.daemon.start(IMGSORTD_TEST_DECODER=HOSTILE)

    for number in range(3):
        drop_hostile(one, data, f"{number}.png")
        one.wait_sorted()

    assert one.daemon.is_alive()
    one.check()
