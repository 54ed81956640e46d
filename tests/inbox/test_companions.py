"""Companions travel with their picture: together, late, under its new name, and back again."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsortd.daemon.here import undo
from imgsortd.moves.undo import UndoChoice
from imgsortd.records import Candidate, Op, Route
from imgsortd.sort import SortJob, sort_folder
from imgsortd.system.filesystem import look
from imgsortd.target.audit import audit, reconcile
from inboxes import Inbox, quick_cli
from line import Line, files_below
from mounts import tmpfs
from support import (
    BLUE,
    GREEN,
    RED,
    ColourExtractor,
    each_file_below,
    make_config,
    paint,
    paint_groups,
    sums,
    wait_until,
)

XMP, MOV, RAW = b"<x:xmpmeta/>", b"\0\0\0\x14ftypqt  film", b"II*\0\x10\0\0\0CR\x02\0 raw"


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[Callable[..., Line]]:
    """Return what makes a line that knows three colours: red 0, green 1, blue 2 or so."""
    lines: list[Line] = []

    def make_line(**changes: Any) -> Line:
        line = Line(tmp_path, **changes)
        lines.append(line)
        paint_groups(line.config.inbox, 2)
        line.run()
        return line

    yield make_line
    for line in lines:
        line.close()


def jpeg(line: Line, name: str, colour: tuple[int, int, int] = RED, seed: int = 1) -> Path:
    """Put a picture into the inbox."""
    made = paint(line.config.inbox.parent / f"made{Path(name).suffix}", colour, seed)
    return line.put(name, made.read_bytes())


def places(line: Line, stem: str) -> dict[str, str]:
    """Return the folder of every file below target whose name begins with ``stem``."""
    return {
        Path(n).name: Path(n).parent.name for n in line.files() if Path(n).name.startswith(stem)
    }


def inbox(line: Line) -> set[str]:
    return set(files_below(line.config.inbox))


def undo_by(line: Line, choice: UndoChoice | None = None) -> Any:
    line.close()
    try:
        return undo(line.config, choice or UndoChoice(), dry_run=False)
    finally:
        line._open()


def together(line: Line, stem: str, *names: str) -> bool:
    """Tell whether these, and no others of the stem, stand in one folder."""
    found = places(line, stem)
    return set(found) == set(names) and len(set(found.values())) == 1


@pytest.mark.parametrize("op", ["move", "copy", "hardlink", "symlink"])
def test_all_of_a_stem_end_in_the_folder_of_their_picture(
    make_line: Callable[..., Line], op: str
) -> None:
    line = make_line(op=op)
    for name, data in (("IMG_1.xmp", XMP), ("IMG_1.MOV", MOV), ("IMG_1.CR2", RAW)):
        line.put(name, data)
    line.put("IMG_1.CR2.xmp", XMP)
    line.put("IMG_1.JPG.xmp", XMP)
    jpeg(line, "IMG_1.JPG")

    line.run()
    line.restart()
    line.run()

    names = ("IMG_1.JPG", "IMG_1.xmp", "IMG_1.MOV", "IMG_1.CR2", "IMG_1.CR2.xmp", "IMG_1.JPG.xmp")
    assert together(line, "IMG_1", *names)
    assert line.counts() == {"seen": 12, "sorted": 7, "companions": 5}
    assert len(inbox(line)) == (0 if op == "move" else 12)
    assert line.store.fits.count_features() == 7
    assert len(line.store.fits.load_features(line.extractor.id)[0]) == 7
    assert line.store.files.cluster_sizes().keys() == {0, 1, 2}
    assert sum(line.store.files.cluster_sizes().values()) == 7


def test_a_companion_alone_is_left_with_one_line_and_follows_when_its_picture_comes(
    make_line: Callable[..., Line], caplog: pytest.LogCaptureFixture
) -> None:
    line = make_line()
    line.put("IMG_1.xmp", XMP)
    caplog.set_level(logging.INFO)

    line.run()
    line.run()
    alone = (inbox(line), line.counts(), caplog.messages)
    jpeg(line, "IMG_1.JPG")
    line.run()

    assert alone[0] == {"IMG_1.xmp"}
    assert alone[1] == {"seen": 6, "sorted": 6}
    assert alone[2].count("file left alone reason=not a picture name='IMG_1.xmp'") == 1
    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.xmp")


def test_a_late_companion_follows_its_picture_to_where_it_stands(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    jpeg(line, "a/IMG_1.JPG")
    line.run()
    line.restart()

    line.put("a/IMG_1.MOV", MOV)
    line.put("IMG_1.xmp", XMP)
    line.run()

    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.MOV")
    assert inbox(line) == {"IMG_1.xmp"}  # of another folder


def test_a_late_companion_stays_when_its_picture_is_gone(make_line: Callable[..., Line]) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    line.run()
    next(line.config.target.rglob("IMG_1.JPG")).unlink()

    line.put("IMG_1.MOV", MOV)
    line.run()

    assert inbox(line) == {"IMG_1.MOV"}
    assert line.counts() == {"seen": 7, "sorted": 7}


def test_a_companion_does_not_follow_an_older_picture_while_a_new_one_settles(
    make_line: Callable[..., Line],
) -> None:
    line = make_line(settle_s=5)
    jpeg(line, "IMG_1.JPG", RED)
    line.now_s += 10
    line.run()
    jpeg(line, "IMG_1.JPG", BLUE, 2)
    line.put("IMG_1.MOV", MOV)

    line.intake.scan(line.now_s)
    line.intake.hint([b"IMG_1.JPG"], line.now_s + 4)  # it is still being written
    line.now_s += 6
    line.intake.settle(line.now_s)
    line.follow()
    early = inbox(line)
    line.now_s += 10
    line.run()

    assert early == {"IMG_1.JPG", "IMG_1.MOV"}
    blue = {Path(name).parent.name for name in line.files() if "blue" in name}
    assert places(line, "IMG_1")["IMG_1.MOV"] in blue


def test_a_companion_that_is_still_open_for_writing_follows_when_it_is_closed(
    make_line: Callable[..., Line], leases_allowed: None
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    line.put("IMG_1.MOV", MOV)

    with open(line.config.inbox / "IMG_1.MOV", "ab") as writer:
        line.run()
        early = inbox(line)
        writer.write(b" more")
    line.now_s += 10
    line.run()

    assert early == {"IMG_1.MOV"}
    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.MOV")
    assert MOV + b" more" in line.files().values()


def test_a_picture_that_takes_another_name_gives_its_stem_to_its_companions(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    for folder, seed in (("", 1), ("a", 2), ("b", 3)):
        jpeg(line, f"{folder}/IMG_1.JPG".lstrip("/"), RED, seed)
        line.put(f"{folder}/IMG_1.xmp".lstrip("/"), XMP + folder.encode())

    line.run()

    folder = places(line, "IMG_1")["IMG_1.JPG"]
    pairs = {}
    for number, name in (("", ""), ("-1", "a"), ("-2", "b")):
        pairs[name] = line.files()[f"{folder}/IMG_1{number}.xmp"]
    assert len(places(line, "IMG_1")) == 6
    assert pairs == {"": XMP, "a": XMP + b"a", "b": XMP + b"b"}


def test_a_name_must_be_free_for_the_companions_as_well(make_line: Callable[..., Line]) -> None:
    line = make_line()
    red = next(line.config.target.rglob("red-0.png")).parent
    (red / "IMG_1.xmp").write_bytes(b"a stranger's")
    line.put("IMG_1.xmp", XMP)
    jpeg(line, "IMG_1.JPG")

    line.run()

    assert set(places(line, "IMG_1")) == {"IMG_1.xmp", "IMG_1-1.JPG", "IMG_1-1.xmp"}
    assert (red / "IMG_1.xmp").read_bytes() == b"a stranger's"
    assert (red / "IMG_1-1.xmp").read_bytes() == XMP


def test_a_stranger_that_takes_a_late_companions_name_keeps_it_and_the_log_says_so(
    make_line: Callable[..., Line], caplog: pytest.LogCaptureFixture
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    line.run()
    red = next(line.config.target.rglob("IMG_1.JPG")).parent
    (red / "IMG_1.xmp").write_bytes(b"a stranger's")

    line.put("IMG_1.xmp", XMP)
    line.run()

    assert (red / "IMG_1.xmp").read_bytes() == b"a stranger's"
    assert (red / "IMG_1-1.xmp").read_bytes() == XMP
    assert any("companion named otherwise" in message for message in caplog.messages)


def test_a_raw_file_that_decodes_is_a_picture_alone_and_a_companion_beside_one(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    tiff = paint(line.config.inbox.parent / "made.tif", GREEN, 5).read_bytes()
    line.put("alone.DNG", tiff)
    line.put("pair.DNG", tiff + b" ")
    line.put("alone.xmp", XMP)
    jpeg(line, "pair.JPG", RED)

    line.run()

    assert together(line, "alone", "alone.DNG", "alone.xmp")
    assert together(line, "pair", "pair.DNG", "pair.JPG")
    assert places(line, "alone")["alone.DNG"] != places(line, "pair")["pair.DNG"]
    assert line.counts() == {"seen": 10, "sorted": 8, "companions": 2}


def test_a_raw_file_that_no_decoder_reads_is_not_set_aside_and_follows_a_later_picture(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    line.put("IMG_1.CR2", RAW)

    line.run()
    alone = (inbox(line), line.counts())
    line.restart()
    line.run()
    jpeg(line, "IMG_1.JPG")
    line.run()

    assert alone == ({"IMG_1.CR2"}, {"seen": 6, "sorted": 6})
    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.CR2")
    assert line.counts() == {"seen": 8, "sorted": 7, "companions": 1}


def test_a_raw_file_whose_picture_is_taken_away_is_sorted_itself(tmp_path: Path) -> None:
    line = Line(tmp_path)
    tiff = paint(tmp_path / "made.tif", GREEN, 5).read_bytes()
    line.put("IMG_1.DNG", tiff)
    jpeg(line, "IMG_1.JPG")
    line.run()  # too few for a fit: both wait
    (line.config.inbox / "IMG_1.JPG").unlink()
    line.run()
    line.now_s += 10
    paint_groups(line.config.inbox, 2)

    line.run()

    assert list(places(line, "IMG_1")) == ["IMG_1.DNG"]
    assert line.counts() == {"seen": 7, "sorted": 7}
    line.close()


def test_companions_wait_with_their_pictures_for_the_first_fit_over_a_restart(
    tmp_path: Path,
) -> None:
    line = Line(tmp_path)
    jpeg(line, "IMG_1.JPG")
    line.put("IMG_1.xmp", XMP)
    line.run()
    early = (inbox(line), line.counts())
    line.restart()
    paint_groups(line.config.inbox, 2)

    line.run()

    assert early == ({"IMG_1.JPG", "IMG_1.xmp"}, {"seen": 1, "pending": 1})
    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.xmp")
    line.close()


def test_equal_bytes_make_no_companion_a_duplicate(make_line: Callable[..., Line]) -> None:
    line = make_line(duplicates="set_aside")
    for number in range(3):
        jpeg(line, f"IMG_{number}.JPG", RED, number + 1)
        line.put(f"IMG_{number}.xmp", XMP)

    line.run()

    assert line.counts() == {"seen": 12, "sorted": 9, "companions": 3}
    for number in range(3):
        assert together(line, f"IMG_{number}", f"IMG_{number}.JPG", f"IMG_{number}.xmp")


@pytest.mark.parametrize(
    ("policy", "end"), [("keep", "red"), ("set_aside", "_set_aside"), ("skip", "inbox")]
)
def test_a_duplicates_companions_are_where_it_is(
    make_line: Callable[..., Line], policy: str, end: str
) -> None:
    line = make_line(duplicates=policy)
    red = next(line.config.target.rglob("red-0.png"))
    line.put("twin.png", red.read_bytes())
    line.put("twin.xmp", XMP)

    line.run()
    line.restart()
    line.run()

    found = {"inbox": inbox(line)}.get(end, set(places(line, "twin")))
    assert found == {"twin.png", "twin.xmp"}
    folder = {"red": red.parent.name}.get(end, end)
    assert set(places(line, "twin").values()) == (set() if end == "inbox" else {folder})


def test_a_broken_picture_takes_its_companions_to_set_aside(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    line.put("IMG_1.JPG", b"\xff\xd8\xff broken")
    line.put("IMG_1.CR2", RAW)

    line.run()

    assert places(line, "IMG_1") == {"IMG_1.JPG": "_set_aside", "IMG_1.CR2": "_set_aside"}
    assert line.counts() == {"seen": 8, "sorted": 6, "set_aside": 1, "companions": 1}


def test_a_picture_for_review_takes_its_companions_to_review(
    make_line: Callable[..., Line],
) -> None:
    line = make_line(clusters={"review_quantile": 0.99})
    jpeg(line, "IMG_1.png", (128, 128, 128))
    line.put("IMG_1.xmp", XMP)

    line.run()

    assert places(line, "IMG_1") == {"IMG_1.png": "_review", "IMG_1.xmp": "_review"}


def test_of_a_jpeg_and_another_picture_of_one_stem_the_jpeg_has_the_companions(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.png", BLUE)
    jpeg(line, "IMG_1.JPG", RED)
    line.put("IMG_1.xmp", XMP)
    line.put("IMG_1.png.xmp", XMP)

    line.run()

    found = places(line, "IMG_1")
    assert found["IMG_1.xmp"] == found["IMG_1.JPG"] != found["IMG_1.png"]
    assert found["IMG_1.png.xmp"] == found["IMG_1.png"]


@pytest.mark.parametrize("op", ["move", "copy", "hardlink", "symlink"])
def test_undo_brings_both_back_where_they_stay_and_the_next_undo_places_them_again(
    make_line: Callable[..., Line], op: str
) -> None:
    line = make_line(op=op)
    jpeg(line, "IMG_1.JPG")
    line.put("IMG_1.xmp", XMP)
    before = files_below(line.config.inbox)
    line.run()
    sorted_files, counts = line.files(), line.counts()

    undo_by(line)
    line.run()
    for name in ("IMG_1.JPG", "IMG_1.xmp"):
        os.utime(line.config.inbox / name, (1, 1))
    line.run()
    line.restart()
    line.run()

    assert (places(line, "IMG_1"), files_below(line.config.inbox)) == ({}, before)
    assert line.counts() == {"seen": 8, "sorted": 6, "undone": 2}
    undo_by(line)
    line.run()
    assert (line.files(), line.counts()) == (sorted_files, counts)


def test_undo_brings_both_back_across_filesystems(
    tmp_path: Path, make_line: Callable[..., Line]
) -> None:
    with tmpfs(tmp_path / "target"):
        line = make_line()
        jpeg(line, "IMG_1.JPG")
        line.put("IMG_1.MOV", MOV * 100_000)
        before = sums(line.config.inbox)
        line.run()
        there = together(line, "IMG_1", "IMG_1.JPG", "IMG_1.MOV")

        undo_by(line)
        line.run()

        assert there
        assert sums(line.config.inbox) == before
        assert line.counts() == {"seen": 8, "sorted": 6, "undone": 2}
        line.close()
        line._open = lambda: None  # type: ignore[method-assign]


def test_a_late_companion_comes_back_with_its_pictures_batch(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    batch = line.run()[1].batch
    jpeg(line, "later.png")
    line.run()
    line.put("IMG_1.MOV", MOV)
    line.run()

    report = undo_by(line, UndoChoice(batch=batch))
    line.run()

    assert (report["returned"], report["left"]) == (2, [])
    assert inbox(line) == {"IMG_1.JPG", "IMG_1.MOV"}


def test_a_picture_edited_after_an_undo_is_sorted_with_its_companion(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    line.put("IMG_1.xmp", XMP)
    line.run()
    undo_by(line)
    line.run()
    jpeg(line, "IMG_1.JPG", GREEN, 9)

    line.run()

    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.xmp")
    assert line.counts() == {"seen": 8, "sorted": 7, "companions": 1}


def test_a_refit_that_moves_pictures_moves_their_companions_and_undo_both(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    for name, colour in (("R", RED), ("G", GREEN), ("B", BLUE)):
        jpeg(line, f"{name}.JPG", colour)
        line.put(f"{name}.xmp", XMP + name.encode())
    line.run()
    before = line.files()

    report = line.refit(1)

    assert report.companions == 2
    assert len({Path(name).parent for name in line.files()}) == 1
    assert set(line.files().values()) == set(before.values())
    line.run()
    undo_by(line)
    assert line.files() == before
    undo_by(line)
    line.run()
    assert len({Path(name).parent for name in line.files()}) == 1


def test_a_companion_whose_own_move_is_open_is_not_planned_twice(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    line.put("IMG_1.xmp", XMP)
    line.run()
    line.fit(3)
    moves, hands = line.library.moves, line.store.hands
    with line.store.atomic():
        planner, planned = moves.planner(line.library.in_force.fit_id), []
        for name in sorted(places(line, "IMG_1")):
            [file_id] = line.store.connection.execute(
                "SELECT id FROM files WHERE src = ?", (name.encode(),)
            ).fetchone()
            row = hands.file(file_id)
            assert row is not None
            stamp = look(line.config.target, row.dst)
            assert stamp is not None
            route = Route(file_id, row.state, b"elsewhere")
            planned.append(planner.within(Candidate(file_id, row.dst, stamp), row.sha256, route))

    moves.make(planned[:1])

    assert [m.move_id for m in line.store.journal.unfinished()] == [planned[1].move_id]
    moves.recover()
    assert places(line, "IMG_1") == {"IMG_1.JPG": "elsewhere", "IMG_1.xmp": "elsewhere"}


def test_a_moved_group_finds_a_name_that_is_free_for_all_of_it(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    for name, colour in (("R", RED), ("G", GREEN), ("B", BLUE)):
        jpeg(line, f"{name}/IMG_1.JPG", colour)
        line.put(f"{name}/IMG_1.xmp", XMP + name.encode())
    line.run()
    pairs = {line.files()[n]: line.files()[n[:-3] + "JPG"] for n in line.files() if "xmp" in n}

    line.refit(1)

    files = line.files()
    assert pairs == {files[n]: files[n[:-3] + "JPG"] for n in files if "xmp" in n}
    assert len({Path(name).parent for name in files}) == 1


def test_companions_in_cluster_folders_are_known_and_missing_ones_told(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    line.put("IMG_1.xmp", XMP)
    line.run()

    whole = audit(line.store, line.config)
    next(line.config.target.rglob("IMG_1.xmp")).unlink()
    less = audit(line.store, line.config)

    assert (whole.missing, whole.foreign, whole.changed) == ([], [], [])
    assert [row.dst.rsplit(b"/")[-1] for row in less.missing] == [b"IMG_1.xmp"]


def test_after_a_lost_database_companions_are_companions_again(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    jpeg(line, "IMG_1.JPG")
    line.put("IMG_1.xmp", XMP)
    line.put("IMG_1.CR2", RAW)
    line.run()
    line.close()
    shutil.rmtree(line.config.state_dir)
    line._open()

    reconcile(line.store, line.config, audit(line.store, line.config), lambda *_: None)

    assert line.counts() == {"seen": 9, "sorted": 7, "companions": 2}
    assert audit(line.store, line.config).foreign == []
    line.put("IMG_1.MOV", MOV)  # of a folder of the inbox that nobody can tell any more
    assert line.read() == []
    line.follow()
    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.xmp", "IMG_1.CR2")
    assert [name for name, _ in line.store.control.left_alone()] == [b"IMG_1.MOV"]


@pytest.mark.parametrize("op", ["move", "copy"])
def test_a_picture_that_is_taken_in_again_keeps_the_folder_that_it_came_from(
    make_line: Callable[..., Line], op: str
) -> None:
    line = make_line(op=op)
    paint(line.config.inbox / "trip" / "late.png", RED, 99)
    line.process(line.read())
    rows = "SELECT id FROM files WHERE src = CAST('trip/late.png' AS BLOB)"
    with line.store.atomic():  # as in a copy of the database from before it was moved
        line.store.connection.execute(f"DELETE FROM moves WHERE file_id = ({rows})")
        line.store.connection.execute(
            "UPDATE files SET state = 'pending', dst = NULL, in_target = 0, target_id = NULL, "
            f"op = NULL, in_inbox = 1, cluster_id = NULL WHERE id = ({rows})"
        )

    reconcile(line.store, line.config, audit(line.store, line.config), lambda *_: None)
    line.put("trip/late.xmp", XMP)
    line.put("late.xmp", b"another one's")
    line.run()

    assert together(line, "late", "late.png", "late.xmp")
    assert "late.xmp" in inbox(line)
    assert line.counts() == {"seen": 8, "sorted": 7, "companions": 1}


def test_without_the_key_nothing_goes_along(make_line: Callable[..., Line]) -> None:
    line = make_line(companions=[])
    line.put("IMG_1.xmp", XMP)
    jpeg(line, "IMG_1.JPG")

    line.run()

    assert inbox(line) == {"IMG_1.xmp"}


def test_a_list_of_extensions_is_no_bar_to_companions(make_line: Callable[..., Line]) -> None:
    line = make_line(extensions=[".jpg", ".png"])
    line.put("IMG_1.xmp", XMP)
    line.put("IMG_1.txt", b"text")
    jpeg(line, "IMG_1.JPG")

    line.run()

    assert inbox(line) == {"IMG_1.txt"}
    assert together(line, "IMG_1", "IMG_1.JPG", "IMG_1.xmp")


# --- with the daemon --------------------------------------------------------------------


def drop_groups(one: Inbox, count: int, draw: random.Random) -> None:
    """Write pictures with a raw file, a sidecar and a film each into the inbox, in any order."""
    made = one.folder / "groups"
    files = paint_groups(made, count, ".jpg", seed=draw.randrange(1 << 20))
    for picture in list(files):
        for ending, data in ((".CR2", RAW), (".xmp", XMP), (".MOV", MOV)):
            path = picture.with_suffix(ending)
            path.write_bytes(data + (b"" if ending == ".xmp" else picture.name.encode()))
            files.append(path)
    draw.shuffle(files)
    for path in files:
        one.bring(path, path.name)


def groups(one: Inbox) -> dict[str, set[str]]:
    """Return the folders that the files of each stem stand in."""
    found: dict[str, set[str]] = {}
    for path in each_file_below(one.target):
        found.setdefault(path.stem, set()).add(path.parent.name)
    return found


def test_a_daemon_killed_once_keeps_groups_together_and_undo_brings_all_back(
    make: Callable[..., Inbox],
) -> None:
    one = make()
    one.daemon.start()
    one.daemon.wait_ready()

    drop_groups(one, 10, random.Random(5))
    wait_until(lambda: any(one.target.rglob("*.jpg")), what="the first pictures sorted")
    one.daemon.stop(9)
    one.daemon.start()
    one.wait_sorted()

    one.check()
    assert one.status().counts["companions"] == 90
    assert {len(folders) for folders in groups(one).values()} == {1}
    assert len(groups(one)) == 30
    done = quick_cli("undo", one, "--since", "1h", "--json")
    assert json.loads(done.stdout)["left"] == []
    assert sums(one.inbox) == one.dropped
    assert one.status().counts["undone"] == 120
    quick_cli("undo", one, "--since", "1h")


def test_one_run_from_cron_brings_companions_along(make: Callable[..., Inbox]) -> None:
    one = make()
    drop_groups(one, 3, random.Random(6))

    done = quick_cli("run", one, "--once")

    assert done.returncode == 0, done.stderr
    one.check()
    assert {len(folders) for folders in groups(one).values()} == {1}


def test_sort_copies_companions_along_and_a_second_run_only_what_is_new(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for picture in paint_groups(source, 3, ".jpg"):
        picture.with_suffix(".xmp").write_bytes(XMP)
    job = SortJob(source, target, 3, Op.COPY, None, True, 42, dry_run=False)
    config = make_config(tmp_path, inbox=str(source), target=str(target), op="copy")

    first = sort_folder(job, config, ColourExtractor(), lambda *_: None)
    (source / "red-0.CR2").write_bytes(RAW)
    second = sort_folder(job, config, ColourExtractor(), lambda *_: None)

    assert (first.sorted, first.companions, second.companions) == (9, 9, 1)
    assert [first.set_aside, second.set_aside] == [[], []]
    assert sums(target) == sums(source)
    stems: dict[str, set[Path]] = {}
    for path in target.rglob("*.*"):
        stems.setdefault(path.stem, set()).add(path.parent)
    assert {len(stems[stem]) for stem in stems if "-" in stem} == {1}
