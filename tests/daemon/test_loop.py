"""The working loop, step by step, in this process: what fails in it and how it goes on."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imgsortd.daemon import loop
from imgsortd.daemon.loop import Loop
from imgsortd.daemon.pausing import Pause
from imgsortd.errors import NoSpaceError, StoreDamagedError
from imgsortd.inbox import intake
from imgsortd.inbox.watching import SENTINEL, Watcher
from imgsortd.pictures.reading import PictureReader
from imgsortd.records import BatchReport, Phase, Pixels, Vectors
from imgsortd.refits import background
from imgsortd.refits.adopting import Adoption
from imgsortd.store.control import Heartbeat
from killed_line import fit_colours
from support import (
    ColourExtractor,
    intake_of,
    make_config,
    make_library,
    paint_groups,
    sums,
    wait_until,
)

WATCHED_S = 0.4
"""How long a loop is watched that should rest: one tick; spinning it makes dozens of rounds."""


class Scene:
    """A loop on the quick extractor; ``go`` lets it work until something is true."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.config = make_config(folder, **{"settle_s": 0, **changes})
        self.inbox, self.target = self.config.inbox, self.config.target
        self.library, self.store = make_library(self.config)
        self.ticks: list[tuple[Phase, str]] = []
        self.loop = self._make()
        self.loop._pause = Pause(0.1, 1)

    def _make(self) -> Loop:
        return Loop(
            self.library,
            intake_of(self.library),
            Watcher(self.inbox, self.config.recursive),
            PictureReader(self.inbox, threads=1),
            lambda: False,
            lambda phase, note: self.ticks.append((phase, note)),
        )

    def go(self, until: Callable[[], object], what: str, timeout_s: float = 20) -> None:
        """Run the loop as the daemon does until something comes true."""
        deadline = time.monotonic() + timeout_s

        def tick(phase: Phase, note: str) -> None:
            self.ticks.append((phase, note))
            if until() or time.monotonic() > deadline:
                self.loop.stop.want()

        self.loop._pulse._on_tick = tick
        self.loop.stop.forget()
        self.loop.run()
        assert until(), f"not within {timeout_s} s: {what}"

    def counts(self) -> tuple[int, int, int]:
        counts = self.store.files.counts()
        return counts.seen, counts.sorted, counts.pending

    def beat(self) -> Heartbeat:
        beat = self.store.control.last_beat()
        assert beat is not None
        return beat


@pytest.fixture
def make_scene(tmp_path: Path, hurried: None) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**changes: Any) -> Scene:
        made.append(Scene(tmp_path, **changes))
        return made[-1]

    yield make
    for scene in made:
        scene.loop.close()
        scene.store.close()


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    """Return a loop with three clusters, ready to run."""
    scene = make_scene()
    scene.library.in_force.switch(fit_colours(scene.store))
    scene.loop.prepare()
    return scene


def fail(
    times: int, error: Exception | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function fail, for want of space where no other error is given, so many times."""
    left = [times]
    error = error or NoSpaceError("the disk of state_dir is full")

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*arguments: Any, **named: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise error
            return real(*arguments, **named)

        return failing

    return wrap


def test_space_that_ends_after_the_moves_were_made_makes_no_file_gone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = scene.store.journal
    monkeypatch.setattr(journal, "close", fail(2)(journal.close))
    paint_groups(scene.inbox, 2)
    before = sums(scene.inbox)

    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    assert sums(scene.target) == before
    assert (Phase.PAUSED, "the disk of state_dir is full") in scene.ticks


def test_space_that_ends_while_moves_fail_plans_none_of_them_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = scene.store.journal
    monkeypatch.setattr(journal, "close", fail(1)(journal.close))
    for number in range(3):
        (scene.target / f"cluster_{number}").symlink_to(tmp_path)
    paint_groups(scene.inbox, 2)
    scene.go(lambda: len(journal.open_errors()) == 6, "six moves that failed")

    for number in range(3):
        (scene.target / f"cluster_{number}").unlink()
    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    moves = scene.store.db.conn.execute("SELECT count(*) FROM moves").fetchone()
    assert moves == (6,)


def test_space_that_ends_before_the_moves_were_planned_brings_the_files_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = scene.store.journal
    monkeypatch.setattr(journal, "plan", fail(1)(journal.plan))
    paint_groups(scene.inbox, 2)
    before = sums(scene.inbox)

    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    assert sums(scene.target) == before


def test_space_that_ends_when_files_arrive_does_not_lose_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = scene.store.files
    monkeypatch.setattr(files, "arrive", fail(1)(files.arrive))
    paint_groups(scene.inbox, 2)

    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")


@pytest.mark.parametrize("step", ["reading the store", "planning", "moving"])
def test_an_error_of_the_system_in_a_step_loses_no_file_and_is_told_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    owner, name = {
        "reading the store": (scene.store.files, "arrive"),
        "planning": (scene.library.mover, "holds_bytes"),
        "moving": (scene.library.mover, "apply"),
    }[step]
    monkeypatch.setattr(
        owner, name, fail(2, OSError(errno.EIO, "bad sector"))(getattr(owner, name))
    )
    paint_groups(scene.inbox, 2)
    before = sums(scene.inbox)
    for cluster in range(3):
        for path in scene.inbox.iterdir():
            (scene.target / f"cluster_{cluster}").mkdir(exist_ok=True)
            (scene.target / f"cluster_{cluster}" / path.name).write_bytes(b"a stranger")

    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    placed = sums(scene.target)
    assert {content: placed.get(content) for content in before} == before
    assert (Phase.PAUSED, "[Errno 5] bad sector; sorting goes on when it can") in scene.ticks
    errors = [event for _, event, _ in scene.store.control.last_errors(10)]
    assert errors == ["step failed"]


def test_a_heartbeat_that_cannot_be_written_does_not_stop_the_pings(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.store.control, "beat", fail(100)(scene.store.control.beat))

    scene.go(lambda: len(scene.ticks) > 3, "ticks")
    scene.loop.close()

    assert scene.ticks[-1][0] is Phase.STOPPED


def test_a_pause_is_in_the_heartbeat_at_once(scene: Scene) -> None:
    scene.target.rename(scene.target.with_name("away"))
    paint_groups(scene.inbox, 2)

    scene.go(lambda: scene.ticks[-1:] and scene.ticks[-1][0] is Phase.PAUSED, "paused")
    scene.go(lambda: True, "one more round")

    assert scene.beat().phase == "paused"
    assert scene.beat().note == (
        f"target {scene.target} is not there; mount it, and sorting goes on"
    )
    scene.target.with_name("away").rename(scene.target)
    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")
    assert scene.beat().note == ""


def test_while_it_is_paused_new_files_wait_and_nothing_spins(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_TICK_S", WATCHED_S)
    scene.target.rename(scene.target.with_name("away"))
    paint_groups(scene.inbox, 2)
    scene.go(lambda: scene.ticks[-1:] and scene.ticks[-1][0] is Phase.PAUSED, "paused")
    paint_groups(scene.inbox / "later", 2, seed=50)
    rounds = len(scene.ticks)
    begun = time.monotonic()

    scene.go(lambda: time.monotonic() - begun > WATCHED_S, "a tick")

    assert len(scene.ticks) - rounds < 8
    assert scene.counts()[0] <= 6
    scene.target.with_name("away").rename(scene.target)
    scene.go(lambda: scene.counts() == (12, 12, 0), "sorted")


def test_files_waiting_for_a_broken_folder_do_not_make_the_loop_spin(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_TICK_S", WATCHED_S)
    scene = make_scene()
    scene.library.in_force.switch(fit_colours(scene.store))
    paint_groups(scene.inbox, 30)
    for number in range(3):
        (scene.target / f"cluster_{number}").symlink_to(tmp_path)
    scene.loop.prepare()
    scene.go(lambda: len(scene.store.journal.unfinished()) == 90, "all planned")
    rounds = len(scene.ticks)
    begun = time.monotonic()

    scene.go(lambda: time.monotonic() - begun > WATCHED_S, "a tick")

    assert len(scene.ticks) - rounds < 10
    assert scene.ticks[-1][0] is not Phase.PAUSED
    for number in range(3):
        (scene.target / f"cluster_{number}").unlink()
    scene.go(lambda: scene.counts() == (90, 90, 0), "sorted")


def test_the_same_trouble_is_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    (scene.target / "_set_aside").write_bytes(b"a file")
    (scene.inbox / "broken.jpg").write_bytes(b"no picture")
    tries: list[int] = []
    real = scene.library.mover.apply
    scene.library.mover.apply = lambda *a, **k: (tries.append(1), real(*a, **k))[1]  # type: ignore[method-assign]

    scene.go(lambda: len(tries) > 4, "tries")

    assert caplog.text.count("file not sorted") == 1
    assert len(scene.store.control.last_errors(10)) == 1


def test_a_file_that_is_open_for_writing_is_taken_when_it_is_closed(
    scene: Scene, caplog: pytest.LogCaptureFixture, leases_allowed: None
) -> None:
    caplog.set_level(logging.INFO)
    (path, *_) = paint_groups(scene.inbox, 1)
    busy: list[float] = []
    real = scene.loop._intake.learn

    def learn(report: BatchReport, now_s: float) -> None:
        busy.extend(report.look_again and [time.monotonic()])
        real(report, now_s)

    scene.loop._intake.learn = learn  # type: ignore[method-assign]
    with open(path, "ab"):
        scene.go(lambda: len(busy) > 2 and scene.counts()[1] == 2, "the others sorted")
    scene.go(lambda: scene.counts() == (3, 3, 0), "sorted")

    assert caplog.text.count("batch routed") <= 3
    assert busy[-1] - busy[-2] > 0.9 * intake._BUSY_RETRY_S


def test_a_name_taken_away_while_it_was_queued_is_sorted_when_it_comes_again(
    scene: Scene,
) -> None:
    painted = paint_groups(scene.inbox, 1)
    kept = {path: path.read_bytes() for path in painted}
    scene.loop._intake.scan(time.monotonic())
    scene.loop._intake.settle(time.monotonic())
    for path in painted:
        path.unlink()
    scene.go(lambda: scene.counts() == (0, 0, 0), "gone")

    for path, data in kept.items():
        path.write_bytes(data)

    scene.go(lambda: scene.counts() == (3, 3, 0), "sorted")


def test_the_inbox_going_away_during_a_pause_makes_no_file_gone(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene(rescan_s=1)
    scene.library.in_force.switch(fit_colours(scene.store))
    scene.loop.prepare()
    scene.target.rename(scene.target.with_name("away"))
    paint_groups(scene.inbox, 2)
    scene.go(lambda: scene.ticks[-1:] and scene.ticks[-1][0] is Phase.PAUSED, "paused")
    scene.inbox.rename(scene.inbox.with_name("inbox away"))
    scene.go(lambda: scene.ticks[-1][0] is Phase.INBOX_LOST, "lost")
    scene.target.with_name("away").rename(scene.target)
    scene.inbox.with_name("inbox away").rename(scene.inbox)

    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    assert len(sums(scene.target)) == 6


def test_a_fit_that_fails_in_any_way_is_told_and_sorting_goes_on(
    make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = background.compute_fit
    monkeypatch.setattr(background, "compute_fit", lambda *_: [][1])
    scene = make_scene()
    scene.loop.prepare()
    paint_groups(scene.inbox, 2)
    scene.go(lambda: scene.store.control.last_errors(1), "the error")
    ((_, event, detail),) = scene.store.control.last_errors(1)
    assert (event, detail) == ("fit failed", "IndexError('list index out of range')")

    monkeypatch.setattr(background, "compute_fit", real)
    scene.store.control.ask("refit", {})

    scene.go(lambda: scene.counts() == (6, 6, 0), "a refit that is asked for waits for nothing")


def test_how_far_a_long_fit_is_stands_in_its_request_and_in_the_log(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    paint_groups(scene.inbox, 2)
    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")
    seen = threading.Event()
    real, real_source = background.compute_fit, background.fit_source

    def slow(*arguments: Any) -> Any:
        fitted = real(*arguments)
        seen.wait(20)
        return fitted

    monkeypatch.setattr(background, "compute_fit", slow)
    monkeypatch.setattr(
        background,
        "fit_source",
        lambda *arguments: replace(real_source(*arguments), whole_up_to=3),
    )
    monkeypatch.setattr(background, "_LOG_EVERY_S", 0.0)
    request = scene.store.control.ask("refit", {})
    told = "pass 4 of 4, 6 of 6 pictures"

    scene.go(lambda: scene.store.control.request(request).progress == told, "told")
    seen.set()
    scene.go(lambda: scene.store.control.request(request).state == "done", "answered")

    assert f"fit goes on trigger=request at='{told}'" in caplog.text
    assert scene.store.control.request(request).result["algorithm"] == "MiniBatchKMeans"


def test_a_fit_that_cannot_be_stored_is_stored_later(
    make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_ADOPT_AGAIN_S", 0.2)
    scene = make_scene()
    scene.loop.prepare()
    monkeypatch.setattr(scene.store.fits, "keep", fail(3)(scene.store.fits.keep))
    paint_groups(scene.inbox, 2)

    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    assert scene.library.in_force.model is not None
    assert scene.store.fits.current_record() is not None


class LockTaker(ColourExtractor):
    """Lets another connection lock the database while the second batch is computed."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.other = sqlite3.connect(
            database, timeout=60, isolation_level=None, check_same_thread=False
        )
        self.batches = 0

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        self.batches += 1
        if self.batches == 2:
            self.other.execute("BEGIN EXCLUSIVE")
        return super().extract(pixels)


def test_no_batch_is_forgotten_when_the_database_is_locked_meanwhile(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene(rescan_s=86_400, batch={"max_images": 2})
    scene.library.in_force.switch(fit_colours(scene.store))
    scene.store.connection.execute("PRAGMA busy_timeout = 20")
    taker = LockTaker(scene.config.database)
    scene.loop._line._extractor = scene.loop._flow.model._extractor = taker
    paint_groups(scene.inbox, 4)
    scene.loop.prepare()

    scene.go(lambda: len([1 for phase, _ in scene.ticks if phase is Phase.PAUSED]) > 2, "paused")
    taker.other.execute("ROLLBACK")
    scene.go(lambda: scene.counts() == (12, 12, 0), "sorted")

    assert [name for name in os.listdir(scene.inbox) if not name.startswith(SENTINEL)] == []
    taker.other.close()


def test_files_that_settle_while_the_database_is_locked_are_not_forgotten(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene(rescan_s=86_400)
    scene.library.in_force.switch(fit_colours(scene.store))
    scene.loop.prepare()
    scene.store.connection.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(scene.config.database, timeout=60, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    paint_groups(scene.inbox, 2)

    scene.go(lambda: scene.ticks[-1][0] is Phase.PAUSED, "paused")
    other.execute("ROLLBACK")
    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    other.close()


def test_a_fit_that_was_kept_is_not_matched_again_when_what_follows_it_fails(
    make_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene()
    scene.loop.prepare()
    monkeypatch.setattr(background, "_ADOPT_AGAIN_S", 0)
    paint_groups(scene.inbox, 2)
    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")
    monkeypatch.setattr(Adoption, "follow", fail(1)(Adoption.follow))

    request = scene.store.control.ask("refit", {"n_clusters": 1})
    scene.go(lambda: scene.store.control.request(request).state == "done", "answered")
    scene.go(lambda: not scene.store.journal.unfinished(), "files have followed")

    (fits,) = scene.store.connection.execute("SELECT count(*) FROM fits").fetchone()
    assert fits == 2
    assert {path.parent.name for path in scene.target.rglob("*.png")} == {"cluster_0"}
    assert scene.counts() == (6, 6, 0)


def test_damage_that_a_fit_meets_is_no_failed_fit_but_ends_the_loop(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise StoreDamagedError("imgsortd.db: is damaged")

    monkeypatch.setattr(background, "compute_fit", damaged)
    with scene.store.atomic():
        scene.store.control.ask("refit", {})

    with pytest.raises(StoreDamagedError):
        scene.go(lambda: False, "never")


def test_requests_are_answered_while_sorting_is_paused(scene: Scene) -> None:
    paint_groups(scene.inbox, 2)
    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")
    scene.target.rename(scene.target.with_name("away"))
    paint_groups(scene.inbox, 1, seed=70)
    scene.go(lambda: scene.ticks[-1][0] is Phase.PAUSED, "paused")

    request = scene.store.control.ask("refit", {})

    scene.go(lambda: scene.store.control.request(request).state == "done", "answered")


def test_after_a_while_of_nothing_memory_is_given_back_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr("imgsortd.system.resources.give_back", lambda: given.append(1))
    monkeypatch.setattr("imgsortd.daemon.housekeeping._REST_AFTER_S", 0)
    scene.loop._last_work_s = 0.0

    scene.go(lambda: len(scene.ticks) > 4, "ticks")

    assert given == [1]


def test_what_is_dropped_in_the_loops_back_is_sorted_by_events_alone(
    make_scene: Callable[..., Scene],
) -> None:
    scene = make_scene(rescan_s=86_400)
    scene.library.in_force.switch(fit_colours(scene.store))
    scene.loop.prepare()
    dropper = threading.Timer(0.5, lambda: paint_groups(scene.inbox, 2))
    dropper.start()

    scene.go(lambda: scene.counts() == (6, 6, 0), "sorted")

    dropper.join()
    wait_until(lambda: not os.listdir(scene.inbox), 5, "an empty inbox")
