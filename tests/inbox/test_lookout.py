"""The watch over the inbox: lost, found, deaf, or only busy."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from imgsortd.errors import WatchError
from imgsortd.inbox.intake import Intake
from imgsortd.inbox.watching import Lookout, Watcher
from support import make_config


class FakeHints:
    """What events spoke of."""

    def __init__(self) -> None:
        self.scan_wanted = False
        self.sentinel_seen = False
        self.names: list[bytes] = []

    def take(self, _timeout_s: float) -> list[bytes]:
        names, self.names = self.names, []
        return names

    def ask_scan(self) -> None:
        self.scan_wanted = True


class FakeWatcher:
    """A watcher that counts its starts and may be refused."""

    def __init__(self) -> None:
        self.hints = FakeHints()
        self.starts = 0
        self.refused = ""
        self.is_watching = False
        self.is_alive = True
        self.watches = 1

    def count_watches(self) -> int | None:
        return self.watches

    def shortage(self, folders: int, watches: int) -> str:
        return f"only {watches} of {folders}"

    def start(self) -> None:
        if self.refused:
            raise WatchError(self.refused)
        self.starts += 1
        self.is_watching = True

    def stop(self) -> None:
        self.is_watching = False

    def send_sentinel(self) -> bool:
        self.hints.sentinel_seen = False
        return True


class FakeIntake:
    """An intake that counts the listings of an inbox that may be away."""

    def __init__(self) -> None:
        self.scans = 0
        self.folders = 1
        self.away = ""
        self.hinted: list[bytes] = []

    def hint(self, names: Iterable[bytes], _now_s: float) -> None:
        self.hinted.extend(names)

    def scan(self, _now_s: float) -> None:
        if self.away:
            raise WatchError(self.away)
        self.scans += 1


class Scene:
    def __init__(self, folder: Path, **changes: Any) -> None:
        self.watcher, self.intake = FakeWatcher(), FakeIntake()
        self.told: list[tuple[str, str]] = []
        self.lookout = Lookout(
            make_config(folder, **changes),
            cast(Intake, self.intake),
            cast(Watcher, self.watcher),
            lambda event, detail: self.told.append((event, detail)),
        )

    def let_time_pass(self) -> None:
        self.lookout._next_scan_s = 0.0


def test_it_watches_then_lists_and_passes_on_what_it_hears(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.lookout.start()

    scene.watcher.hints.names = [b"a.png"]
    scene.lookout.hear(0)

    assert (scene.watcher.starts, scene.intake.scans) == (1, 1)
    assert scene.intake.hinted == [b"a.png"]


def test_a_lost_inbox_is_told_once_and_watched_anew_when_it_is_found(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.lookout.start()
    scene.intake.away = "inbox: cannot be listed"
    for _ in range(3):
        scene.let_time_pass()
        scene.lookout.hear(0)
    assert scene.lookout.lost == "inbox: cannot be listed"
    assert scene.told == [("inbox lost", "inbox: cannot be listed")]

    scene.intake.away = ""
    scene.let_time_pass()
    scene.lookout.hear(0)

    assert scene.lookout.lost == ""
    assert scene.watcher.starts == 2
    assert scene.watcher.hints.scan_wanted  # for what came between the two watches


def test_a_sentinel_that_is_still_on_its_way_makes_no_watch_deaf(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.lookout.start()

    for _ in range(5):
        scene.let_time_pass()
        scene.lookout.hear(0)

    assert scene.watcher.starts == 1


def test_a_sentinel_that_never_comes_renews_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsortd.inbox.watching._DEAF_AFTER_S", 0)
    scene = Scene(tmp_path)
    scene.lookout.start()

    scene.let_time_pass()
    scene.lookout.hear(0)

    assert scene.watcher.starts == 2
    assert scene.told == [
        ("watch deaf", f"{tmp_path}/inbox: no event comes; watching it anew"),
    ]


def test_a_watch_whose_thread_has_ended_is_renewed_at_the_next_listing(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.lookout.start()
    scene.watcher.is_alive = False

    scene.let_time_pass()
    scene.lookout.hear(0)

    assert scene.watcher.starts == 2


def test_a_watch_that_stays_deaf_gives_way_to_listing_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsortd.inbox.watching._DEAF_AFTER_S", 0)
    scene = Scene(tmp_path, rescan_s=3600)
    scene.lookout.start()

    for _ in range(5):
        scene.let_time_pass()
        scene.lookout.hear(0)

    assert scene.watcher.starts == 3
    assert not scene.lookout.is_watching
    assert scene.lookout._scan_every_s == 5
    assert scene.told[-1] == (
        "watch deaf",
        f"{tmp_path}/inbox: no event comes, time and again; listing it every 5 s instead",
    )


def test_folders_without_a_watch_are_listed_often_until_they_are_fewer(tmp_path: Path) -> None:
    scene = Scene(tmp_path, rescan_s=3600)
    scene.watcher.watches, scene.intake.folders = 5, 21
    scene.lookout.start()
    once = list(scene.told)
    scene.let_time_pass()
    scene.lookout.hear(0)
    short = scene.lookout.is_watching, scene.lookout._scan_every_s

    scene.intake.folders = 5
    scene.let_time_pass()
    scene.lookout.hear(0)

    assert once == []  # the watch of a new folder may be on its way
    assert short == (False, 5)
    assert scene.told == [("watch failed", "only 5 of 21; listing it every 5 s instead")]
    assert (scene.lookout.is_watching, scene.lookout._scan_every_s) == (True, 3600)


def test_without_a_watch_the_inbox_is_listed_often_and_that_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, rescan_s=3600)
    scene.watcher.refused = "the inotify limit is used up"

    scene.lookout.start()

    assert not scene.lookout.is_watching
    assert scene.lookout._scan_every_s == 5
    assert scene.told == [
        ("watch failed", "the inotify limit is used up; listing it every 5 s instead")
    ]


def test_polling_off_insists_on_a_watch(tmp_path: Path) -> None:
    scene = Scene(tmp_path, polling="off")
    scene.watcher.refused = "the inotify limit is used up"

    with pytest.raises(WatchError, match="inotify limit"):
        scene.lookout.start()


def test_polling_on_wants_no_watch(tmp_path: Path) -> None:
    scene = Scene(tmp_path, polling="on")

    scene.lookout.start()

    assert (scene.watcher.starts, scene.told) == (0, [])
