"""What a person does in target is seen and kept: moved, renamed, deleted, and never moved back."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsortd.daemon.here import undo
from imgsortd.moves.undo import UndoChoice
from imgsortd.records import Choice, FitTrigger, Picture
from line import Line
from support import BLUE, GREEN, RED, paint, paint_groups, sums, watch_of
from synthetic import note_places


class Hand:
    """A line with nine pictures sorted, three a colour, and a person at its target."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.line = Line(folder, **changes)
        self.target = self.line.config.target
        self.now_s = 0.0
        paint_groups(self.line.config.inbox, 3)
        self.line.run()
        self.begin()

    def begin(self) -> None:
        self.watch = watch_of(self.line.library)
        self.look()

    def look(self, times: int = 4) -> None:
        """Let the daemon look, as often as it takes it to be sure."""
        for _ in range(times):
            self.now_s += 100
            self.watch.step(self.now_s)

    def restart(self) -> None:
        self.line.restart()
        self.watch = watch_of(self.line.library)

    def folder(self, colour: str) -> Path:
        """Return the folder that the pictures of a colour stand in."""
        (folder,) = {path.parent for path in self.target.rglob(f"{colour}-*.png")}
        return folder

    def number(self, colour: str) -> int:
        return int(self.folder(colour).name.removeprefix("cluster_"))

    def row(self, name: str) -> tuple[str, str, int | None]:
        """Return where the store has a picture: its place, state and cluster."""
        dst, state, cluster_id = self.line.store.connection.execute(
            "SELECT dst, state, cluster_id FROM files WHERE src = ? ORDER BY id DESC",
            (os.fsencode(name),),
        ).fetchone()
        return os.fsdecode(dst), state, cluster_id

    def drop(self, colour: tuple[int, int, int], name: str, seed: int) -> None:
        paint(self.line.config.inbox / name, colour, seed)
        self.line.run()

    def pins(self) -> dict[bytes, int | None]:
        return self.line.store.pins.all()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Hand]]:
    hands: list[Hand] = []

    def make(**changes: Any) -> Hand:
        hands.append(Hand(tmp_path, **changes))
        return hands[-1]

    yield make
    for hand in hands:
        hand.line.close()


def drag(path: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return path.rename(folder / path.name)


def test_nothing_done_is_nothing_seen(make: Callable[..., Hand]) -> None:
    hand = make()
    before = hand.line.files()

    hand.look()

    assert (hand.line.files(), hand.pins()) == (before, {})
    assert hand.line.counts() == {"seen": 9, "sorted": 9}


def test_a_picture_dragged_to_another_cluster_is_pinned_there(
    make: Callable[..., Hand], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    hand = make()
    green = hand.folder("green")

    drag(hand.folder("red") / "red-1.png", green)
    hand.look()

    number = int(green.name.removeprefix("cluster_"))
    assert hand.row("red-1.png") == (f"{green.name}/red-1.png", "sorted", number)
    assert list(hand.pins().values()) == [number]
    assert caplog.text.count("moved by its owner files=1") == 1


def test_a_pinned_picture_is_left_by_a_refit_that_moves_others(make: Callable[..., Hand]) -> None:
    hand = make()
    red, green = hand.folder("red"), hand.folder("green")
    drag(red / "red-1.png", green)
    hand.look()

    report = hand.line.refit(3)
    hand.look()

    assert report.images == 0
    assert (green / "red-1.png").exists()


def test_what_is_dragged_to_review_stays_out_of_every_cluster(make: Callable[..., Hand]) -> None:
    hand = make()
    drag(hand.folder("red") / "red-1.png", hand.target / "_review")

    hand.look()
    hand.line.refit(3)

    assert hand.row("red-1.png") == ("_review/red-1.png", "review", None)
    assert list(hand.pins().values()) == [None]
    assert (hand.target / "_review" / "red-1.png").exists()


def test_the_same_bytes_that_come_again_go_where_they_are_pinned(make: Callable[..., Hand]) -> None:
    hand = make()
    green = hand.folder("green")
    moved = drag(hand.folder("red") / "red-1.png", green)
    hand.look()

    shutil.copy(moved, hand.line.config.inbox / "again.png")
    hand.line.run()

    assert (green / "again.png").exists()


def test_pictures_like_a_pinned_one_follow_it_at_once(make: Callable[..., Hand]) -> None:
    hand = make()
    yellow = (150, 110, 30)
    hand.drop(yellow, "first.png", 70)
    before = Path(hand.row("first.png")[0]).parent.name
    blue = hand.folder("blue")
    assert before != blue.name
    drag(hand.target / before / "first.png", blue)
    hand.look()

    hand.drop(yellow, "second.png", 71)
    hand.drop(RED, "other.png", 72)

    assert hand.row("second.png")[0] == f"{blue.name}/second.png"
    assert hand.row("other.png")[0] == f"{hand.folder('red').name}/other.png"
    model = hand.line.library.in_force.model
    assert model is not None
    assert len(model.centers) == 3  # the fit itself is as it was
    hand.line.store.pins.remove(list(hand.pins()))
    hand.drop(yellow, "third.png", 73)
    assert hand.row("third.png")[0] == f"{before}/third.png"


def test_two_equal_pictures_are_told_apart_by_where_they_went(make: Callable[..., Hand]) -> None:
    hand = make()
    red, green, blue = (hand.folder(name) for name in ("red", "green", "blue"))
    shutil.copy(red / "red-1.png", hand.line.config.inbox / "twin.png")
    hand.line.run()
    assert (red / "twin.png").exists()

    drag(red / "red-1.png", green)
    drag(red / "twin.png", blue)
    hand.look()

    assert hand.row("red-1.png")[0] == f"{green.name}/red-1.png"
    assert hand.row("twin.png")[0] == f"{blue.name}/twin.png"
    assert hand.line.counts() == {"seen": 10, "sorted": 9, "duplicates": 1}


def test_three_pictures_in_a_new_folder_are_a_cluster(make: Callable[..., Hand]) -> None:
    hand = make()
    base = hand.line.store.records.base()
    for colour in ("red", "green", "blue"):
        drag(hand.folder(colour) / f"{colour}-1.png", hand.target / "Mine")
    hand.look()

    assert hand.row("red-1.png") == ("Mine/red-1.png", "sorted", 3)
    assert hand.line.store.records.named_folders() == {3: b"Mine"}
    assert set(hand.pins().values()) == {3}
    grey = tuple(sum(parts) // 3 for parts in zip(RED, GREEN, BLUE, strict=True))
    hand.drop((grey[0], grey[1], grey[2]), "grey.png", 80)
    assert hand.row("grey.png") == ("Mine/grey.png", "sorted", 3)
    record = hand.line.store.fits.current_record()
    assert record is not None
    assert record.trigger is FitTrigger.FOLDER
    assert hand.line.store.records.base() == base  # no trigger starts anew


def test_two_pictures_in_a_new_folder_stay_there_and_are_no_cluster(
    make: Callable[..., Hand],
) -> None:
    hand = make()
    for colour in ("red", "green"):
        drag(hand.folder(colour) / f"{colour}-1.png", hand.target / "Mine")
    hand.look()
    hand.line.refit(3)
    hand.restart()
    hand.look()

    assert hand.row("red-1.png") == ("Mine/red-1.png", "sorted", None)
    assert sorted(path.name for path in (hand.target / "Mine").iterdir()) == [
        "green-1.png",
        "red-1.png",
    ]
    drag(hand.folder("blue") / "blue-1.png", hand.target / "Mine")
    hand.look()
    assert hand.row("red-1.png") == ("Mine/red-1.png", "sorted", 3)


def test_a_folder_made_with_a_number_gets_that_number(make: Callable[..., Hand]) -> None:
    hand = make()
    for name in ("red-0.png", "red-1.png", "red-2.png"):
        drag(hand.target / hand.row(name)[0], hand.target / "cluster_12")
    hand.look()

    assert hand.row("red-1.png") == ("cluster_12/red-1.png", "sorted", 12)
    assert hand.line.store.fits.next_cluster_id() == 13


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink"])
def test_a_deleted_copy_is_not_made_again(make: Callable[..., Hand], op: str) -> None:
    hand = make(op=op)
    (hand.target / hand.row("red-1.png")[0]).unlink()
    source = hand.line.config.inbox / "red-1.png"

    hand.look()
    assert hand.line.counts() == {"seen": 8, "sorted": 8}
    os.utime(source, (1, 1))
    hand.line.run()
    hand.restart()
    hand.line.run()
    source.rename(source.with_name("x.part"))
    source.with_name("x.part").rename(source)
    hand.line.run()

    assert hand.line.counts() == {"seen": 8, "sorted": 8}
    assert not list(hand.target.rglob("red-1.png"))
    hand.drop(RED, "red-1.png", 99)  # other bytes of that name are another picture
    assert len(list(hand.target.rglob("red-1.png"))) == 1


def test_a_copy_deleted_before_anyone_looked_is_not_made_again(make: Callable[..., Hand]) -> None:
    hand = make(op="copy")
    (hand.target / hand.row("red-1.png")[0]).unlink()

    os.utime(hand.line.config.inbox / "red-1.png", (1, 1))
    hand.line.run()

    assert not list(hand.target.rglob("red-1.png"))


def test_a_deleted_picture_brought_again_is_sorted(make: Callable[..., Hand]) -> None:
    hand = make(op="copy")
    where = hand.target / hand.row("red-1.png")[0]
    data = where.read_bytes()
    where.unlink()
    (hand.line.config.inbox / "red-1.png").unlink()
    hand.look()
    hand.line.run()

    hand.line.put("red-1.png", data)
    hand.line.run()

    assert where.read_bytes() == data


@pytest.mark.parametrize("op", ["move", "copy", "symlink"])
def test_a_picture_cut_now_and_pasted_later_is_found_again(
    make: Callable[..., Hand], op: str
) -> None:
    hand = make(op=op)
    green, away = hand.folder("green"), hand.target.parent / "away"
    moved = drag(hand.folder("red") / "red-1.png", away)
    hand.look(1)
    assert hand.line.counts() == {"seen": 9, "sorted": 9}
    hand.look()
    assert hand.line.counts() == {"seen": 8, "sorted": 8}
    hand.restart()
    hand.look()

    drag(moved, green)
    hand.look()
    hand.line.run()

    assert hand.row("red-1.png")[:2] == (f"{green.name}/red-1.png", "sorted")
    assert len(hand.pins()) == 1
    assert hand.line.counts() == {"seen": 9, "sorted": 9}


def test_an_unknown_file_is_left_and_nothing_is_guessed(make: Callable[..., Hand]) -> None:
    hand = make()
    red = hand.folder("red")
    paint(red / "stranger.png", RED, 55)
    (hand.target / "Notes").mkdir()
    (hand.target / "Notes" / "note.txt").write_text("note")
    before = hand.line.files()

    hand.look()

    assert hand.line.files() == before
    assert hand.line.counts() == {"seen": 9, "sorted": 9}
    assert hand.pins() == {}


def test_a_target_that_is_not_mounted_is_no_deletion(make: Callable[..., Hand]) -> None:
    hand = make()
    away = hand.target.with_name("away")
    hand.target.rename(away)
    hand.look()
    hand.target.mkdir()
    hand.look()
    assert hand.line.counts() == {"seen": 9, "sorted": 9}

    hand.target.rmdir()
    away.rename(hand.target)
    hand.look()

    assert hand.line.counts() == {"seen": 9, "sorted": 9}
    assert hand.pins() == {}


def test_a_renamed_folder_is_the_same_cluster(make: Callable[..., Hand]) -> None:
    hand = make()
    number, red = hand.number("red"), hand.folder("red")
    red.rename(hand.target / "Tomatoes")
    hand.look()

    assert hand.row("red-1.png") == ("Tomatoes/red-1.png", "sorted", number)
    assert hand.pins() == {}
    hand.drop(RED, "red-9.png", 60)
    assert hand.row("red-9.png") == ("Tomatoes/red-9.png", "sorted", number)
    assert not red.exists()


def test_a_batch_planned_before_a_rename_goes_to_the_new_folder(make: Callable[..., Hand]) -> None:
    hand = make()
    red = hand.folder("red")
    paint(hand.line.config.inbox / "red-9.png", RED, 60)
    results = hand.line.read()

    red.rename(hand.target / "Tomatoes")
    hand.line.process(results)

    assert (hand.target / "Tomatoes" / "red-9.png").exists()
    assert not red.exists()


def test_a_folder_renamed_while_the_daemon_was_dead_is_followed_before_open_moves(
    make: Callable[..., Hand],
) -> None:
    hand = make()
    red, store = hand.folder("red"), hand.line.store
    paint(hand.line.config.inbox / "red-9.png", RED, 60)
    (result,) = hand.line.read()
    assert isinstance(result, Picture)
    library = hand.line.library
    with store.atomic():  # the crash comes between the plan and the deed
        store.files.set_read(result.candidate, result.sha256)
        planner = library.moves.planner(library.in_force.fit_id)
        planner.route(result.candidate, result.sha256, Choice(hand.number("red"), 0.1))
    red.rename(hand.target / "Tomatoes")
    hand.line.restart()

    hand.line.run()

    assert (hand.target / "Tomatoes" / "red-9.png").exists()
    assert not red.exists()


def test_a_folder_copied_and_removed_is_known_by_its_contents(make: Callable[..., Hand]) -> None:
    hand = make()
    number, red = hand.number("red"), hand.folder("red")
    shutil.copytree(red, hand.target / "Tomatoes")
    hand.look()
    shutil.rmtree(red)
    hand.look()

    assert hand.line.store.records.named_folders() == {number: b"Tomatoes"}
    assert hand.row("red-1.png") == ("Tomatoes/red-1.png", "sorted", number)
    assert hand.pins() == {}


def test_a_deleted_folder_is_made_anew_when_it_is_needed(make: Callable[..., Hand]) -> None:
    hand = make()
    red = hand.folder("red")
    shutil.rmtree(red)
    (hand.target / "New").mkdir()  # may get the inode that has become free
    hand.look()
    assert hand.line.counts() == {"seen": 6, "sorted": 6}

    hand.drop(RED, "red-9.png", 60)

    assert [path.name for path in red.iterdir()] == ["red-9.png"]
    assert hand.line.store.records.named_folders() == {}


def test_an_undo_leaves_what_its_owner_has_moved_and_says_so(make: Callable[..., Hand]) -> None:
    hand = make()
    green = hand.folder("green")
    red = hand.folder("red")
    drag(red / "red-1.png", green)
    hand.look()
    before = sums(hand.target)
    hand.line.close()

    report = undo(hand.line.config, UndoChoice(), dry_run=False)

    hand.line._open()
    assert report["left"] == [
        {"file": f"{red.name}/red-1.png", "reason": "its owner has moved it since"}
    ]
    assert report["returned"] == 8
    assert [path.name for path in green.iterdir()] == ["red-1.png"]
    assert sums(hand.target, hand.line.config.inbox) == before


def test_an_undo_finds_the_files_of_a_renamed_folder(make: Callable[..., Hand]) -> None:
    hand = make()
    hand.folder("red").rename(hand.target / "Tomatoes")
    hand.line.close()

    report = undo(hand.line.config, UndoChoice(), dry_run=False)
    again = undo(hand.line.config, UndoChoice(), dry_run=False)

    hand.line._open()
    assert (report["returned"], report["left"]) == (9, [])
    assert again["placed"] == 9
    assert len(list((hand.target / "Tomatoes").iterdir())) == 3


def test_a_name_that_a_retired_cluster_had_can_be_given_again(make: Callable[..., Hand]) -> None:
    hand = make()
    red, number = hand.folder("red"), hand.number("red")
    red.rename(hand.target / "Tomatoes")
    hand.look()
    for path in list((hand.target / "Tomatoes").iterdir()):
        drag(path, hand.folder("green"))
    hand.look()
    (hand.target / "Tomatoes").rmdir()
    with hand.line.store.atomic():  # a refit without it
        hand.line.store.connection.execute(
            "UPDATE clusters SET retired_fit = first_fit WHERE id = ?", (number,)
        )

    hand.folder("blue").rename(hand.target / "Tomatoes")
    hand.look()

    (owner,) = hand.line.store.records.named_folders()
    assert owner not in (number, hand.number("green"))
    hand.drop(BLUE, "blue-9.png", 61)
    assert hand.row("blue-9.png") == ("Tomatoes/blue-9.png", "sorted", owner)


def test_two_folders_that_swap_their_names_lose_nothing(make: Callable[..., Hand]) -> None:
    hand = make()
    red, green, before = hand.folder("red"), hand.folder("green"), sums(hand.target)
    red.rename(hand.target / "between")
    green.rename(red)
    (hand.target / "between").rename(green)

    hand.look(8)

    assert sums(hand.target) == before
    assert hand.line.counts() == {"seen": 9, "sorted": 9}
    number = int(green.name.removeprefix("cluster_"))
    assert hand.row("red-1.png") == (f"{green.name}/red-1.png", "sorted", number)


def test_a_file_renamed_in_its_folder_is_no_correction(make: Callable[..., Hand]) -> None:
    hand = make()
    red, number = hand.folder("red"), hand.number("red")
    (red / "red-1.png").rename(red / "ketchup.png")

    hand.look()

    assert hand.row("red-1.png") == (f"{red.name}/ketchup.png", "sorted", number)
    assert hand.pins() == {}


def test_a_file_that_is_still_written_is_not_judged(
    make: Callable[..., Hand], leases_allowed: None
) -> None:
    hand = make()
    green, source = hand.folder("green"), hand.folder("red") / "red-1.png"
    data = source.read_bytes()
    with open(green / "red-1.png", "wb") as file:
        file.write(data)
        file.flush()
        source.unlink()
        hand.look(2)
        assert hand.pins() == {}

    hand.look()

    assert hand.row("red-1.png")[0] == f"{green.name}/red-1.png"
    assert len(hand.pins()) == 1


def test_symlinks_and_special_files_in_target_are_left_alone(make: Callable[..., Hand]) -> None:
    hand = make()
    red, secret = hand.folder("red"), hand.target.parent / "secret"
    secret.mkdir()
    kept = drag(red / "red-1.png", secret)
    (hand.folder("green") / "red-1.png").symlink_to(kept)
    (hand.target / "Link").symlink_to(secret)
    os.mkfifo(hand.folder("blue") / "pipe")

    hand.look()

    assert hand.pins() == {}
    assert hand.line.counts() == {"seen": 8, "sorted": 8}


def test_names_that_are_not_text_are_followed(make: Callable[..., Hand]) -> None:
    hand = make()
    target = os.fsencode(hand.target)
    os.rename(os.fsencode(hand.folder("red")), target + b"/Urlaub \xff")
    hand.look()

    assert list(hand.line.store.records.named_folders().values()) == [b"Urlaub \xff"]
    hand.drop(RED, "red-9.png", 60)
    assert sorted(os.listdir(target + b"/Urlaub \xff"))[-1] == b"red-9.png"


def test_all_of_a_large_folder_dragged_to_another_is_followed(make: Callable[..., Hand]) -> None:
    hand = make()
    red, green = hand.folder("red"), hand.folder("green")
    with hand.line.store.atomic():  # a thousand rows and files, without sorting them
        for number in range(1000):
            data = b"%d" % number
            (red / f"{number}.jpg").write_bytes(data)
            hand.line.store.connection.execute(
                "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, cluster_id, "
                "dst, seen_at) VALUES (?, 0, ?, 0, ?, 'sorted', ?, ?, 0)",
                (
                    b"%d.jpg" % number,
                    len(data),
                    hashlib.sha256(data).digest(),
                    hand.number("red"),
                    os.fsencode(f"{red.name}/{number}.jpg"),
                ),
            )
        note_places(hand.line.store.connection)
    hand.look()
    before = sums(hand.target)

    for path in list(red.iterdir()):
        drag(path, green)
    hand.look(12)

    assert sums(hand.target) == before
    assert hand.line.store.files.cluster_sizes()[int(green.name.removeprefix("cluster_"))] == 1006
    assert len(hand.pins()) == 1003
