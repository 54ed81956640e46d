"""Killed at every durable system call, and every such call failing: no byte is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults.figures import Figure
from faults.tracing import calls_of, inject, output
from killed_line import KillServer
from scene import Scene

TWO = ("red.png", "broken.jpg")
ONE = ("red.png",)  # copies of one batch are synced by threads, which have counts of their own


def check_kills(server: KillServer, scene: Scene, every: int = 1) -> int:
    """Die before every so many-th durable call, and recover; return the number of deaths.

    The first of each kind is always among them.
    """
    scene.reset()
    calls = calls_of(server, scene)
    scene.check_end()
    deaths = [(call, n) for call, count in calls.items() for n in range(1, count + 1, every)]
    for call, number in deaths:
        scene.reset()

        answer = inject(server, scene, f"{call}:signal=SIGKILL:when={number}")

        assert answer["killed"], (call, number, answer)
        scene.check_alive()
        scene.sort(server)
        scene.check_end()
    return len(deaths)


@pytest.mark.faults
def test_killed_at_every_call_of_a_first_start_each_file_ends_in_one_place(
    folder: Path, server: KillServer, figure: Figure
) -> None:
    scene = Scene(folder, "move", names=TWO)

    kills = check_kills(server, scene)

    figure("kills", kills)
    assert kills > 200


@pytest.mark.faults
@pytest.mark.parametrize(("op", "names"), [("move", TWO), ("copy", ONE)])
def test_killed_at_every_call_between_filesystems_each_file_ends_in_one_place(
    folder_across: Path, server: KillServer, figure: Figure, op: str, names: tuple[str, ...]
) -> None:
    scene = Scene(folder_across, op, names=names).with_clusters(server)

    kills = check_kills(server, scene)

    figure("kills", kills)
    assert kills > 20


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.faults)])
def test_killed_at_calls_of_a_copy_each_file_ends_in_one_place(
    folder: Path, server: KillServer, figure: Figure, every: int
) -> None:
    scene = Scene(folder, "copy", names=ONE).with_clusters(server)

    kills = check_kills(server, scene, every)

    figure("kills", kills)
    assert kills > 20 / every


# Which call fails how, on the way that makes it
FAULTS = {
    "move": ["renameat2:error=EINVAL", "renameat2:error=EROFS", "mkdirat:error=EACCES"],
    "across": [
        "renameat2:error=EIO",
        "fallocate:error=ENOSPC",
        "fallocate:error=EOPNOTSUPP",
        "write:error=ENOSPC",
        "linkat:error=EIO",
        "linkat:error=EPERM",
        "unlinkat:error=EACCES",
        "unlink:error=EACCES",
    ],
    "copy": ["fallocate:error=EDQUOT", "write:error=EIO", "linkat:error=EIO"],
}
LAB, MOVES = pytest.mark.faults, ("move", "across")
WAYS = {"move": ("move", TWO), "across": ("move", TWO), "copy": ("copy", ONE)}
EACH_FAULT = [
    # The first of each way is tried with every `make test`.
    pytest.param(way, fault, marks=[pytest.mark.faults] if number else [])
    for way, faults in FAULTS.items()
    for number, fault in enumerate(faults)
]


@pytest.mark.parametrize(("way", "fault"), EACH_FAULT)
def test_a_call_that_fails_always_costs_no_byte_and_all_is_sorted_when_it_works_again(
    request: pytest.FixtureRequest, server: KillServer, way: str, fault: str
) -> None:
    folder = request.getfixturevalue("folder_across" if way == "across" else "folder")
    op, names = WAYS[way]
    scene = Scene(folder, op, names=names).with_clusters(server)

    answer = inject(server, scene, f"{fault}:when=1+")

    assert not answer["killed"]
    assert "(INJECTED)" in output(scene)
    scene.check_alive()
    scene.sort(server)
    scene.check_end()


@pytest.mark.parametrize("way", ["copy", *(pytest.param(way, marks=LAB) for way in MOVES)])
@pytest.mark.parametrize(
    "fault",
    [
        "fsync:error=EIO",
        *(
            pytest.param(fault, marks=LAB)
            for fault in ("fdatasync:error=EIO", "ftruncate:error=EIO", "pwrite64:error=ENOSPC")
        ),
    ],
)
def test_a_sync_or_write_that_fails_once_costs_no_byte(
    request: pytest.FixtureRequest, server: KillServer, way: str, fault: str
) -> None:
    folder = request.getfixturevalue("folder_across" if way == "across" else "folder")
    op, names = WAYS[way]
    scene = Scene(folder, op, names=names).with_clusters(server)
    call, _, _ = fault.partition(":")
    count = calls_of(server, scene)[call]
    for number in range(1, min(count, 20) + 1):
        scene.reset()

        answer = inject(server, scene, f"{fault}:when={number}")

        assert not answer["killed"]
        if call == "fsync":
            assert synced_again(output(scene)) == []
        scene.check_alive()
        scene.sort(server)
        scene.check_end()
    assert count


def synced_again(trace: str) -> list[str]:
    """Return the copies synced again after a sync failed, before they were closed.

    Such a second fsync says that all is well, of bytes that are gone. A folder may be
    synced again, for the next move: the row of the one that failed stays open. A copy
    has no name before it is synced.
    """
    failed: set[str] = set()
    again = []
    for call, fd, is_copy, result in re.findall(
        r"^(fsync|close)\((\d+)<.*>(\(deleted\))?\) += (.*)$", trace, re.M
    ):
        if call == "fsync" and fd in failed:
            again.append(fd)
        failed.discard(fd)
        if call == "fsync" and is_copy and result.startswith("-1"):
            failed.add(fd)
    return again
