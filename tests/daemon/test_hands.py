"""A real daemon while a person works in its target, and the commands for what is meant by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsortd.store.database import open_for_writing
from inboxes import Inbox, quick_cli
from support import make_grown, sums, wait_until


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Inbox]]:
    """Return what makes a daemon that has sorted nine pictures of three colours."""
    made: list[Inbox] = []

    def make(**changes: Any) -> Inbox:
        one = Inbox(tmp_path, **changes)
        made.append(one)
        one.drop(3)
        one.daemon.start()
        one.wait_sorted()
        return one

    yield make
    for one in made:
        if one.daemon.is_alive():
            one.daemon.stop()


def folder(one: Inbox, colour: str) -> Path:
    """Return the folder that most of a colour stands in."""
    parents = [path.parent for path in one.target.rglob(f"*{colour}*")]
    return max(parents, key=parents.count)


def drag(one: Inbox, name: str, end: Path) -> None:
    """Move a picture by hand, as a file manager does."""
    (path,) = one.target.rglob(name)
    end.mkdir(exist_ok=True)
    path.rename(end / path.name)


def pins(one: Inbox) -> dict[str, int | None]:
    """Return the cluster of each pinned file, by the command."""
    done = quick_cli("pins", one, "--json")
    assert done.returncode == 0, done.stderr
    return {str(row["file"]): row["cluster"] for row in json.loads(done.stdout)}


def clusters(one: Inbox) -> dict[str, int]:
    return {cluster.folder: cluster.id for cluster in one.status().clusters}


def rename(one: Inbox, *arguments: str) -> subprocess.CompletedProcess[str]:
    return quick_cli("rename", one, *arguments)


@pytest.mark.parametrize("is_grown", [True, False])
def test_all_that_a_person_does_is_kept_through_kills_and_nothing_is_moved_back(
    make: Callable[..., Inbox], is_grown: bool
) -> None:
    one = make(refit={"growth": 0.2, "move_sorted": True}, clusters={"quiet_s": 1})
    before = sums(one.target)
    red, green, blue = (folder(one, name) for name in ("red", "green", "blue"))

    drag(one, "10000-red-0.png", green)
    drag(one, "10000-green-0.png", one.target / "_review")
    wait_until(lambda: len(pins(one)) == 2, what="both are pinned\n" + one.daemon.log)
    one.daemon.stop(signal.SIGKILL)
    for colour in ("red", "green", "blue"):
        drag(one, f"10000-{colour}-1.png", one.target / "Mine")
    blue.rename(one.target / "Sky")
    one.daemon.start()
    wait_until(lambda: {"Mine", "Sky"} <= clusters(one).keys(), what="both folders are clusters")
    placed = {str(path.relative_to(one.target)) for path in one.target.rglob("10000-*")}
    if is_grown:  # then the clusters stay, and with them also what nobody has had a hand in
        store = open_for_writing(one.config.database)
        make_grown(store)
        store.close()
    else:
        placed = {name for name in placed if name in pins(one) or name.startswith("Sky/")}
        assert len(placed) == 7
    # So many that the clusters are fitted anew; a grown library is not to double.
    one.drop(2 if is_grown else 6)
    one.wait_sorted()
    wait_until(lambda: one.daemon.log.count("fit adopted") >= 2, what="the refit")

    assert [name for name in sorted(placed) if not (one.target / name).exists()] == []
    assert before.items() <= sums(one.target).items()
    assert not blue.exists()
    assert (green / "10000-red-0.png").exists()
    assert pins(one)[f"{green.name}/10000-red-0.png"] == int(green.name.removeprefix("cluster_"))
    assert pins(one)["_review/10000-green-0.png"] is None
    assert len(pins(one)) == 5
    assert red.exists()
    one.check()


def test_a_deleted_copy_stays_deleted_through_a_kill_and_a_touch(tmp_path: Path) -> None:
    one = Inbox(tmp_path, op="copy")
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: one.status().counts["sorted"] == 9, what="all copied")
    (deleted,) = one.target.rglob("10000-red-0.png")

    deleted.unlink()
    wait_until(lambda: one.status().counts["seen"] == 8, what="the deletion is seen")
    one.daemon.stop(signal.SIGKILL)
    os.utime(one.inbox / deleted.name)
    one.daemon.start()
    one.drop(1)
    wait_until(lambda: one.status().counts["sorted"] == 11, what="the new ones")
    assert one.daemon.stop() == 0

    assert not deleted.exists()
    assert (one.inbox / deleted.name).exists()
    assert one.status().counts["pending"] == 0


def test_a_cluster_is_renamed_by_command_with_and_without_a_daemon(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    before, red = sums(one.target), folder(one, "red")
    number = red.name.removeprefix("cluster_")

    done = rename(one, number, "Receipts [2]")

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"cluster {number} stands in {one.target / 'Receipts [2]'} now\n"
    assert not red.exists()
    assert clusters(one)["Receipts [2]"] == int(number)
    one.drop(1)
    one.wait_sorted()
    assert (one.target / "Receipts [2]" / "20000-red-0.png").exists()
    assert one.daemon.stop() == 0
    (one.target / "Taken").mkdir()
    refused = rename(one, number, "Taken")
    assert (refused.returncode, "is there already" in refused.stderr) == (1, True)
    back = rename(one, number, "--reset")
    assert back.returncode == 0, back.stderr
    assert red.exists()
    assert before.items() <= sums(one.target).items()
    assert clusters(one)[red.name] == int(number)
    one.check()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("0", "a/b"), "without a slash"),
        (("0", "cluster_1"), "is the folder of cluster 1"),
        (("9", "Cats"), "there is no cluster 9"),
    ],
)
def test_a_name_that_cannot_be_changes_nothing(
    make: Callable[..., Inbox], arguments: tuple[str, str], text: str
) -> None:
    one = make()
    assert one.daemon.stop() == 0
    before = sorted(one.target.rglob("*"))

    done = rename(one, *arguments)

    assert (done.returncode, text in done.stderr) == (1, True), done.stderr
    assert sorted(one.target.rglob("*")) == before


def test_a_folder_that_is_a_symlink_is_not_renamed(make: Callable[..., Inbox]) -> None:
    one = make()
    assert one.daemon.stop() == 0
    red = folder(one, "red")
    red.rename(one.folder / "elsewhere")
    red.symlink_to(one.folder / "elsewhere")

    done = rename(one, red.name.removeprefix("cluster_"), "Cats")

    assert (done.returncode, "cannot be renamed" in done.stderr) == (1, True)
    assert red.is_symlink()


@pytest.mark.parametrize("fault", ["folder_renamed", "name_taken"])
def test_a_rename_cut_off_by_a_crash_is_whole_after_the_next_start(
    make: Callable[..., Inbox], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    one = make()
    red, before = folder(one, "red"), sums(one.target)
    number = red.name.removeprefix("cluster_")
    assert one.daemon.stop() == 0
    monkeypatch.setenv("IMGSORTD_FAULT_POINT", fault)
    assert rename(one, number, "Cats").returncode == -signal.SIGKILL
    monkeypatch.delenv("IMGSORTD_FAULT_POINT")

    one.drop(1)
    one.daemon.start()
    one.wait_sorted()

    assert clusters(one)["Cats"] == int(number)
    assert len(list((one.target / "Cats").iterdir())) == 4
    assert not red.exists()
    assert before.items() <= sums(one.target).items()


@pytest.mark.parametrize("fault", ["name_taken", "corrected", "folder_is_cluster"])
def test_a_daemon_that_dies_as_it_writes_down_what_it_saw_goes_on_there(
    make: Callable[..., Inbox], fault: str
) -> None:
    one = make()
    before, red = sums(one.target), folder(one, "red")
    assert one.daemon.stop() == 0
    one.daemon.start(IMGSORTD_FAULT_POINT=fault)
    one.daemon.wait_ready(2)
    for colour in ("green", "blue"):
        drag(one, f"10000-{colour}-1.png", one.target / "Mine")
    drag(one, "10000-green-2.png", one.target / "Mine")
    red.rename(one.target / "Tomatoes")
    wait_until(lambda: not one.daemon.is_alive(), what="the fault\n" + one.daemon.log)

    one.daemon.start()
    wait_until(lambda: {"Mine", "Tomatoes"} <= clusters(one).keys(), what=one.daemon.log)

    assert sums(one.target) == before
    assert not red.exists()
    assert pins(one) == {
        f"Mine/10000-{name}.png": clusters(one)["Mine"] for name in ("green-1", "green-2", "blue-1")
    }
    one.check()


def test_pins_are_listed_and_freed(make: Callable[..., Inbox]) -> None:
    one = make()
    green = folder(one, "green")
    number = green.name.removeprefix("cluster_")
    assert quick_cli("pins", one).stdout.startswith("nothing is pinned")
    for name in ("10000-red-0.png", "10000-red-1.png", "10000-blue-0.png"):
        drag(one, name, green)
    wait_until(lambda: len(pins(one)) == 3, what="all are pinned")

    by_path = quick_cli("unpin", one, str(green / "10000-red-0.png"))
    unknown = quick_cli("unpin", one, "no.png")
    assert one.daemon.stop() == 0
    table = quick_cli("pins", one, "list").stdout
    by_name = quick_cli("unpin", one, f"{green.name}/10000-red-1.png", "--json")
    by_cluster = quick_cli("unpin", one, "--cluster", number)

    assert by_path.stdout == "1 picture freed\n"
    assert (unknown.returncode, "is not pinned" in unknown.stderr) == (1, True)
    assert f"{green.name}/10000-blue-0.png" in table
    assert json.loads(by_name.stdout) == {"freed": 1}
    assert by_cluster.stdout == "1 picture freed\n"
    assert pins(one) == {}
    assert quick_cli("unpin", one, "--all").stdout == "0 pictures freed\n"
    assert quick_cli("unpin", one).returncode == 2


def test_names_outlive_the_database(make: Callable[..., Inbox]) -> None:
    one = make()
    red, before = folder(one, "red"), sums(one.target)
    number = int(red.name.removeprefix("cluster_"))
    red.rename(one.target / "Tomatoes")
    wait_until(lambda: clusters(one).get("Tomatoes") == number, what="the new name")
    assert one.daemon.stop() == 0
    for path in one.config.state_dir.glob("imgsortd.db*"):
        path.unlink()
    assert not one.config.database.exists()

    one.daemon.start()
    wait_until(lambda: clusters(one).get("Tomatoes") == number, what="the name again")

    one.drop(1)
    one.wait_sorted()
    assert len(list((one.target / "Tomatoes").iterdir())) == 4
    assert before.items() <= sums(one.target).items()
