"""Pictures are put where a person says, and pinned; those that were set aside are read again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import warm
from imgsortd.daemon.here import ask_daemon, undo
from imgsortd.daemon.requests import Desk
from imgsortd.errors import RequestError
from imgsortd.moves.roots import MARKER
from imgsortd.moves.undo import UndoChoice
from imgsortd.store.database import open_for_reading
from inboxes import Inbox
from line import Line, do_alone
from support import (
    BLUE,
    RED,
    decisions_of,
    fits_of,
    make_config,
    paint,
    paint_groups,
    sums,
    wait_until,
    watch_of,
)


class Bench:
    """A line with nine pictures sorted, three a colour, and what the daemon does for a person."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder, self.changes = folder, {"settle_s": 0, **changes}
        self.line = Line(folder, **changes)
        self.target, self.inbox = self.line.config.target, self.line.config.inbox
        self.now_s = 0.0
        paint_groups(self.inbox, 3)
        self.line.run()
        self.begin()

    def begin(self) -> None:
        library = self.line.library
        self.watch = watch_of(library)
        fits, decisions = fits_of(library), decisions_of(library)
        self.desk = Desk(library, self.line.intake, fits, decisions, lambda *_: None)
        self.look()

    def restart(self) -> None:
        self.line.restart()
        self.begin()

    def look(self, times: int = 4) -> None:
        for _ in range(times):
            self.now_s += 100
            self.watch.step(self.now_s)

    def ask(self, verb: str, **params: Any) -> int:
        with self.line.store.atomic():
            return self.line.store.control.ask(verb, params)

    def answer(self, request: int) -> dict[str, Any]:
        found = self.line.store.control.request(request)
        assert found.state in ("done", "failed")
        return found.result

    def do(self, verb: str, **params: Any) -> dict[str, Any]:
        request = self.ask(verb, **params)
        self.desk.step("")
        self.line.now_s = time.monotonic() + 100
        return self.answer(request)

    def place(self, *names: str, **to: Any) -> dict[str, Any]:
        return self.do("place", files=[self.id(name) for name in names], to=to)

    def undo(self, batch: int | None = None) -> dict[str, Any]:
        self.line.close()
        try:
            return undo(self.line.config, UndoChoice(batch), dry_run=False)
        finally:
            self.line._open()
            self.begin()

    def id(self, name: str) -> int:
        (file_id,) = self.line.store.connection.execute(
            "SELECT id FROM files WHERE src = ? ORDER BY id DESC", (os.fsencode(name),)
        ).fetchone()
        return int(file_id)

    def row(self, name: str) -> tuple[Any, ...]:
        dst, *rest = self.line.store.connection.execute(
            "SELECT dst, state, cluster_id, distance, reason FROM files WHERE id = ?",
            (self.id(name),),
        ).fetchone()
        return (None if dst is None else os.fsdecode(dst), *rest)

    def place_of(self, name: str) -> str | None:
        place: str | None = self.row(name)[0]
        return place

    def cluster(self, colour: str) -> int:
        return int(self.row(f"{colour}-0.png")[2])

    def pins(self) -> list[int | None]:
        return sorted(self.line.store.pins.all().values(), key=str)

    def all_pins(self) -> list[tuple[Any, ...]]:
        return self.line.store.connection.execute("SELECT * FROM pins ORDER BY sha256").fetchall()

    def allow(self, megapixels: float) -> None:
        """Read pictures of this size from now on, as after a reload of the configuration."""
        changes = {**self.changes, "pictures": {"max_megapixels": megapixels}}
        self.line.config = make_config(self.folder, **changes)
        self.restart()

    def drop_large(self, name: str, seed: int = 900) -> None:
        """Let a picture come that is too large, with all that is with it."""
        self.allow(0.1)
        paint(self.inbox / name, BLUE, seed, size=400)
        self.line.run()
        assert self.row(name)[1] == "set_aside"

    def break_picture(self, name: str) -> Path:
        """Put a file into the inbox that is no picture, and let it be set aside."""
        path = self.line.put(name, b"\xff\xd8\xff no picture of " + name.encode())
        self.line.patience_s = 0
        self.line.run()
        assert self.row(name)[1] == "set_aside"
        return path


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**changes: Any) -> Bench:
        made.append(Bench(tmp_path, **changes))
        return made[-1]

    yield make
    for bench in made:
        bench.line.close()


def test_a_placed_picture_is_what_a_dragged_one_is(make: Callable[..., Bench]) -> None:
    bench = make()
    green = bench.cluster("green")
    folder = bench.target / f"cluster_{green}"
    (bench.target / str(bench.place_of("red-1.png"))).rename(folder / "red-1.png")
    bench.look()

    answer = bench.place("red-2.png", cluster=green)
    bench.look()

    assert answer == {
        "placed": 1,
        "batch": answer["batch"],
        "cluster": green,
        "folder": f"cluster_{green}",
        "left": [],
    }
    assert bench.place_of("red-2.png") == f"cluster_{green}/red-2.png"
    assert bench.row("red-2.png")[1:] == bench.row("red-1.png")[1:]
    assert bench.pins() == [green, green]
    assert bench.line.counts() == {"seen": 9, "sorted": 9}


def test_review_and_a_folder_of_ones_own_pin_out_of_every_cluster(
    make: Callable[..., Bench],
) -> None:
    bench = make()

    review = bench.place("red-1.png", review=True)
    own = bench.place("green-1.png", folder="Mine")
    bench.look()

    assert (review["cluster"], review["folder"]) == (None, "_review")
    assert (own["cluster"], own["folder"]) == (None, "Mine")
    assert bench.row("red-1.png")[:3] == ("_review/red-1.png", "review", None)
    assert bench.row("green-1.png")[:3] == ("Mine/green-1.png", "sorted", None)
    assert bench.pins() == [None, None]


def test_the_third_picture_makes_a_folder_a_cluster_and_undo_gives_all_pins_back(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    before = bench.line.files()
    bench.place("red-1.png", folder="Mine")
    bench.look()
    rest = bench.place("green-1.png", "blue-1.png", folder="Mine")
    bench.look()
    assert bench.row("red-1.png")[:3] == ("Mine/red-1.png", "sorted", 3)
    assert bench.pins() == [3, 3, 3]
    by_name = bench.place("blue-2.png", folder="Mine")
    assert by_name["cluster"] == 3

    undone = [bench.undo(step["batch"]) for step in (by_name, rest)]
    after = (bench.pins(), bench.place_of("blue-1.png"))
    again = bench.undo(undone[1]["made"][0])

    assert [step["left"] for step in undone] == [[], []]
    assert after == ([3], f"cluster_{bench.cluster('blue')}/blue-1.png")
    assert again["placed"] == rest["placed"] == 2
    assert bench.row("green-1.png")[:3] == ("Mine/green-1.png", "sorted", 3)
    assert bench.pins() == [3, 3, 3]
    assert sums(bench.target) == dict.fromkeys(sums(bench.target), 1)
    assert len(bench.line.files()) == len(before)


def test_undo_brings_a_picture_back_with_the_pin_and_the_state_it_had(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    red, green, blue = (bench.cluster(colour) for colour in ("red", "green", "blue"))
    first = bench.row("red-1.png")
    steps = [
        bench.place("red-1.png", cluster=green),
        bench.place("red-1.png", review=True),
        bench.place("red-1.png", cluster=blue),
    ]
    second = bench.undo(steps[0]["batch"])
    assert second["left"][0]["reason"] == f"moved again since: undo batch {steps[2]['batch']} first"

    seen = []
    for step in reversed(steps):
        assert bench.undo(step["batch"])["left"] == []
        seen.append((bench.row("red-1.png")[1:3], bench.pins()))

    assert seen == [(("review", None), [None]), (("sorted", green), [green]), (("sorted", red), [])]
    assert bench.row("red-1.png") == first
    assert bench.undo()["placed"] == 1
    assert (bench.row("red-1.png")[2], bench.pins()) == (green, [green])
    assert bench.undo()["placed"] == 1
    assert (bench.row("red-1.png"), bench.pins()) == (first, [])


def test_undo_and_its_undo_give_back_the_pins_with_their_times(make: Callable[..., Bench]) -> None:
    bench = make()
    green, blue = bench.cluster("green"), bench.cluster("blue")
    bench.place("red-1.png", cluster=green)
    bench.place("green-1.png", review=True)
    first = bench.all_pins()
    bench.place("red-1.png", "red-2.png", "green-1.png", cluster=blue)
    second = bench.all_pins()

    bench.undo()
    undone = bench.all_pins()
    bench.undo()

    assert undone == first
    assert bench.all_pins() == second


def test_a_dragged_picture_that_is_placed_goes_back_to_where_it_was_dragged(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    (bench.target / "Mine").mkdir()
    path = bench.target / str(bench.place_of("red-1.png"))
    path.rename(bench.target / "Mine" / "red-1.png")
    bench.look()
    dragged = bench.row("red-1.png")

    bench.place("red-1.png", cluster=bench.cluster("blue"))
    bench.undo()

    assert bench.row("red-1.png") == dragged
    assert bench.pins() == [None]


def test_a_folder_that_became_a_cluster_meanwhile_takes_what_an_undo_brings_back(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.place("red-0.png", folder="Mine")
    away = bench.place("red-0.png", cluster=bench.cluster("blue"))
    bench.place("red-1.png", "green-1.png", "blue-1.png", folder="Mine")
    bench.look()

    bench.undo(away["batch"])

    assert bench.row("red-0.png")[:3] == ("Mine/red-0.png", "sorted", 3)
    assert bench.pins() == [3, 3, 3, 3]


def test_a_pin_that_speaks_of_a_copy_placed_since_outlives_an_undo(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    green, blue = bench.cluster("green"), bench.cluster("blue")
    shutil.copy(bench.target / str(bench.place_of("red-1.png")), bench.inbox / "twin.png")
    bench.line.run()
    first = bench.place("red-1.png", cluster=green)
    bench.place("twin.png", cluster=blue)
    assert bench.row("twin.png")[1] == "duplicate"

    bench.undo(first["batch"])

    assert bench.pins() == [blue]


def test_what_cannot_be_placed_is_left_with_its_reason(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.break_picture("bad.jpg")
    green = bench.cluster("green")
    (bench.target / str(bench.place_of("red-0.png"))).unlink()
    before = bench.line.files()

    answer = bench.do(
        "place",
        files=[bench.id(n) for n in ("bad.jpg", "red-0.png")] + [999],
        to={"cluster": green},
    )

    assert (answer["placed"], answer["batch"]) == (0, None)
    assert [(file["id"], file["reason"]) for file in answer["left"]] == [
        (bench.id("bad.jpg"), "it is set aside"),
        (bench.id("red-0.png"), "its owner has moved it since"),
        (999, "there is no such file"),
    ]
    assert bench.line.files() == before
    assert bench.pins() == []


def test_a_picture_that_is_there_already_is_pinned_there_without_a_move(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    green, before = bench.cluster("green"), bench.line.files()
    wanted = {"files": [bench.id("green-1.png")], "to": {"cluster": green}}

    first = bench.do("place", **wanted)
    second = bench.do("place", **wanted)

    assert (first["placed"], first["batch"], first["left"]) == (1, None, [])
    assert (second["placed"], second["batch"]) == (0, None)
    assert [file["reason"] for file in second["left"]] == ["it is there already"]
    assert len(bench.pins()) == 1
    assert bench.line.files() == before


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "place takes files and to"),
    ({"files": [1], "to": {"review": True}, "more": 1}, "place takes files and to"),
    ({"files": [], "to": {"review": True}}, "files must name 1 to 5,000 files, got 0"),
    ({"files": [1] * 5001, "to": {"review": True}}, "5,001"),
    ({"files": [True], "to": {"review": True}}, "a list of file numbers"),
    ({"files": [2**63], "to": {"review": True}}, "a list of file numbers"),
    ({"files": "1", "to": {"review": True}}, "a list of file numbers"),
    ({"files": [1], "to": {"review": False}}, '"to" must be'),
    ({"files": [1], "to": {"cluster": "7"}}, '"to" must be'),
    ({"files": [1], "to": {"cluster": 7, "review": True}}, '"to" must be'),
    ({"files": [1], "to": {"cluster": 77}}, "there is no cluster 77"),
    ({"files": [1], "to": {"cluster": -1}}, "there is no cluster -1"),
    ({"files": [1], "to": {"folder": ""}}, "must not be empty"),
    ({"files": [1], "to": {"folder": "a/b"}}, "without a slash"),
    ({"files": [1], "to": {"folder": ".hidden"}}, "must not begin with a dot"),
    ({"files": [1], "to": {"folder": "_set_aside"}}, "or an underscore"),
    ({"files": [1], "to": {"folder": "cluster_77"}}, "is the folder of cluster 77"),
    ({"files": [1], "to": {"folder": "x" * 256}}, "at most 255 bytes"),
    ({"files": [1], "to": {"folder": "\ud800"}}, "that can be written"),
    ({"files": [1], "to": {"folder": "a file"}}, "is no folder"),
]


def test_a_request_that_cannot_be_done_fails_with_a_text_and_moves_nothing(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    (bench.target / "a file").write_bytes(b"somebody's")
    before = bench.line.files()

    answers = [bench.do("place", **params)["error"] for params, _ in REFUSED]
    answers.append(bench.do("retry", files=[1], to={"review": True})["error"])

    texts = [*(text for _, text in REFUSED), "retry takes files"]
    assert [text for text, answer in zip(texts, answers, strict=True) if text not in answer] == []
    assert bench.line.files() == before
    assert sorted(path.name for path in bench.target.iterdir()) == [
        MARKER,
        "a file",
        *(f"cluster_{number}" for number in range(3)),
    ]


def test_a_name_means_the_cluster_that_has_it(make: Callable[..., Bench]) -> None:
    bench = make()
    red, blue = bench.cluster("red"), bench.cluster("blue")
    bench.line.library.folders.rename(blue, "Sky")

    by_name = bench.place("red-1.png", folder="Sky")
    by_number = bench.place("red-2.png", folder=f"cluster_{blue}")
    other = bench.place("green-1.png", folder=f"cluster_{red}")

    assert (by_name["cluster"], by_name["folder"]) == (blue, "Sky")
    assert (by_number["cluster"], by_number["folder"]) == (blue, "Sky")
    assert (other["cluster"], other["folder"]) == (red, f"cluster_{red}")
    assert sorted(os.listdir(bench.target / "Sky")) == [
        *(f"blue-{number}.png" for number in range(3)),
        "red-1.png",
        "red-2.png",
    ]


def test_a_name_that_is_taken_gets_a_number_and_nothing_is_overwritten(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    mine = bench.target / "Mine"
    mine.mkdir()
    (mine / "red-1.png").write_bytes(b"somebody's")

    bench.place("red-1.png", folder="Mine")

    assert bench.place_of("red-1.png") == "Mine/red-1-1.png"
    assert (mine / "red-1.png").read_bytes() == b"somebody's"


def test_companions_come_along_and_go_back(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.line.put("IMG_1.xmp", b"<xmp/>")
    paint(bench.inbox / "IMG_1.png", RED, 500)
    bench.line.run()
    before = bench.line.files()

    placed = bench.place("IMG_1.png", cluster=bench.cluster("blue"))
    blue = f"cluster_{bench.cluster('blue')}"
    there = {name for name in bench.line.files() if "IMG_1" in name}
    left = bench.place("IMG_1.xmp", cluster=bench.cluster("green"))["left"]
    undone = bench.undo()

    assert placed["placed"] == 1
    assert there == {f"{blue}/IMG_1.png", f"{blue}/IMG_1.xmp"}
    assert [file["reason"] for file in left] == ["it goes with its picture"]
    assert undone["placed"] == 2
    assert bench.line.files() == before
    assert bench.pins() == []


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink"])
def test_copies_and_links_are_placed_and_taken_back(make: Callable[..., Bench], op: str) -> None:
    bench = make(op=op)
    sources, before = sums(bench.inbox), bench.row("red-1.png")
    green = bench.cluster("green")

    bench.place("red-1.png", cluster=green)
    bench.look()
    placed = bench.target / f"cluster_{green}" / "red-1.png"
    is_link, data = placed.is_symlink(), placed.read_bytes()
    bench.undo()
    bench.line.run()

    assert is_link == (op == "symlink")
    assert data == (bench.inbox / "red-1.png").read_bytes()
    assert (bench.row("red-1.png"), bench.pins()) == (before, [])
    assert sums(bench.inbox) == sources
    assert bench.line.counts() == {"seen": 9, "sorted": 9}


def test_a_request_that_stops_half_way_is_finished_by_the_next_start(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    blue = bench.cluster("blue")
    request = bench.ask("place", files=[bench.id("red-1.png")], to={"cluster": blue})
    bench.line.library.mover.after_each = lambda: setattr(
        bench.line.library.mover, "stopping", lambda: True
    )

    bench.desk.step("")
    answer = bench.answer(request)
    bench.restart()
    bench.line.run()

    assert answer["left"][0]["reason"] == "not yet: it is tried again"
    assert bench.place_of("red-1.png") == f"cluster_{blue}/red-1.png"
    assert bench.pins() == [blue]


# ---- killed


def killed(bench: Bench, fault: str, function: Callable[..., Any], *arguments: Any) -> bool:
    """Do it in a process that dies at a fault point; return whether it did."""
    bench.line.close()
    environ = {"IMGSORTD_FAULT_POINT": fault}
    done = warm.call(function, bench.line.config, *arguments, environ=environ)
    bench.line._open()
    return done.returncode == -signal.SIGKILL


STEPS = ["planned", "folder_made", "opened", "renamed", "verified", "moves_synced", "closed"]


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        *(("move", fault) for fault in STEPS),
        *(
            pytest.param("symlink", fault, marks=pytest.mark.faults)
            for fault in ("planned", "renamed", "moves_synced", "closed")
        ),
    ],
)
def test_killed_while_it_places_the_next_start_has_it_there_and_pinned(
    make: Callable[..., Bench], op: str, fault: str
) -> None:
    bench = make(op=op)
    bench.line.put("red-1.xmp", b"<xmp/>")
    bench.line.run()
    before, file_id = sorted(bench.line.files().values()), bench.id("red-1.png")

    assert killed(bench, fault, do_alone, "place", {"files": [file_id], "to": {"folder": "Mine"}})
    bench.line.run()
    bench.begin()

    assert bench.row("red-1.png")[:3] == ("Mine/red-1.png", "sorted", None)
    assert bench.place_of("red-1.xmp") == "Mine/red-1.xmp"
    assert bench.pins() == [None]
    assert sorted(bench.line.files().values()) == before


@pytest.mark.parametrize("fault", STEPS)
def test_killed_while_a_placing_is_undone_the_next_start_has_it_back_and_its_pin(
    make: Callable[..., Bench], fault: str
) -> None:
    bench = make()
    green = bench.cluster("green")
    bench.place("red-1.png", cluster=green)
    pinned, before = bench.row("red-1.png"), sums(bench.target)
    bench.place("red-1.png", folder="Mine")

    assert killed(bench, fault, partial(undo, choice=UndoChoice(), dry_run=False))
    bench.line.run()
    bench.begin()

    assert bench.row("red-1.png") == pinned
    assert bench.pins() == [green]
    assert sums(bench.target) == before


# ---- retry


@pytest.mark.parametrize("op", ["move", "copy", "hardlink", "symlink"])
def test_a_retried_file_is_read_again_and_sorted_if_it_can_be(
    make: Callable[..., Bench], op: str
) -> None:
    bench = make(op=op)
    bench.drop_large("large.png")

    bench.allow(50)
    answer = bench.do("retry", files=[bench.id("large.png")])
    in_inbox, row = (bench.inbox / "large.png").exists(), bench.row("large.png")
    bench.line.run()

    assert answer == {"retried": 1, "batch": answer["batch"], "left": []}
    assert (in_inbox, row[:2]) == (True, (None, "pending"))
    assert bench.row("large.png")[1] == "sorted"
    assert bench.line.counts() == {"seen": 10, "sorted": 10}
    assert os.listdir(bench.target / "_set_aside") == []
    assert (bench.inbox / "large.png").exists() == (op != "move")


def test_a_retried_file_that_still_cannot_be_read_is_set_aside_again(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.drop_large("large.png")
    before, reason = bench.line.files(), bench.row("large.png")[4]

    for _ in range(2):
        bench.do("retry", files=[bench.id("large.png")])
        bench.line.run()

    assert (bench.line.files(), bench.row("large.png")[4]) == (before, reason)
    assert bench.line.counts() == {"seen": 10, "sorted": 9, "set_aside": 1}


def test_what_a_retry_led_to_is_undone_as_any_batch_and_a_retry_under_way_is_not(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    bench.drop_large("large.png")
    retried = bench.do("retry", files=[bench.id("large.png")])["batch"]

    early = bench.undo(retried)
    bench.allow(50)
    bench.line.run()
    late = bench.undo(retried)
    undone = bench.undo()
    bench.line.run()
    state = bench.row("large.png")[1]
    back = bench.undo(retried)

    assert [file["reason"] for file in early["left"]] == [
        "it is read again; undo the batch that sorts it"
    ]
    assert [file["reason"] for file in late["left"]] == [
        f"moved again since: undo batch {retried + 1} first"
    ]
    assert (undone["returned"], state) == (1, "undone")
    assert back["placed"] == 1
    assert bench.row("large.png")[:2] == ("_set_aside/large.png", "set_aside")
    assert "megapixels" in bench.row("large.png")[4]


@pytest.mark.parametrize("op", ["move", "copy"])
def test_companions_of_a_retried_picture_follow_it_anew(
    make: Callable[..., Bench], op: str
) -> None:
    bench = make(op=op)
    bench.line.put("large.xmp", b"<xmp/>")
    bench.drop_large("large.png")
    assert "_set_aside/large.xmp" in bench.line.files()

    bench.allow(50)
    answer = bench.do("retry", files=[bench.id("large.png")])
    aside = os.listdir(bench.target / "_set_aside")
    bench.line.run()

    assert (answer["retried"], answer["left"], aside) == (1, [], [])
    folder = str(bench.place_of("large.png")).split("/")[0]
    assert bench.place_of("large.xmp") == f"{folder}/large.xmp"
    assert bench.line.counts() == {"seen": 11, "sorted": 10, "companions": 1}


def test_what_is_not_to_be_read_again_is_left_with_its_reason(make: Callable[..., Bench]) -> None:
    bench = make(duplicates="set_aside")
    bench.drop_large("large.png")
    bench.drop_large("gone.png", 901)
    shutil.copy(bench.target / str(bench.place_of("red-1.png")), bench.inbox / "twin.png")
    bench.line.run()
    (bench.target / "_set_aside" / "gone.png").unlink()
    stranger = bench.line.put("large.png", b"a stranger of that name")
    before = bench.line.files()

    ids = [bench.id(name) for name in ("gone.png", "twin.png", "red-1.png")]
    large = bench.line.store.connection.execute(
        "SELECT id FROM files WHERE src = ?", (b"large.png",)
    ).fetchone()[0]
    answer = bench.do("retry", files=[large, *ids, 999])

    assert (answer["retried"], answer["batch"]) == (0, None)
    assert [file["reason"] for file in answer["left"]] == [
        "its old name in the inbox is taken",
        "its owner has moved it since",
        "it was read: its bytes are there already",
        "it is not set aside (sorted)",
        "there is no such file",
    ]
    assert bench.line.files() == before
    assert stranger.read_bytes() == b"a stranger of that name"


def test_two_that_had_one_name_do_not_both_go_back_under_it(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.drop_large("large.png")
    first = bench.id("large.png")
    bench.drop_large("large.png", 901)
    before = sums(bench.target)

    answer = bench.do("retry", files=[first, bench.id("large.png")])
    bench.line.run()

    assert answer["retried"] == 1
    assert [file["reason"] for file in answer["left"]] == ["its old name in the inbox is taken"]
    assert sums(bench.target) == before


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        *(("move", fault) for fault in STEPS),
        *(
            pytest.param("copy", fault, marks=pytest.mark.faults)
            for fault in ("planned", "claimed", "claim_dropped", "closed")
        ),
    ],
)
def test_killed_while_it_retries_the_next_start_reads_the_file_again(
    make: Callable[..., Bench], op: str, fault: str
) -> None:
    bench = make(op=op)
    bench.line.put("large.xmp", b"<xmp/>")
    bench.drop_large("large.png")

    assert killed(bench, fault, do_alone, "retry", {"files": [bench.id("large.png")]})
    bench.allow(50)
    bench.line.run()

    assert bench.row("large.png")[1] == "sorted"
    folder = str(bench.place_of("large.png")).split("/")[0]
    assert bench.place_of("large.xmp") == f"{folder}/large.xmp"
    assert bench.line.counts() == {"seen": 11, "sorted": 10, "companions": 1}
    assert os.listdir(bench.target / "_set_aside") == []


# ---- the daemon itself


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Inbox]:
    """Return a daemon that has sorted nine pictures, and left out one that is too large."""
    one = Inbox(tmp_path, pictures={"max_megapixels": 0.1})
    one.drop(3)
    paint(one.inbox / "large.png", BLUE, 900, size=400)
    one.daemon.start()
    wait_until(
        lambda: (one.status().counts["sorted"], one.status().counts["set_aside"]) == (9, 1),
        what="sorted, and one set aside",
    )
    yield one
    if one.daemon.is_alive():
        one.daemon.stop()


def ask(one: Inbox, verb: str, **params: Any) -> dict[str, Any]:
    """Ask the daemon, as the page does, and wait for its answer."""
    return ask_daemon(one.config, verb, params, lambda _: None)


def known(one: Inbox) -> dict[str, tuple[int, str, int | None]]:
    """Return row, folder and pinned cluster (-1 where it is free) of each file in target."""
    store = open_for_reading(one.config.database)
    try:
        rows = store.connection.execute(
            "SELECT id, dst, CASE WHEN pins.sha256 IS NULL THEN -1 ELSE pins.cluster_id END "
            "FROM files LEFT JOIN pins USING (sha256) WHERE dst IS NOT NULL"
        ).fetchall()
    finally:
        store.close()
    found = ((row[0], *os.fsdecode(row[1]).split("/"), row[2]) for row in rows)
    return {name: (file_id, folder, pin) for file_id, folder, name, pin in found}


@pytest.mark.parametrize("fault", ["planned", "renamed", "closed"])
def test_a_daemon_killed_as_it_places_pictures_has_them_there_and_pinned_at_its_next_start(
    daemon: Inbox, fault: str
) -> None:
    one = daemon
    before = sums(one.target)
    assert one.daemon.stop() == 0
    one.daemon.start(IMGSORTD_FAULT_POINT=fault)
    one.daemon.wait_ready(2)
    ids = [file_id for name, (file_id, *_) in known(one).items() if "green" in name]

    with pytest.raises(RequestError, match="the daemon stopped before it was done"):
        ask(one, "place", files=ids, to={"folder": "Mine"})
    one.daemon.start()
    wait_until(lambda: "folder is a cluster now" in one.daemon.log, what="the cluster")
    undone = undo(one.config, UndoChoice(), dry_run=False)

    assert len(ids) == 3
    assert (undone["placed"], undone["left"]) == (3, [])
    assert sums(one.target) == before
    assert not list((one.target / "Mine").iterdir())
    assert {pin for _, _, pin in known(one).values()} == {-1}


def test_a_running_daemon_places_at_once_and_reads_again_what_it_may_read_after_a_reload(
    daemon: Inbox,
) -> None:
    one = daemon
    files = known(one)
    large, red = files["large.png"][0], files["10000-red-0.png"][0]

    placed = ask(one, "place", files=[red], to={"review": True})
    config = one.folder / "config.yaml"
    config.write_text(config.read_text().replace("max_megapixels: 0.1", "max_megapixels: 50"))
    one.daemon.send(signal.SIGHUP)
    wait_until(lambda: "reloaded" in one.daemon.log, what="the reload\n" + one.daemon.log)
    retried = ask(one, "retry", files=[large])
    wait_until(lambda: one.status().counts["sorted"] == 9, what="read again\n" + one.daemon.log)

    assert (placed["placed"], retried["retried"]) == (1, 1)
    assert known(one)["10000-red-0.png"] == (red, "_review", None)
    assert known(one)["large.png"][1] == known(one)["10000-blue-0.png"][1]
    assert one.status().counts["set_aside"] == 0
