"""Names that a camera uses again after months, and files that no listing shows for a while."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import warm
from inboxes import Inbox, quick_cli
from support import GREEN, RED, make_config, paint, sums, wait_until

HOUR_S, MONTHS_S = 3600, 60 * 86_400
MOV, RAW = b"the film of a live photo", b"a raw file that no decoder reads"


# --- a name that comes again ---------------------------------------------------------------


def bring(one: Inbox, name: str, data: bytes) -> None:
    made = one.folder / name
    made.write_bytes(data)
    one.bring(made, name)


def bring_picture(one: Inbox, name: str, colour: tuple[int, int, int], seed: int) -> None:
    one.bring(paint(one.folder / name, colour, seed), name)


def folder_of(one: Inbox, name: str) -> str:
    """Return the folder of target that a file stands in; there is one."""
    (path,) = one.target.rglob(name)
    return path.parent.name


def batch_of(one: Inbox, name: str) -> int:
    """Return the batch that has sorted a file of the inbox."""
    with closing(sqlite3.connect(one.config.database)) as database:
        (batch,) = database.execute(
            "SELECT moves.batch FROM moves JOIN files ON files.id = file_id "
            "WHERE files.src = ? AND phase = 'done'",
            (os.fsencode(name),),
        ).fetchone()
    return int(batch)


def set_back(one: Inbox, seconds: int) -> None:
    """Let what is sorted have been sorted earlier; no daemon runs."""
    with closing(sqlite3.connect(one.config.database)) as database, database:
        database.execute(
            "UPDATE files SET seen_at = seen_at - ?1, done_at = done_at - ?1", (seconds,)
        )
        database.execute(
            "UPDATE moves SET planned_at = planned_at - ?1, done_at = done_at - ?1", (seconds,)
        )


def with_an_old_picture(one: Inbox, seconds: int) -> None:
    """Let IMG_0001.JPG be sorted, in a batch of its own, so long ago; a daemon runs."""
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    bring_picture(one, "IMG_0001.JPG", RED, 1)
    one.wait_sorted()
    assert one.daemon.stop() == 0
    set_back(one, seconds)
    one.daemon.start()
    one.daemon.wait_ready(2)


@pytest.mark.parametrize("comes_first", ["IMG_0001.PNG", "IMG_0001.MOV"])
def test_films_and_raw_files_go_with_the_new_picture_of_a_name_that_was_used_months_ago(
    make: Callable[..., Inbox], comes_first: str
) -> None:
    one = make()
    with_an_old_picture(one, MONTHS_S)
    old = batch_of(one, "IMG_0001.JPG")

    if comes_first == "IMG_0001.PNG":
        bring_picture(one, "IMG_0001.PNG", GREEN, 2)
    bring(one, "IMG_0001.MOV", MOV)
    bring(one, "IMG_0001.DNG", RAW)
    if comes_first == "IMG_0001.MOV":
        bring_picture(one, "IMG_0001.PNG", GREEN, 2)
    one.wait_sorted()
    names = ("IMG_0001.PNG", "IMG_0001.MOV", "IMG_0001.DNG")
    places = {name: folder_of(one, name) for name in names}
    done = quick_cli("undo", one, "--batch", str(old), "--json")

    assert folder_of(one, "10000-green-0.png") != folder_of(one, "10000-red-0.png")
    assert places == dict.fromkeys(names, folder_of(one, "10000-green-0.png"))
    assert json.loads(done.stdout)["left"] == []
    assert [path.name for path in one.inbox.glob("IMG_*")] == ["IMG_0001.JPG"]
    assert {name: folder_of(one, name) for name in names} == places
    assert sums(one.inbox, one.target) == one.dropped


def test_a_film_that_comes_alone_months_after_a_picture_of_its_name_stays_and_is_named(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    with_an_old_picture(one, MONTHS_S)

    bring(one, "IMG_0001.MOV", MOV)
    wait_until(
        lambda: one.status().left_alone or not (one.inbox / "IMG_0001.MOV").exists(),
        what="the film is left alone, or gone\n" + one.daemon.log,
    )

    assert [path.name for path in one.inbox.glob("IMG_*")] == ["IMG_0001.MOV"]
    assert [left.files for left in one.status().left_alone] == [["IMG_0001.MOV"]]
    assert sums(one.inbox, one.target) == one.dropped


def test_a_film_that_comes_an_hour_after_its_picture_follows_it(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    with_an_old_picture(one, HOUR_S)

    bring(one, "IMG_0001.MOV", MOV)
    one.wait_sorted()

    assert folder_of(one, "IMG_0001.MOV") == folder_of(one, "IMG_0001.JPG")
    one.check()


# --- not listed for a while ----------------------------------------------------------------

HIDDEN = [
    pytest.param({"recursive": False}, id="recursive"),
    pytest.param({"ignore": [".*", "20000-*"]}, id="ignore"),
]


def settings(one: Inbox, **changes: Any) -> None:
    """Let the daemon read another configuration, and wait until it works with it."""
    times = one.daemon.log.count("daemon ready")
    make_config(one.folder, settle_s=0.1, polling="on", **changes)
    one.daemon.send(signal.SIGHUP)
    one.daemon.wait_ready(times + 1)


def let_it_list(one: Inbox) -> None:
    """Wait for two listings: each finds new pictures, and has them sorted."""
    for _ in range(2):
        before = one.status().counts["sorted"]
        one.drop(1)
        wait_until(
            lambda wanted=before + 3: one.status().counts["sorted"] == wanted,
            what="the new ones are sorted\n" + one.daemon.log,
        )
    wait_until(lambda: one.status().counts["pending"] == 0, what="the books are closed")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.png"))


def undone(make: Callable[..., Inbox], **changes: Any) -> Inbox:
    """Return an inbox whose pictures were sorted and undone, three of them in a subfolder."""
    one = make(polling="on", **changes)
    one.drop(2)
    one.drop(1, to="sub")
    one.daemon.start()
    one.wait_sorted()
    assert quick_cli("undo", one, "--since", "1h").returncode == 0
    assert one.status().counts["undone"] == 9
    return one


@pytest.mark.parametrize("hidden", HIDDEN)
def test_undone_pictures_that_a_setting_hides_for_a_while_stay_where_they_are(
    make: Callable[..., Inbox], hidden: dict[str, Any]
) -> None:
    one = undone(make)
    before = names_in(one.inbox)

    settings(one, **hidden)
    let_it_list(one)
    settings(one)
    let_it_list(one)

    assert names_in(one.inbox) == before
    assert one.status().counts["undone"] == 9
    assert one.status().counts["pending"] == 0
    assert sums(one.inbox, one.target) == one.dropped


def test_undone_pictures_in_a_folder_that_cannot_be_listed_for_a_while_stay_where_they_are(
    make: Callable[..., Inbox],
) -> None:
    one = make(program=(warm.WRAPPED, "ordinary"), polling="on")
    one.drop(2)
    one.drop(1, to="sub")
    one.daemon.start()
    wait_until(lambda: "daemon ready" in one.daemon.log or not one.daemon.is_alive())
    if one.daemon.process is not None and one.daemon.process.poll() == 77:
        pytest.skip("it takes root to drop a capability")
    one.wait_sorted()
    assert quick_cli("undo", one, "--since", "1h").returncode == 0
    before = names_in(one.inbox)

    (one.inbox / "sub").chmod(0)
    try:
        let_it_list(one)
    finally:
        (one.inbox / "sub").chmod(0o755)
    let_it_list(one)

    assert names_in(one.inbox) == before
    assert one.status().counts["undone"] == 9
    assert sums(one.inbox, one.target) == one.dropped


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_deleted_copy_whose_source_a_setting_hides_for_a_while_is_not_made_again(
    make: Callable[..., Inbox], hidden: dict[str, Any]
) -> None:
    one = make(op="copy", polling="on")
    one.drop(2)
    one.drop(1, to="sub")
    one.daemon.start()
    wait_until(lambda: one.status().counts["sorted"] == 9, what="all copied")
    for path in one.target.rglob("20000-*"):
        path.unlink()
    wait_until(lambda: one.status().counts["seen"] == 6, what="the deletions are seen")

    settings(one, op="copy", **hidden)
    let_it_list(one)
    settings(one, op="copy")
    let_it_list(one)

    assert [path.name for path in one.target.rglob("20000-*")] == []
    assert sums(one.inbox) == one.dropped
    assert one.status().counts["pending"] == 0
