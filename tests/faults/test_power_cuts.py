"""Power cuts: what the disks hold at each step is copied, mounted and recovered.

A copy of a loop device's file, taken without a sync, is what ext4 had handed to the
disk at that instant. The kernel may have written back more, of one disk or of both: so
a second and a third copy are taken after some other program has synced a file of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from faults.figures import Figure
from faults.tracing import calls_of
from killed_line import KillServer
from mounts import loop_ext4, make_ext4
from scene import Scene, points
from support import sums, wait_until

NAMES = ("red.png", "sub/same.png", "broken.jpg")
STOPPABLE = ("renameat2", "linkat", "unlinkat", "mkdirat", "fsync", "fdatasync", "ftruncate")


class Disks:
    """One ext4 for all folders, or a second for the target; and a scene on them."""

    def __init__(self, folder: Path, count: int, server: KillServer, op: str) -> None:
        self._images = folder
        self._server = server
        self._mounts = [folder / "mount", folder / "mount" / "target"][:count]
        self._mounts[0].mkdir()
        with ExitStack() as stack:
            for number, mount in enumerate(self._mounts):
                make_ext4(self._image("new", number), 8)
                mount.mkdir(exist_ok=True)
                stack.enter_context(loop_ext4(self._image("new", number), mount))
            self.scene = Scene(self._mounts[0], op, names=NAMES).with_clusters(server)
            self.calls = calls_of(server, self.scene)
            self.scene.reset()
            self.points = points(self.scene.sort(server))
            self.scene.reset()

    def _image(self, kind: str, number: int) -> Path:
        return self._images / f"{kind}-{number}.img"

    def _copy(self, kind: str, to: str) -> None:
        for number in range(len(self._mounts)):
            # A new file: a container begun meanwhile may still hold the former one mounted.
            self._image(to, number).unlink(missing_ok=True)
            shutil.copyfile(self._image(kind, number), self._image(to, number))

    @contextmanager
    def mounted(self, kind: str) -> Iterator[None]:
        with ExitStack() as stack:
            for number, mount in enumerate(self._mounts):
                stack.enter_context(loop_ext4(self._image(kind, number), mount))
            yield

    def cut(self, point: str, without: tuple[str, ...] = ()) -> Iterator[str]:
        """Stop a life at a step, and mount what the disks hold then; a life, several cuts.

        ``point`` is a fault point, or ``call/number`` of a system call.
        """
        self._copy("new", "live")
        call, _, number = point.partition("/")
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGSTOP:when={number}")
        how = {"strace": inject} if number else {"fault": point}
        kinds = ["cut"]
        with (
            self.mounted("live"),
            self._server.stopped(self.scene.folder, without=without, **how),
        ):
            self._copy("live", "cut")
            for number, mount in enumerate(self._mounts):
                sync_something_else(mount)
                kinds.append(f"cut, disks written back: {number + 1}")
                self._copy("live", kinds[-1])
        for kind in kinds:
            with self.mounted(kind):
                yield f"{point}, {kind}"


def sync_something_else(mount: Path) -> None:
    """Do what any other program may do at any time: it commits the filesystem's journal."""
    os.utime(mount)
    fd = os.open(mount, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


MakeDisks = Callable[[int, str], Disks]


@pytest.fixture
def make_disks(server: KillServer, folder: Path) -> MakeDisks:
    return lambda count, op: Disks(folder, count, server, op)


# Disks, op, and how many of the steps: every so many-th
WAYS = [
    (2, "move", 5),
    *(
        pytest.param(count, op, 1, marks=pytest.mark.faults)
        for count, op in ((1, "move"), (2, "move"), (1, "copy"), (2, "copy"))
    ),
]


def check_cuts(disks: Disks, server: KillServer, steps: list[str]) -> int:
    """Cut the power at each step; return how often."""
    cuts = 0
    for step in steps:
        for cut in disks.cut(step):
            cuts += 1
            try:
                disks.scene.check_alive()
                disks.scene.sort(server)
                disks.scene.check_end()
            except AssertionError as error:
                raise AssertionError(f"power cut at {cut}") from error
    return cuts


@pytest.mark.parametrize(("count", "op", "every"), WAYS)
def test_power_cut_at_any_fault_point_each_file_ends_in_one_place(
    make_disks: MakeDisks, server: KillServer, figure: Figure, count: int, op: str, every: int
) -> None:
    disks = make_disks(count, op)

    cuts = check_cuts(disks, server, disks.points[::every])

    figure("power cuts", cuts)
    assert cuts > 15 / every


@pytest.mark.faults
@pytest.mark.parametrize("count", [1, 2])
def test_power_cut_after_any_durable_call_each_file_ends_in_one_place(
    make_disks: MakeDisks, server: KillServer, figure: Figure, count: int
) -> None:
    disks = make_disks(count, "move")
    steps = [f"{call}/{n + 1}" for call in STOPPABLE for n in range(disks.calls[call])]

    cuts = check_cuts(disks, server, steps)

    figure("power cuts", cuts)
    assert cuts > 30


@pytest.mark.faults
def test_without_fsync_the_same_cuts_lose_files(
    make_disks: MakeDisks, server: KillServer, figure: Figure
) -> None:
    disks = make_disks(2, "move")
    lost = bad_recoveries = 0
    for point in disks.points:
        for _ in disks.cut(point, without=("fsync",)):
            found = sums(disks.scene.inbox, disks.scene.target)
            lost += sum(content not in found for content in disks.scene.files)
            bad_recoveries += not recovers(disks.scene, server)

    figure("files lost", lost)
    figure("bad recoveries", bad_recoveries)
    assert lost
    assert bad_recoveries


def recovers(scene: Scene, server: KillServer) -> bool:
    try:
        scene.sort(server)
        scene.check_end()
    except AssertionError:
        return False
    return True


def test_an_unmounted_disk_is_whole_in_its_image_though_another_namespace_still_holds_it(
    tmp_path: Path,
) -> None:
    image, mount = tmp_path / "disk.img", tmp_path / "mount"
    mount.mkdir()
    make_ext4(image, 8)
    with ExitStack() as stack:
        with loop_ext4(image, mount):
            # As every container begun meanwhile does, it keeps a copy of each mount.
            holder = stack.enter_context(
                subprocess.Popen(["unshare", "--mount", "sleep", "60"], stdout=subprocess.PIPE)
            )
            stack.callback(holder.kill)
            ours = os.readlink("/proc/self/ns/mnt")
            wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt") != ours, what="held")
            (mount / "written.txt").write_text("not synced by anybody")

        shutil.copyfile(image, tmp_path / "copy.img")

        with loop_ext4(tmp_path / "copy.img", mount):
            assert (mount / "written.txt").read_text() == "not synced by anybody"
