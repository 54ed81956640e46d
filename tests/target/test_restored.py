"""A database that was restored or made anew says what is true, and says what it cannot know."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from inboxes import Inbox, quick_cli
from libraries import (
    LIGHT,
    change,
    check_places,
    complaints,
    count,
    damage,
    findings,
    looked,
    places,
    rows,
    sorted_nine,
    standing,
    started,
    states,
    undo_all,
)
from support import BLUE, GREEN, RED, paint, sums, wait_until

MakeInbox = Callable[..., Inbox]
OLD_LIBRARY = Path(__file__).with_name("library_of_m010.sql")


def backed_up(make: MakeInbox, **changes: Any) -> Inbox:
    """Let a daemon sort nine pictures and make a backup that knows all of them, and end."""
    one = sorted_nine(make("one", **{**LIGHT, **changes}))
    folder = one.config.state_dir / "backups"
    shutil.rmtree(folder, ignore_errors=True)
    started(one)
    wait_until(lambda: list(folder.glob("*.db")), 20, "a backup\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    shutil.copytree(folder, one.folder / "kept backups")
    return one


def restart(one: Inbox) -> str:
    """Start the daemon on what is left, let it look at target, and return what it has logged."""
    before = len(one.daemon.log)
    started(one)
    said = one.daemon.log[before:]
    looked(one)
    return said


def place(one: Inbox, name: str) -> Path:
    (path,) = one.target.rglob(name)
    return path


def folder_of(one: Inbox, colour: str) -> Path:
    """Return the folder that most of a colour stands in."""
    parents = [path.parent for path in one.target.rglob(f"*{colour}*")]
    return max(parents, key=parents.count)


def row_of(one: Inbox, path: Path) -> tuple[Any, ...]:
    """Return the one row that knows a file where it stands."""
    dst = str(path.relative_to(one.target))
    (row,) = [row for row in places(one) if row[1] == dst]
    return row


def warns_of(said: str, number: int) -> bool:
    """Tell whether a warning or an error of a log has a number; those in paths do not count."""
    lines = [line for line in said.splitlines() if re.search(r" (WARNING|ERROR) ", line)]
    told = [re.sub(r"^\S+ \S+|\S*/\S*", "", line) for line in lines]
    return any(re.search(rf"(?<![\d.]){number}(?![\d.])", line) for line in told)


def check_all_right(one: Inbox) -> None:
    """See that rows and files agree, that nothing is kept twice, and that doctor agrees."""
    if one.daemon.is_alive():
        assert one.daemon.stop() == 0
    check_places(one)
    assert sums(one.inbox, one.target) == one.dropped
    assert complaints(one) == []
    assert complaints(one, "--deep") == []


# --- restored from a backup that is older than what was done --------------------------------------


def put_another_by_hand(one: Inbox) -> Path:
    path = place(one, "10000-red-0.png")
    del one.dropped[sha256(path.read_bytes()).hexdigest()]
    path.unlink()
    paint(path, RED, seed=99)
    return path


def have_another_sorted(one: Inbox) -> Path:
    path = place(one, "10000-red-0.png")
    del one.dropped[sha256(path.read_bytes()).hexdigest()]
    started(one)
    path.unlink()
    wait_until(lambda: states(one)["10000-red-0.png"] == "gone", 20, "gone")
    one.bring(paint(one.folder / "new" / "picture.png", RED, seed=99), path.name)
    wait_until(lambda: path.exists() and count(one) == 9, 20, "another one\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    return path


def overwrite(one: Inbox) -> Path:
    """Edit a picture where it stands, so that inode and times are as before."""
    path = place(one, "10000-red-0.png")
    del one.dropped[sha256(path.read_bytes()).hexdigest()]
    before = path.stat()
    path.write_bytes(paint(one.folder / "new" / "picture.png", RED, seed=99).read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return path


@pytest.mark.parametrize("put", [put_another_by_hand, have_another_sorted, overwrite])
def test_another_picture_under_an_old_name_does_not_get_the_old_hash(
    make: MakeInbox, put: Callable[[Inbox], Path]
) -> None:
    one = backed_up(make)
    path = put(one)
    content = sha256(path.read_bytes()).hexdigest()
    one.dropped[content] = 1
    damage(one)

    said = restart(one)

    assert row_of(one, path)[2:] == (content, "sorted")
    assert sha256(path.read_bytes()).hexdigest() == content
    assert warns_of(said, 1), said
    check_all_right(one)


@pytest.mark.parametrize("end", ["another cluster", "_review", "a folder of one's own"])
def test_a_picture_that_was_dragged_since_the_backup_is_known_where_it_stands(
    make: MakeInbox, end: str
) -> None:
    one = backed_up(make)
    started(one)
    path = place(one, "10000-red-0.png")
    folders = {"another cluster": folder_of(one, "green"), "_review": one.target / "_review"}
    folder = folders.get(end, one.target / "Mine")
    folder.mkdir(exist_ok=True)
    path = path.rename(folder / path.name)
    wait_until(lambda: json.loads(quick_cli("pins", one, "--json").stdout), 20, "pinned")
    assert one.daemon.stop() == 0
    state = row_of(one, path)[3]
    damage(one)

    said = restart(one)

    if end == "_review":  # from there it may go on, where no pin is known that holds it
        path = place(one, path.name)
        state = "sorted" if path.parent != folder else state
    content = sha256(path.read_bytes()).hexdigest()
    assert [row for row in places(one) if row[2] == content] == [row_of(one, path)]
    assert row_of(one, path)[2:] == (content, state)
    assert warns_of(said, 1), said
    assert count(one) + count(one, "review") == 11
    assert count(one, "duplicates") == 0
    check_all_right(one)


def test_pictures_sorted_since_the_backup_are_taken_in_and_counted_in_the_log(
    make: MakeInbox,
) -> None:
    one = backed_up(make)
    started(one)
    one.drop(2)
    one.wait_sorted()
    assert one.daemon.stop() == 0
    before = {row[1:] for row in places(one)}
    damage(one)

    said = restart(one)

    assert before <= {row[1:] for row in places(one)}
    assert count(one) == 17
    assert warns_of(said, 6), said
    check_all_right(one)


def test_pictures_deleted_since_the_backup_are_counted_in_the_log(make: MakeInbox) -> None:
    one = backed_up(make)
    started(one)
    for name in ("10000-red-0.png", "10000-blue-1.png"):
        path = place(one, name)
        del one.dropped[sha256(path.read_bytes()).hexdigest()]
        path.unlink()
    wait_until(lambda: count(one) == 7, 20, "gone")
    assert one.daemon.stop() == 0
    damage(one)

    said = restart(one)

    assert warns_of(said, 2), said
    wait_until(lambda: count(one) == 9, 20, "gone again")
    check_all_right(one)


def test_what_was_undone_since_the_backup_is_a_duplicate_of_nothing(make: MakeInbox) -> None:
    one = backed_up(make)
    undo_all(one)
    returned = standing(one.inbox)
    assert len(returned) == 9
    damage(one)

    said = restart(one)
    wait_until(lambda: count(one, "pending") == 0, 20, "all is judged")

    assert warns_of(said, len(returned)), said
    assert count(one, "duplicates") == 0
    check_all_right(one)


def test_all_at_once_since_the_backup(make: MakeInbox) -> None:
    one = backed_up(make)
    started(one)
    one.drop(2)
    one.wait_sorted()
    dragged = place(one, "10000-blue-0.png")
    dragged = dragged.rename(folder_of(one, "green") / dragged.name)
    wait_until(lambda: json.loads(quick_cli("pins", one, "--json").stdout), 20, "pinned")
    assert one.daemon.stop() == 0
    # The names of two pictures are exchanged.
    first, second = place(one, "10000-red-1.png"), place(one, "10000-red-2.png")
    first.rename(one.folder / "first")
    second.rename(first)
    (one.folder / "first").rename(second)
    damage(one)

    restart(one)

    assert count(one) == 17
    assert count(one, "duplicates") == 0
    check_all_right(one)


def test_repair_restores_as_the_daemon_does(make: MakeInbox) -> None:
    one = backed_up(make)
    path = put_another_by_hand(one)
    one.dropped[sha256(path.read_bytes()).hexdigest()] = 1
    dragged = place(one, "10000-blue-0.png")
    dragged = dragged.rename(folder_of(one, "green") / dragged.name)
    damage(one)

    done = quick_cli("doctor", one, "--repair")

    assert done.returncode in (0, 1), done.stderr
    check_all_right(one)
    assert count(one) == 9
    assert row_of(one, dragged)[3] == "sorted"
    started(one)
    looked(one)
    check_all_right(one)


# --- the state folder is gone, or its database alone ----------------------------------------------


def name_all(one: Inbox) -> dict[str, Path]:
    """Give each cluster a name, by command; return the folder of each colour."""
    folders = {}
    for colour, name in (("red", "Tomatoes"), ("green", "Meadows"), ("blue", "Sky")):
        number = folder_of(one, colour).name.removeprefix("cluster_")
        done = quick_cli("rename", one, number, name)
        assert done.returncode == 0, done.stderr
        folders[colour] = one.target / name
    return folders


def named(one: Inbox) -> dict[str, int]:
    return {cluster.folder: cluster.id for cluster in one.status().clusters}


def all_is_well(one: Inbox) -> bool:
    """Tell whether doctor says that it knows all there is in target."""
    return any("every file is known" in text for what, _, text in findings(one) if what == "target")


@pytest.mark.parametrize("min_images", [6, 50])
def test_named_clusters_are_known_again_after_the_state_folder_was_deleted(
    make: MakeInbox, min_images: int
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    folders = name_all(one)
    numbers = named(one)
    change(one, clusters={"min_images": min_images})
    before = standing(one.target)
    shutil.rmtree(one.config.state_dir)
    assert not all_is_well(one)

    started(one)
    assert count(one) == 9 or not all_is_well(one)
    wait_until(lambda: named(one).keys() >= {path.name for path in folders.values()}, 20, "names")

    assert count(one) == 9
    assert named(one) == numbers
    assert standing(one.target) == before
    check_places(one)
    assert complaints(one) == []
    one.drop(1)
    if min_images == 6:
        one.wait_sorted(20)
        for colour, folder in folders.items():
            assert (folder / f"20000-{colour}-0.png").exists()
    else:
        wait_until(lambda: count(one, "pending") == 3, 20, "they wait")
    assert count(one) + count(one, "pending") == 12
    check_all_right(one)


def test_what_is_left_of_a_library_with_names_is_known_though_it_is_too_little_for_a_fit(
    make: MakeInbox,
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    folders = name_all(one)
    started(one)
    for name in ("red-0", "red-1", "green-0", "green-1", "blue-0"):
        path = place(one, f"10000-{name}.png")
        del one.dropped[sha256(path.read_bytes()).hexdigest()]
        path.unlink()
    wait_until(lambda: count(one) == 4, 20, "five are gone")
    assert one.daemon.stop() == 0
    shutil.rmtree(one.config.state_dir)

    started(one)
    wait_until(lambda: count(one) == 4, 20, "taken in\n" + one.daemon.log)

    assert named(one).keys() >= {path.name for path in folders.values()}
    assert complaints(one) == []
    one.drop(1)
    one.wait_sorted(20)
    for colour, folder in folders.items():
        assert (folder / f"20000-{colour}-0.png").exists()
    check_all_right(one)


def test_doctor_does_not_say_that_all_is_known_where_nothing_says_whose_the_folders_are(
    make: MakeInbox,
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    name_all(one)
    shutil.rmtree(one.config.state_dir)
    (one.target / ".imgsortd-library").unlink(missing_ok=True)
    started(one)
    assert one.daemon.stop() == 0

    assert count(one) == 9 or not all_is_well(one)

    assert sums(one.target) == one.dropped


# --- numbers of batches ---------------------------------------------------------------------------


def sort_more(one: Inbox) -> tuple[set[int], set[str]]:
    """Have three more pictures sorted; return the numbers of their batches, and their names."""
    before = {row[0] for row in rows(one)["files"]}
    known = count(one)
    one.drop(1)
    wait_until(lambda: count(one) == known + 3, 20, "three more\n" + one.daemon.log)
    new = {row[0]: row[1].decode() for row in rows(one)["files"] if row[0] not in before}
    return {row[2] for row in rows(one)["moves"] if row[1] in new}, set(new.values())


@pytest.mark.parametrize("lost", ["damaged", "deleted", "deleted with its backups"])
def test_a_batch_has_no_number_that_another_had(make: MakeInbox, lost: str) -> None:
    one = backed_up(make)
    started(one)
    former, _ = sort_more(one)
    sort_more(one)
    assert one.daemon.stop() == 0
    used = {row[2] for row in rows(one)["moves"]}
    damage(one)
    if lost != "damaged":
        one.config.database.unlink()
    if lost == "deleted with its backups":
        shutil.rmtree(one.config.state_dir / "backups")
    started(one)
    wait_until(lambda: count(one) == 15, 20, "all are known\n" + one.daemon.log)

    batches, names = sort_more(one)

    assert min(batches) > max(used)
    for batch in former:  # it is known, or it is not; it is no other
        quick_cli("undo", one, "--batch", str(batch))
    assert names <= {path.name for path in one.target.rglob("*.png")}
    done = [quick_cli("undo", one, "--batch", str(batch)) for batch in batches]
    assert {each.returncode for each in done} == {0}, done
    assert names <= {path.name for path in one.inbox.iterdir()}
    check_all_right(one)


# --- a library of an older imgsortd ---------------------------------------------------------------


def write(path: Path, name: str) -> bytes:
    """Write the file that the old library knows by a name in the inbox; return its SHA-256."""
    texts = {"bad.png": "this is no picture", "10000-red-1.png.xmp": "a sidecar"}
    path.parent.mkdir(parents=True, exist_ok=True)
    if name in texts:
        path.write_text(texts[name])
    else:
        seed, colour, number = name.replace("twin", "10000-green-0").removesuffix(".png").split("-")
        index = ("red", "green", "blue").index(colour)
        paint(path, (RED, GREEN, BLUE)[index], int(seed) + 1000 * index + int(number))
    return sha256(path.read_bytes()).digest()


def old_library(one: Inbox, database: Path) -> None:
    """Make a library as an older imgsortd has left it, killed as three moves were planned."""
    weights = str(one.config.model.weights)  # the stand-in takes their name for their digest
    text, new = OLD_LIBRARY.read_text().replace("'auto'", f"'{weights}'"), {}
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.executescript(text)
        files = memory.execute("SELECT id, src, dst, state, sha256 FROM files").fetchall()
    for number, src, dst, state, content in files:
        in_inbox = state in ("pending", "undone")
        path = one.inbox / src.decode() if in_inbox else one.target / dst.decode()
        digest = write(path, src.decode())
        text = text.replace(content.hex().upper(), digest.hex().upper())
        new[number] = path.stat()
        if state == "gone":
            path.unlink()
    with closing(sqlite3.connect(database)) as store:
        store.executescript(text)
        for table, column in (("files", "id"), ("moves", "file_id")):
            store.executemany(
                f"UPDATE {table} SET inode = ?, size_bytes = ?, mtime_ns = ? WHERE {column} = ?",
                [(s.st_ino, s.st_size, s.st_mtime_ns, number) for number, s in new.items()],
            )
        store.execute("UPDATE clusters SET folder_inode = NULL")
        store.commit()
    database.chmod(0o600)
    one.config.state_dir.chmod(0o700)
    one._seed = 90_000  # the first pictures of a test are those of the old library
    one.dropped = sums(one.inbox, one.target)


OLD_COUNTS = {
    "seen": 17,
    "sorted": 8,
    "review": 0,
    "set_aside": 1,
    "duplicates": 1,
    "pending": 3,
    "undone": 3,
    "companions": 1,
}


@pytest.mark.parametrize("way", ["run", "repair", "restored from a backup"])
def test_an_older_library_is_taken_over_with_all_that_it_knows(make: MakeInbox, way: str) -> None:
    one = make(
        "one", refit={"growth": "off", "interval": "off"}
    )  # its features are of weights: auto
    if way == "restored from a backup":
        folder = one.config.state_dir / "backups"
        folder.mkdir(0o700)
        old_library(one, folder / "imgsortd-2025-01-05.db")
    else:
        old_library(one, one.config.database)
        assert one.status().counts == OLD_COUNTS
        assert complaints(one) == []
    before = standing(one.inbox, one.target)
    if way == "repair":
        done = quick_cli("doctor", one, "--repair")
        assert done.returncode in (0, 1), done.stderr

    started(one)
    wait_until(lambda: count(one, "pending") == 0, 20, "open moves\n" + one.daemon.log)

    assert one.status().counts == {**OLD_COUNTS, "sorted": 11, "pending": 0}
    assert named(one).keys() == {"Reds", "cluster_0", "cluster_1"}
    waiting = [path for path in before if path.name.startswith("30000-")]
    assert before.items() - standing(one.inbox, one.target).items() == {
        (path, before[path]) for path in waiting
    }
    assert sums(one.inbox, one.target) == one.dropped
    looked(one)
    check_places(one)
    for batch in (6, 1):
        done = quick_cli("undo", one, "--batch", str(batch))
        assert done.returncode == 0, done.stderr
    assert count(one, "undone") >= 3 + 3 + 7  # a companion and the one that was dragged as may be
    assert one.daemon.stop() == 0
    assert sums(one.inbox, one.target) == one.dropped
    assert complaints(one) == []
