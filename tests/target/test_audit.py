"""Target against the store, in both directions; and taking in what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from imgsortd.records import FileState
from imgsortd.target.audit import Reconciled, audit, cluster_numbers, reconcile
from line import Line
from support import paint_groups, watch_of


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted nine pictures of three colours."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 3)
    line.run()
    yield line
    line.close()


def take_in(line: Line) -> Reconciled:
    """Let the books say what stands in target."""
    return reconcile(line.store, line.config, audit(line.store, line.config), lambda *_: None)


def known(line: Line) -> dict[str, str | None]:
    """Return the SHA-256 that the books have of each name in target."""
    rows = line.store.connection.execute("SELECT dst, sha256 FROM files WHERE in_target")
    return {os.fsdecode(dst): sha256.hex() for dst, sha256 in rows}


def standing(line: Line) -> dict[str, str]:
    """Return the SHA-256 of each file in target, by its name."""
    target = line.config.target
    return {name: sha256((target / name).read_bytes()).hexdigest() for name in line.files()}


def test_a_target_as_it_was_left_shows_nothing(line: Line) -> None:
    found = audit(line.store, line.config)

    assert (found.missing, found.foreign, found.changed) == ([], [], [])


def test_what_was_deleted_is_missing_what_came_is_foreign_and_what_was_edited_is_changed(
    line: Line,
) -> None:
    first, second, third, *_ = sorted(line.files())
    target = line.config.target
    (target / first).unlink()
    (target / second).rename(target / "cluster_0" / "mine.png")
    (target / third).write_bytes(b"edited")
    (target / "cluster_0" / os.fsdecode(b"new\n\xff.png")).write_bytes(b"new")
    (target / "notes.txt").write_text("not ours")
    (target / "holiday").mkdir()
    (target / "holiday" / "a.png").write_text("not ours")
    (target / "cluster_0" / "link.png").symlink_to("/etc/passwd")

    found = audit(line.store, line.config)

    assert sorted(os.fsdecode(row.dst) for row in found.missing) == [first, second]
    assert [file.dst for file in found.foreign] == [
        b"cluster_0/mine.png",
        b"cluster_0/new\n\xff.png",
    ]
    assert [file.found.dst for file, _ in found.changed] == [third.encode()]


def flip_a_bit(path: Path) -> None:
    """Change a byte and keep size and times, as far as a program can."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_flipped_bit_is_found_also_where_size_and_time_are_as_before(line: Line) -> None:
    first, *_ = sorted(line.files())
    flip_a_bit(line.config.target / first)

    found = audit(line.store, line.config)

    assert [file.found.dst for file, _ in found.changed] == [first.encode()]


def test_only_a_deep_look_reads_files_that_nothing_speaks_against(line: Line) -> None:
    first, *_ = sorted(line.files())
    flip_a_bit(line.config.target / first)
    # As where the disk itself has flipped it: no time tells of it.
    line.store.connection.execute("UPDATE files SET done_at = done_at + 3600")
    line.store.connection.commit()
    progress: list[tuple[int, int]] = []

    shallow = audit(line.store, line.config)
    deep = audit(line.store, line.config, deep=True, progress=lambda *done: progress.append(done))

    assert shallow.changed == []
    assert [file.found.dst for file, _ in deep.changed] == [first.encode()]
    assert progress[-1] == (9, 9)


def test_files_that_were_only_sorted_are_not_read_again(line: Line) -> None:
    read: list[tuple[int, int]] = []

    audit(line.store, line.config, progress=lambda *done: read.append(done))

    assert read == []


def test_a_touched_file_is_not_changed(line: Line) -> None:
    for name in line.files():
        os.utime(line.config.target / name, (0, 0))

    assert audit(line.store, line.config).changed == []


def test_what_is_adopted_counts_as_sorted_and_is_not_adopted_again(line: Line) -> None:
    target = line.config.target
    (target / "cluster_1" / "mine.png").write_bytes(b"mine")
    (target / "cluster_1" / "twin.png").write_bytes(b"mine")
    (target / "_set_aside").mkdir()
    (target / "_set_aside" / "odd.txt").write_bytes(b"odd")
    before = line.files()

    done = take_in(line)

    assert done == Reconciled(moved=0, changed=0, gone=0, adopted=3, unreadable=0)
    assert line.counts() == {"seen": 12, "sorted": 10, "duplicates": 1, "set_aside": 1}
    assert audit(line.store, line.config).foreign == []
    assert line.files() == before
    aside = line.store.files.with_state(FileState.SET_ASIDE, 1)
    assert aside[0][2] == "was in _set_aside when the database was rebuilt"


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink"])
def test_a_file_that_stays_in_the_inbox_is_known_by_its_adopted_copy(
    tmp_path: Path, op: str
) -> None:
    line = Line(tmp_path, op=op)
    paint_groups(line.config.inbox, 3)
    line.run()
    before = line.files()
    with line.store.atomic():
        line.store.connection.execute("DELETE FROM moves")
        line.store.connection.execute("DELETE FROM files")

    take_in(line)
    line.restart()
    line.run()

    assert line.files() == before
    assert line.counts() == {"seen": 9, "sorted": 9}
    line.close()


def test_bytes_decide_where_names_were_handed_on(line: Line) -> None:
    target = line.config.target
    first, second, third, fourth, *_ = sorted(line.files())
    (target / first).rename(target / "between")
    (target / second).rename(target / first)
    (target / "between").rename(target / second)
    (target / third).rename(target / "cluster_2" / "elsewhere.png")
    (target / third).write_bytes(b"another picture")
    (target / fourth).write_bytes(b"edited")
    before = line.files()

    done = take_in(line)

    assert done == Reconciled(moved=3, changed=1, gone=0, adopted=1, unreadable=0)
    assert known(line) == standing(line)
    assert line.files() == before
    assert line.counts() == {"seen": 10, "sorted": 10}
    assert take_in(line) == Reconciled(0, 0, 0, 0, 0)


def test_a_file_whose_name_and_bytes_are_gone_is_forgotten_and_its_names_new_file_taken_in(
    line: Line,
) -> None:
    target = line.config.target
    first, second, *_ = sorted(line.files())
    (target / first).unlink()
    (target / second).replace(target / first)

    done = take_in(line)

    assert (done.moved, done.gone, done.adopted) == (1, 1, 0)
    assert known(line) == standing(line)


def test_files_in_a_persons_folder_that_no_row_knows_are_counted(line: Line) -> None:
    folder = line.config.target / "holiday"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"not ours")
    first, *_ = sorted(line.files())
    (line.config.target / first).rename(folder / "known.png")
    take_in(line)  # it is found by its bytes where the books look: nowhere, so it is forgotten

    assert audit(line.store, line.config).unknown == 2


def test_a_link_that_leads_nowhere_is_named_without_a_deep_look(tmp_path: Path) -> None:
    line = Line(tmp_path, op="symlink")
    paint_groups(line.config.inbox, 3)
    line.run()
    (line.config.inbox / "red-0.png").unlink()

    found = audit(line.store, line.config)

    assert [os.path.basename(dst) for dst in found.dangling] == [b"red-0.png"]
    assert (found.missing, found.foreign, found.unreadable) == ([], [], [])
    line.close()


def test_the_numbers_are_those_of_all_cluster_folders(line: Line) -> None:
    for name in ("cluster_17", "cluster_007", "cluster_x", "_review"):
        (line.config.target / name).mkdir()

    assert cluster_numbers(line.store, line.config) == [0, 1, 2, 17]


def test_named_folders_and_a_persons_own_are_known_and_their_files_there(line: Line) -> None:
    red = line.config.target / "cluster_0"
    red.rename(line.config.target / "Tomatoes")
    own = line.config.target / "Mine"
    own.mkdir()
    for path in list((line.config.target / "cluster_1").iterdir())[:2]:
        path.rename(own / path.name)
    (own / "stranger.txt").write_text("left alone")
    (line.config.target / "Tomatoes" / "stranger.png").write_bytes(b"stranger")
    watch = watch_of(line.library)
    for now_s in range(100, 600, 100):
        watch.step(float(now_s))

    found = audit(line.store, line.config)

    assert (found.missing, found.changed) == ([], [])
    assert [file.dst for file in found.foreign] == [b"Tomatoes/stranger.png"]
    take_in(line)
    assert audit(line.store, line.config).foreign == []
    assert cluster_numbers(line.store, line.config) == [0, 1, 2]
