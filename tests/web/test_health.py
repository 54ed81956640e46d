"""The status page's data, and whether all is well, in a word."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from imgsortd.records import Phase
from imgsortd.reports.status import read_status
from imgsortd.store.control import Heartbeat
from imgsortd.system.locks import Locks
from imgsortd.web.health import MINUTES, is_healthy, read_health
from line import Line
from mounts import tmpfs
from support import make_config, paint_groups
from web_asking import told


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    line.close()


def beat(line: Line, phase: str = "idle", age_s: float = 0.0) -> None:
    now = time.time()
    with line.store.atomic():
        line.store.control.beat(
            Heartbeat(os.getpid(), phase, now - 7200, now - age_s, 3, 21.5, "inotify", "")
        )


def sql(line: Line, statement: str, *values: object) -> list[Any]:
    with line.store.atomic():
        return line.store.connection.execute(statement, values).fetchall()


def fill_up(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_as_many_are_listed_as_are_counted_while_files_come_and_go(line: Line) -> None:
    line.put("broken.jpg", b"no picture")
    line.run()
    change = "UPDATE files SET state = iif(state = 'set_aside', 'sorted', 'set_aside')"
    stop = threading.Event()

    def come_and_go() -> None:
        with closing(sqlite3.connect(line.config.database, timeout=30)) as other:
            while not stop.wait(0.002):  # so that readers come to their turn
                with other:
                    other.execute(change)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        reports = [told(read_health(line.config)) for _ in range(20)]
    finally:
        stop.set()
        thread.join()

    assert [r for r in reports if len(r["set_aside"]) != r["set_aside_total"]] == []
    assert {r["counts"]["seen"] for r in reports} == {1}


def test_the_report_is_that_of_the_status_with_more_beside_it(line: Line) -> None:
    paint_groups(line.config.inbox, 3)
    line.put("broken.jpg", b"no picture")
    line.put(b"b\xff.jpg", b"none either")
    line.run()
    with line.store.atomic():
        line.store.control.add_error("paused", "no room on \udcff")

    report = told(read_health(line.config))

    status = asdict(read_status(line.config))
    for own in ("set_aside", "errors", "backup", "last_fit", "next_refit"):
        status.pop(own)
    assert {name: report[name] for name in status} == status
    assert report["set_aside_total"] == report["counts"]["set_aside"] == 2
    newest, oldest = report["set_aside"]
    assert (newest["file"], newest["at"]) == ("b?.jpg", "_set_aside/b?.jpg")
    assert (oldest["file"], oldest["retryable"]) == ("broken.jpg", True)
    assert "not a picture" in oldest["reason"]
    assert sql(line, "SELECT src FROM files WHERE id = ?", oldest["id"]) == [(b"broken.jpg",)]
    assert [error["event"] for error in report["errors"]] == ["paused"]
    json.dumps(report, ensure_ascii=False).encode()


def test_the_counts_add_up(line: Line) -> None:
    paint_groups(line.config.inbox, 3)
    line.put("broken.jpg", b"no picture")
    line.run()

    counts = told(read_health(line.config))["counts"]

    assert counts.pop("seen") == sum(counts.values()) == 10


def test_the_rate_has_a_number_for_each_minute_of_the_last_hour(line: Line) -> None:
    paint_groups(line.config.inbox, 3)
    line.run()
    minute = 60 * (time.time() // 60)
    ages_s = [0.0, 60.0, 60.0, 59 * 60.0, 60 * 60.0, 1e6]
    sql(line, "UPDATE files SET done_at = NULL")
    for (file_id,), age_s in zip(sql(line, "SELECT id FROM files"), ages_s, strict=False):
        sql(line, "UPDATE files SET done_at = ? WHERE id = ?", minute - age_s, file_id)
    sql(line, "UPDATE files SET state = 'gone', done_at = ? WHERE id = "
              "(SELECT max(id) FROM files)", minute)  # fmt: skip

    rate = told(read_health(line.config))["rate"]

    assert len(rate) == MINUTES
    # A minute may have passed meanwhile: then all stand one place further to the left.
    late = rate[-1] == 0
    assert [rate[-1 - late], rate[-2 - late]] == [1, 2]
    assert sum(rate) == 3 + (not late)


@pytest.mark.parametrize("database", ["none", "without tables"])
def test_a_daemon_that_never_ran_is_no_error(tmp_path: Path, database: str) -> None:
    config = make_config(tmp_path)
    if database != "none":
        config.database.touch()

    report = told(read_health(config))

    assert (report["phase"], report["rate"]) == ("never started", [0] * MINUTES)
    assert (report["set_aside"], report["set_aside_total"], report["errors"]) == ([], 0, [])
    assert is_healthy(config) == (False, "the daemon has never run")


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.SORTING, Phase.WAITING, Phase.REEXTRACTING])
def test_a_daemon_that_is_at_work_or_has_none_is_healthy(line: Line, phase: Phase) -> None:
    beat(line, phase)
    with Locks(line.config.state_dir):
        assert is_healthy(line.config) == (True, "ok")


@pytest.mark.parametrize(
    ("phase", "reason"),
    [(Phase.PAUSED, "sorting is paused"), (Phase.INBOX_LOST, "the inbox is lost")],
)
def test_trouble_that_stops_the_sorting_is_told(line: Line, phase: Phase, reason: str) -> None:
    beat(line, phase)
    with Locks(line.config.state_dir):
        assert is_healthy(line.config) == (False, reason)


def test_a_daemon_without_a_fresh_heartbeat_is_not_healthy(line: Line) -> None:
    before = is_healthy(line.config)
    with Locks(line.config.state_dir):
        starting = is_healthy(line.config)
        beat(line, age_s=61)
        silent = is_healthy(line.config)

    assert before == (False, "the daemon is not running")
    assert starting == (False, "the daemon is starting")
    assert silent == (False, "the daemon is not responding")


def test_a_full_disk_of_the_state_folder_is_not_healthy(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "state", size="1m"):
        line = Line(tmp_path)
        beat(line)
        with Locks(line.config.state_dir):
            before = is_healthy(line.config)
            fill_up(line.config.state_dir)
            after = is_healthy(line.config)
        line.close()

    assert (before, after) == ((True, "ok"), (False, "the disk of state_dir is full"))


def test_a_damaged_database_is_not_healthy(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    config.database.write_bytes(b"no database at all, but long enough to be looked at" * 100)

    assert is_healthy(config) == (False, "the database cannot be read")
