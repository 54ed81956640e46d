"""What a hostile reading of moves, links and skipped files has found."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from inboxes import Inbox, quick_cli
from libraries import (
    STEADY,
    complaints,
    count,
    looked,
    rows,
    sorted_nine,
    standing,
    started,
    states,
)
from support import BLUE, GREEN, RED, paint, paint_groups, wait_until

MakeInbox = Callable[..., Inbox]


def sorted_by(make: MakeInbox, op: str, each: int = 3, **changes: object) -> Inbox:
    """Let a daemon sort pictures, and end."""
    one = make("one", op=op, **{**STEADY, **changes})
    one.drop(each)
    one.daemon.start()
    wait_until(lambda: count(one) == 3 * each, 10, "sorted")
    assert one.daemon.stop() == 0
    return one


def column(one: Inbox, what: str, where: str = "1") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{one.config.database}?mode=ro", uri=True)) as database:
        return database.execute(f"SELECT {what} FROM {where}").fetchall()


def once(one: Inbox) -> int:
    one.daemon.start("--once")
    assert one.daemon.process is not None
    return one.daemon.process.wait(60)


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink"])
@pytest.mark.parametrize("point", ["planned", "claim_dropped"])
def test_an_undo_that_was_killed_ends_where_its_folder_is_removed(
    make: MakeInbox, op: str, point: str
) -> None:
    one = sorted_by(make, op)
    os.environ["IMGSORTD_FAULT_POINT"] = point
    try:
        done = quick_cli("undo", one)
    finally:
        del os.environ["IMGSORTD_FAULT_POINT"]
    assert done.returncode == -9, done
    for folder in one.target.glob("cluster_*"):
        shutil.rmtree(folder)

    assert once(one) == 0, one.daemon.log[-2000:]
    assert [row for row in rows(one)["moves"] if row[3] in ("planned", "copied")] == []
    assert complaints(one) == []


def dup(one: Inbox, name: str = "twin.png") -> tuple[Path, str]:
    """Bring a twin of a sorted picture, under another name; return it and the original's name."""
    original = next(iter(sorted(one.target.glob("cluster_*/*"))))
    shutil.copy(original, one.folder / "twin")
    (one.folder / "twin").rename(one.inbox / name)
    return original, name


def test_a_skipped_file_that_is_deleted_is_not_counted(make: MakeInbox) -> None:
    one = sorted_by(make, "move", duplicates="skip")
    _, name = dup(one)
    started(one)
    wait_until(lambda: states(one).get(name) == "duplicate", 20, "skipped")
    (one.inbox / name).unlink()
    looked(one)
    wait_until(lambda: states(one).get(name) == "gone", 8, f"known {states(one)}")
    assert count(one, "duplicates") == 0


def test_a_link_that_was_moved_goes_back_after_its_picture_was_edited_again(
    make: MakeInbox,
) -> None:
    one = sorted_by(make, "symlink")
    paint(one.folder / "made.png", RED, 77).rename(one.inbox / "a.png")
    started(one)
    wait_until(lambda: states(one).get("a.png") == "sorted", 20, "sorted")
    (first,) = one.target.rglob("a.png")
    paint(one.inbox / "a.png", GREEN, 78)
    wait_until(lambda: list(one.target.rglob("a.png")) != [first], 20, "it goes along")
    (second,) = one.target.rglob("a.png")
    batch = rows(one)["moves"][-1][2]
    made = paint(one.folder / "made.png", GREEN, 79, 70)
    digest = sha256(made.read_bytes()).digest()
    made.rename(one.inbox / "a.png")
    wait_until(lambda: any(r[2] == digest for r in rows(one)["files"]), 20, "seen")
    assert one.daemon.stop() == 0
    assert list(one.target.rglob("a.png")) == [second]

    quick_cli("undo", one, "--batch", str(batch))
    assert list(one.target.rglob("a.png")) == [first]


class Killed(BaseException):
    """As a kill: nothing of ours goes on."""


def test_a_link_that_gives_way_is_gone_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgsortd.moves import copies
    from line import Line

    line = Line(tmp_path, op="symlink")
    try:
        paint_groups(line.config.inbox, 3)
        line.run()
        link = sorted(line.config.target.glob("cluster_*/*"))[0]
        (line.config.inbox / link.name).rename(line.config.inbox / "renamed.png")
        real, calls = copies._leads_nowhere, []

        def dying(*arguments: object) -> bool:
            calls.append(arguments)
            if len(calls) == 2:  # the former link is claimed, and not removed yet
                raise Killed
            return real(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(copies, "_leads_nowhere", dying)
        with pytest.raises(Killed):
            line.run()
        monkeypatch.undo()
        line.restart()
        line.run()
        found = [p for p in line.config.target.rglob("*") if p.is_symlink()]
        assert len(found) == 9, found
        assert all(path.exists() for path in found), found
    finally:
        line.close()


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink"])
def test_a_copy_is_taken_back_whole_where_a_rename_by_links_was_killed(
    make: MakeInbox, op: str
) -> None:
    one = sorted_by(make, op)
    os.environ["IMGSORTD_FAULT_POINT"] = "planned"
    try:
        assert quick_cli("undo", one).returncode == -9
    finally:
        del os.environ["IMGSORTD_FAULT_POINT"]
    open_ = column(one, "mark, src", "moves WHERE phase = 'planned'")
    mark, src = open_[0]
    path = one.target / os.fsdecode(src)
    folder = path.parent / ".imgsortd-claim"
    folder.mkdir()
    # As filesystem.rename leaves it where there is no renameat2, killed at "linked".
    os.link(path, folder / f"{mark}-{path.name}", follow_symlinks=False)

    assert once(one) == 0
    assert sorted(standing(one.target)) == []
    assert not path.is_symlink()


def test_a_claim_that_was_half_given_back_is_not_doubled(make: MakeInbox) -> None:
    one = sorted_nine(make("one", **STEADY))
    paint(one.folder / "made.png", RED, 77).rename(one.inbox / "a.png")
    ident = (one.config.state_dir / "library.json").read_text().split('"id": "')[1][:8]
    folder = one.inbox / ".imgsortd-claim"
    folder.mkdir()
    # As filesystem.return_to leaves it where there is no renameat2, killed at "linked".
    os.link(one.inbox / "a.png", folder / f"m{ident}-{'0' * 16}-a.png")

    started(one)
    wait_until(lambda: states(one).get("a.png") in ("sorted", "duplicate"), 20, "sorted")
    looked(one)
    assert one.daemon.stop() == 0
    assert len(list(one.target.rglob("a*"))) == 1


def test_no_query_of_a_listing_a_drag_or_a_deletion_goes_through_all_files(tmp_path: Path) -> None:
    from imgsortd.store.database import open_for_writing

    store = open_for_writing(tmp_path / "imgsortd.db")
    plans: list[str] = []
    try:
        connection = store.connection
        with store.atomic():
            connection.executemany(
                "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, in_inbox, dst, "
                "seen_at, inbox_id, target_id, op, in_target) "
                "VALUES (?, 1, 1, 1, ?, ?, 1, ?, 0, 1, 2, 'symlink', 1)",
                (
                    (b"p%d" % n, n.to_bytes(32, "big"), ("sorted", "duplicate")[n % 2], b"c/%d" % n)
                    for n in range(50_000)
                ),
            )
        seen: list[str] = []
        connection.set_trace_callback(seen.append)
        store.roots.has_former()
        store.hands.linked(b"/inbox/p7")
        with store.atomic():
            store.hands.taken_away([5], "gone")
        connection.set_trace_callback(None)
        for sql in seen:
            if sql.lstrip().startswith(("SELECT", "UPDATE")):
                plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql)]
                plans += [
                    f"{step}: {sql[:60]}"
                    for step in plan
                    if step.startswith("SCAN files") or "files_state (state=?)" in step
                ]
    finally:
        store.close()
    assert plans == []


def test_folders_whose_inodes_have_changed_places_keep_their_names(make: MakeInbox) -> None:
    one = sorted_by(make, "move")
    for number, name in enumerate(("Cats", "Dogs", "Birds")):
        assert quick_cli("rename", one, str(number), name).returncode == 0
    started(one)
    for colour, folder in ((RED, "a"), (GREEN, "b"), (BLUE, "c")):
        path = paint(one.folder / "made.png", colour, 77)
        (one.inbox / folder).mkdir()
        path.rename(one.inbox / folder / "IMG_1.png")
    wait_until(lambda: count(one) == 12, 20, "sorted")
    looked(one)
    assert one.daemon.stop() == 0
    known = column(one, "id, folder_inode", "clusters ORDER BY id")
    assert None not in [row[1] for row in known]
    # As after a remount of a share that gives inodes anew, or a target put back from a backup.
    with closing(sqlite3.connect(one.config.database)) as database, database:
        for (number, _), (_, inode) in zip(known, known[1:] + known[:1], strict=True):
            database.execute("UPDATE clusters SET folder_inode = ? WHERE id = ?", (inode, number))
    before = {(row[1], row[5]) for row in rows(one)["files"] if row[3] == "sorted"}

    started(one)
    looked(one)
    assert one.daemon.stop() == 0
    names = column(one, "id, name", "clusters ORDER BY id")
    pins = column(one, "count(*)", "pins")
    assert names == [(0, "Cats"), (1, "Dogs"), (2, "Birds")]
    assert pins == [(0,)]
    after = {(row[1], row[5]) for row in rows(one)["files"]}
    assert len(before - after) <= 1


@pytest.mark.parametrize("op", ["copy", "hardlink"])
def test_a_twin_that_was_skipped_is_sorted_when_its_original_is_undone(
    make: MakeInbox, op: str
) -> None:
    one = sorted_by(make, op, duplicates="skip")
    paint(one.folder / "made.png", RED, 77).rename(one.inbox / "a.png")
    started(one)
    wait_until(lambda: states(one).get("a.png") == "sorted", 20, "sorted")
    shutil.copy(one.inbox / "a.png", one.folder / "twin")
    (one.folder / "twin").rename(one.inbox / "twin.png")
    wait_until(lambda: states(one).get("twin.png") == "duplicate", 20, "skipped")
    quick_cli("undo", one)
    (one.inbox / "a.png").unlink()
    looked(one)
    wait_until(lambda: states(one)["twin.png"] == "sorted", 8, f"{states(one)}")
