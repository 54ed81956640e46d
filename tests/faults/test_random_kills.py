"""Killed at hundreds of random moments, also while it recovers: every file ends in one place."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import warm
from faults.books import check_books, check_kept
from faults.figures import Figure
from inboxes import Inbox
from mounts import tmpfs

SEED = int(os.environ.get("IMGSORTD_TEST_SEED", "4"))
LIFE_S = 0.8  # start 0.1, settling 0.1, a batch, a fit
RECOVERY_S = 0.1


def live(one: Inbox, draw: random.Random, life_s: float) -> None:
    """Let a daemon live for a random while, drop files meanwhile, and kill it."""
    one.daemon.start(**{warm.IN_PROCESS: "1"})
    parts = draw.randint(1, 3)
    for _ in range(parts):
        # Any moment is the right one: this is no wait for something.
        time.sleep(draw.uniform(0, life_s / parts))
        one.drop(1, draw.choice([".", "sub"]))
    assert one.daemon.stop(signal.SIGKILL) == -signal.SIGKILL, "it ended by itself"


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.faults)])
@pytest.mark.parametrize("where", ["same filesystem", "two filesystems"])
def test_killed_at_random_moments_every_file_ends_in_one_place(
    folder: Path, figure: Figure, where: str, kills: int
) -> None:
    draw = random.Random(f"{SEED} {where}")
    with ExitStack() as stack:
        if where == "two filesystems":
            stack.enter_context(tmpfs(folder / "target"))
        one = Inbox(folder, rescan_s=1)
        (one.target / "cluster_0").mkdir()
        again = 0
        for kill in range(kills):
            in_recovery = draw.random() < 0.25
            again += in_recovery
            live(one, draw, RECOVERY_S if in_recovery else LIFE_S)
            try:
                check_kept(one)
            except AssertionError as error:
                raise AssertionError(f"IMGSORTD_TEST_SEED={SEED}, kill {kill}") from error

        one.daemon.start()
        one.wait_sorted()

        check_books(one)
        assert one.daemon.stop(signal.SIGTERM) == 0
    figure("kills", kills)
    figure("of them soon after a start", again)
    figure("files", sum(one.dropped.values()))
