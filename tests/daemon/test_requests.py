"""The desk of the daemon's loop: in which order requests are answered, and when they wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imgsortd.daemon import requests as desk
from imgsortd.daemon.loop import Loop
from imgsortd.daemon.pausing import Pause
from imgsortd.errors import NoSpaceError
from imgsortd.inbox.watching import Watcher
from imgsortd.library import open_library
from imgsortd.records import FileState, Move, Op, Root, Route, Stamp
from imgsortd.refits import background
from imgsortd.store.control import Request
from imgsortd.web import api
from line import Line
from support import TurnedColours, paint_groups, wait_until

REVIEW = {"to": {"review": True}}


class Office:
    """The loop of a library of nine sorted pictures, three a colour, round by round."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.line = Line(folder, **changes)
        paint_groups(self.line.config.inbox, 3)
        self.line.run()
        self.store, self.control = self.line.store, self.line.store.control
        self.open()

    def open(self) -> None:
        """Make the loop, as a start does."""
        config, library = self.line.config, self.line.library
        watcher = Watcher(config.inbox, config.recursive)
        intake, reader = self.line.intake, self.line.reader
        self.loop = Loop(library, intake, watcher, reader, lambda: False, lambda *_: None)
        self.loop.prepare()

    def ask(self, verb: str, **params: Any) -> int:
        with self.store.atomic():
            return self.control.ask(verb, params)

    def place(self, name: str) -> int:
        """Ask for a picture to be put into review."""
        return self.ask("place", files=[self.id(name)], **REVIEW)

    def round(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop._round()

    def states(self, *requests: int) -> list[str]:
        return [self.control.request(request).state for request in requests]

    def answer(self, request: int) -> Request:
        """Let the loop work until a request is answered, and return its row."""

        def is_answered() -> bool:
            self.round()
            return self.control.request(request).state in ("done", "failed")

        wait_until(is_answered, what="the answer")
        return self.control.request(request)

    def error(self, request: int) -> str:
        """Let a request fail and return why."""
        failed = self.answer(request)
        assert failed.state == "failed"
        return str(failed.result["error"])

    def id(self, name: str) -> int:
        (file_id,) = self.store.connection.execute(
            "SELECT id FROM files WHERE src = ?", (os.fsencode(name),)
        ).fetchone()
        return int(file_id)

    def count(self, what: str) -> int:
        (count,) = self.store.connection.execute(f"SELECT count(*) FROM {what}").fetchone()
        return int(count)

    def lose_inbox(self) -> None:
        self.line.config.inbox.rename(self.line.config.inbox.with_name("away"))
        self._look()
        assert self.loop.held

    def find_inbox(self) -> None:
        self.line.config.inbox.with_name("away").rename(self.line.config.inbox)
        self._look()
        assert not self.loop.held

    def _look(self) -> None:
        self.loop._lookout._next_scan_s = 0.0
        self.round()


@pytest.fixture
def make(tmp_path: Path, hurried: None) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def make(**changes: Any) -> Office:
        made.append(Office(tmp_path, **changes))
        return made[-1]

    yield make
    for office in made:
        office.loop._fits.wait()
        office.loop.close()
        office.line.close()


@pytest.fixture
def fit_may_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let fits wait, once they are begun, until this is set."""
    real, may_end = background.compute_fit, threading.Event()

    def slow(*arguments: Any) -> Any:
        may_end.wait(20)
        return real(*arguments)

    monkeypatch.setattr(background, "compute_fit", slow)
    yield may_end
    may_end.set()


def fill_disk(
    monkeypatch: pytest.MonkeyPatch, office: Office, times: int
) -> list[tuple[int, str, dict[str, Any]]]:
    """Let so many answers find a full disk; return a list of those that are stored."""
    real, left, stored = office.control.answer, [times], []

    def answer(request_id: int, state: str, result: dict[str, Any]) -> None:
        if left[0]:
            left[0] -= 1
            raise NoSpaceError("the disk of state_dir is full")
        stored.append((request_id, state, result))
        real(request_id, state, result)

    monkeypatch.setattr(office.control, "answer", answer)
    return stored


# --- the order ------------------------------------------------------------------------


def test_pictures_are_placed_while_a_refit_waits_and_all_else_keeps_its_order(
    make: Callable[..., Office], fit_may_end: threading.Event
) -> None:
    office = make()
    first = office.ask("refit", n_clusters=2, dry_run=True)
    office.round(20)
    refit = office.ask("refit", n_clusters=1, dry_run=True)
    placed = [office.place("red-1.png"), office.ask("retry", files=[office.id("red-2.png")])]
    undo = office.ask("undo", batch=999)
    behind = [office.place("green-1.png"), office.ask("rename", cluster_id=0, name="Sky")]

    office.round(3)
    waiting = office.states(first, refit, *placed, undo, *behind)
    fit_may_end.set()
    ended = [office.answer(request) for request in (first, refit, undo, *behind)]

    assert waiting == ["taken", "new", "done", "done", "new", "new", "new"]
    assert [request.state for request in ended] == ["done", "done", "failed", "done", "done"]
    rows = office.store.connection.execute("SELECT id FROM requests ORDER BY done_at").fetchall()
    order = [number for (number,) in rows]
    assert order.index(undo) < order.index(behind[0]) < order.index(behind[1])


def test_what_comes_behind_a_refit_that_is_being_made_waits_for_nothing(
    make: Callable[..., Office], fit_may_end: threading.Event
) -> None:
    office = make()
    refit = office.ask("refit", n_clusters=2)
    office.round(20)
    renamed, freed = office.ask("rename", cluster_id=0, name="Sky"), office.ask("unpin", files={})
    rolled_back = office.ask("rollback")

    answers = [office.answer(request).state for request in (renamed, rolled_back)]

    assert answers == ["done", "failed"]
    assert office.states(refit, freed) == ["taken", "failed"]  # unpin takes more
    fit_may_end.set()
    assert office.answer(refit).state == "done"


def test_pictures_that_wait_are_placed_in_one_round_for_half_a_second_at_most(
    make: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    office = make()
    names = [f"{colour}-{number}.png" for colour in ("red", "green") for number in range(3)]
    requests = [office.place(name) for name in names[:4]]

    office.round()
    at_once = office.states(*requests)
    monkeypatch.setattr(desk, "_AT_ONCE_S", 0.0)
    requests = [office.place(name) for name in names[4:]]
    office.round()

    assert at_once == ["done"] * 4
    assert office.states(*requests) == ["done", "new"]


# --- no disk, no inbox, no fit ----------------------------------------------------------


def test_answers_survive_a_full_disk_and_nothing_is_done_twice(
    make: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    office = make()
    stored = fill_disk(monkeypatch, office, 3)
    placed, renamed = office.place("red-1.png"), office.ask("rename", cluster_id=0, name="Sky")
    undone, kept = office.ask("undo", batch=None), office.ask("keep", hashes=[], forget=False)
    refused = office.ask("accept", fit_id=None)
    moves = office.count("moves")

    answers = [
        office.answer(request).result for request in (placed, renamed, undone, kept, refused)
    ]

    assert answers[0]["placed"] == 1
    assert (answers[1]["from"], answers[1]["folder"]) == ("cluster_0", "Sky")
    assert answers[2]["placed"] == 1  # the picture, back from review
    assert (answers[3], "no proposal waits" in answers[4]["error"]) == ({"pairs": 0}, True)
    assert office.count("moves") == moves + 2
    assert sorted(number for number, *_ in stored) == [placed, renamed, undone, kept, refused]


def test_the_answer_of_a_refit_survives_a_full_disk_and_no_other_fit_is_made(
    make: Callable[..., Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    office = make()
    fits = office.count("fits")
    fill_disk(monkeypatch, office, 2)
    request = office.ask("refit", n_clusters=1, accept=True)

    answer = office.answer(request)

    assert (answer.state, answer.result["state"]) == ("done", "adopted")
    assert office.count("fits") == fits + 1


def test_without_an_inbox_an_undo_waits_and_all_behind_it(make: Callable[..., Office]) -> None:
    office = make()
    office.lose_inbox()
    undo = office.ask("undo", batch=None)
    behind = [office.place("red-1.png"), office.ask("rename", cluster_id=0, name="Sky")]

    office.round(5)
    waiting = office.states(undo, *behind)
    office.find_inbox()
    returned = office.answer(undo).result["returned"]

    assert waiting == ["new", "new", "new"]
    assert returned > 0
    assert office.answer(behind[1]).state == "done"


def test_without_an_inbox_a_retry_is_refused_and_what_is_in_target_is_done(
    make: Callable[..., Office],
) -> None:
    office = make()
    office.lose_inbox()
    lost = office.loop.held
    retried = office.ask("retry", files=[office.id("red-1.png")])
    others = [
        office.place("red-1.png"),
        office.ask("rename", cluster_id=0, name="Sky"),
        office.ask("unpin", files={}, cluster_id=None, everything=True),
        office.ask("refit", dry_run=True),
    ]

    error = office.error(retried)

    assert error == f"{lost}; ask again when it is there"
    assert [office.answer(request).state for request in others] == ["done"] * len(others)


def test_while_sorting_pauses_every_request_is_answered(make: Callable[..., Office]) -> None:
    office = make()
    office.loop._pause = Pause(3600, 3600)
    office.loop._pause.begin("no space", time.monotonic())
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("rename", {"cluster_id": 0, "name": "Sky"}),
        ("place", {"files": [office.id("red-1.png")], **REVIEW}),
        ("retry", {"files": [office.id("red-2.png")]}),
        ("unpin", {"files": {}, "cluster_id": None, "everything": True}),
        ("undo", {"batch": None}),
        ("keep", {"hashes": [], "forget": False}),
        ("refit", {"n_clusters": 1, "accept": True}),
        ("rollback", {}),
        ("accept", {"fit_id": 2}),
        ("refit", {"n_clusters": 3, "dry_run": True}),
    ]

    answers = [office.answer(office.ask(verb, **params)) for verb, params in wanted]

    assert [(answer.verb, answer.result) for answer in answers if answer.state != "done"] == []
    assert office.loop.held == "no space"


@pytest.mark.parametrize("verb", ["accept", "reject", "rollback", "refit"])
def test_no_word_on_fits_is_taken_while_features_are_made_anew(
    make: Callable[..., Office], verb: str
) -> None:
    office = make()
    office.loop.close()
    line = office.line
    line.library = open_library(
        line.config, line.store, TurnedColours(), line.library.roots, may_reextract=True
    )
    office.open()
    office.loop._rereading.step = lambda **_: False  # type: ignore[method-assign]
    request = office.ask(verb)

    assert office.error(request) == (
        "extracting features anew for EfficientNet-Lite0: 0 of 9; ask again when it is done"
    )


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("refit", "1 files still follow the fit in force; ask again when it is done"),
        ("rollback", "1 files are still to follow fit 2; ask again when they have"),
    ],
)
def test_no_fit_is_switched_while_files_still_follow_the_one_in_force(
    make: Callable[..., Office], verb: str, text: str
) -> None:
    office = make(refit={"growth": "off", "interval": "off"})
    office.answer(office.ask("refit", accept=True, keep_files=True))
    store = office.store
    file_id, stamp = office.id("red-1.png"), Stamp(1, 1, 1)
    src, dst = b"cluster_0/held up.png", b"cluster_1/held up.png"
    with store.atomic():
        move = Move(0, file_id, Op.MOVE, Root.TARGET, src, stamp, b"sha256", dst)
        route = Route(file_id, FileState.SORTED, b"cluster_1", 1)
        store.journal.plan(move, route, fit_id=2, batch=99)
        store.records.note_switch(99, 2, 1)

    assert text in office.error(office.ask(verb))


def test_the_desk_knows_every_verb_that_the_page_leaves() -> None:
    assert api.VERBS.keys() <= desk._VERBS.keys()


# --- what is wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "params", "text"),
    [
        ("paint", {}, "unknown verb 'paint'"),
        ("place", {"files": [1]}, "place takes files and to"),
        ("rename", {"number": 1}, "unexpected keyword argument"),
        ("unpin", {}, "missing"),
        ("undo", {"batches": [1]}, "unexpected keyword argument"),
        ("undo", {"batch": 999}, "batch 999 is not known"),
        ("keep", {}, "expected hashes and forget"),
        ("reject", {}, "no proposal waits"),
    ],
)
def test_a_request_that_cannot_be_done_is_answered_with_why_and_logged(
    make: Callable[..., Office],
    caplog: pytest.LogCaptureFixture,
    verb: str,
    params: dict[str, Any],
    text: str,
) -> None:
    office = make()

    error = office.error(office.ask(verb, **params))

    assert text in error
    assert f"reason={error}" in caplog.text
    assert office.answer(office.place("red-1.png")).state == "done"
