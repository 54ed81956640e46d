"""Pages are told of changes by one reader, and only while they listen."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import current_thread
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from imgsortd.records import Phase
from imgsortd.store.control import Heartbeat
from imgsortd.store.database import open_for_writing
from imgsortd.web.live import MOST_LISTENERS, Broadcast, EventStream, LiveReader
from support import make_config
from web_asking import as_if_running


class Facts:
    """A reader whose facts the test sets."""

    def __init__(self) -> None:
        self.value: Any = 0
        self.reads = 0
        self.closed = 0
        self.threads: set[str] = set()

    def read(self) -> dict[str, Any]:
        self.reads += 1
        self.threads.add(current_thread().name)
        if isinstance(self.value, Exception):
            raise self.value
        return {"value": self.value}

    def close(self) -> None:
        self.closed += 1


async def until(predicate: Callable[[], object]) -> None:
    """Wait for something to come true."""
    async with asyncio.timeout(30):
        while not predicate():
            await asyncio.sleep(0.001)


async def next_value(stream: AsyncIterator[bytes]) -> Any:
    """Return the value of the next event."""
    async with asyncio.timeout(30):
        event, data = (await anext(stream)).decode().strip().split("\n")
    assert event == "event: pulse"
    return json.loads(data.removeprefix("data: "))["value"]


def test_all_who_listen_are_told_at_once_and_at_each_change_by_one_reader() -> None:
    async def scene() -> None:
        facts = Facts()
        pulse = Broadcast(facts, every_s=0.001)
        streams = [pulse.listen(pulse.join()) for _ in range(3)]

        first = [await next_value(stream) for stream in streams]
        facts.value = 7
        second = [await next_value(stream) for stream in streams]

        assert (first, second) == ([0, 0, 0], [7, 7, 7])
        assert len(facts.threads) == 1
        pulse.close()

    asyncio.run(scene())


def test_nothing_is_read_when_nobody_listens_any_more() -> None:
    async def scene() -> None:
        facts = Facts()
        pulse = Broadcast(facts, every_s=0.001)
        listener = pulse.join()
        await next_value(pulse.listen(listener))

        pulse.leave(listener)
        await until(lambda: facts.closed)
        reads = facts.reads
        again = pulse.listen(pulse.join())

        assert await next_value(again) == 0
        assert facts.reads > reads
        pulse.close()

    asyncio.run(scene())


def test_a_look_that_failed_is_made_again() -> None:
    async def scene() -> None:
        facts = Facts()
        facts.value = ValueError("not now")
        pulse = Broadcast(facts, every_s=0.001)
        stream = pulse.listen(pulse.join())
        waiting = asyncio.create_task(next_value(stream))
        await until(lambda: facts.reads > 3)

        facts.value = 5

        assert await waiting == 5
        pulse.close()

    asyncio.run(scene())


def test_more_listeners_than_there_may_be_are_refused_until_one_leaves() -> None:
    async def scene() -> None:
        pulse = Broadcast(Facts(), every_s=0.001)
        streams = [EventStream(pulse) for _ in range(MOST_LISTENERS)]

        with pytest.raises(HTTPException) as refused:
            EventStream(pulse)
        await cut_off(streams[0])
        EventStream(pulse)

        assert refused.value.status_code == 503
        assert len(pulse._listeners) == MOST_LISTENERS
        pulse.close()

    asyncio.run(scene())


async def cut_off(stream: EventStream) -> None:
    """Ask for a stream and be gone before it has begun."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        await asyncio.sleep(0)

    await stream({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)


def test_every_stream_ends_when_the_server_does_and_none_begins() -> None:
    async def scene() -> None:
        pulse = Broadcast(Facts(), every_s=0.001)
        stream = pulse.listen(pulse.join())
        await next_value(stream)

        pulse.close()

        assert [piece async for piece in stream] == []
        with pytest.raises(HTTPException):
            pulse.join()

    asyncio.run(scene())


def test_the_facts_follow_the_library_and_the_daemon(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    reader = LiveReader(config)

    before = reader.read()
    store = open_for_writing(config.database)
    empty = reader.read()
    with as_if_running(config):
        with store.atomic():
            store.control.beat(_beat())
            store.connection.execute(
                "INSERT INTO files(src, inode, size_bytes, mtime_ns, seen_at, state) "
                "VALUES (x'61', 1, 1, 1, 1, 'review')"
            )
        running = reader.read()
    stopped = reader.read()
    store.close()
    reader.close()

    assert (before.phase, empty.daemon) == ("never started", "not running")
    assert (running.daemon, running.queue, running.review) == ("running", 4, 1)
    assert running.stamp != empty.stamp
    assert (stopped.daemon, stopped.stamp) == ("not running", running.stamp)


def test_each_picture_that_is_read_changes_the_stamp(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    store = open_for_writing(config.database)
    with store.atomic():
        store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, seen_at) VALUES (?, 1, 1, 1, 1)",
            [(b"%d" % number,) for number in range(5)],
        )
    reader = LiveReader(config)

    stamps = [reader.read().stamp]
    for number in range(5):
        with store.atomic():
            store.connection.execute(
                "UPDATE files SET sha256 = ? WHERE src = ?", (b"%032d" % number, b"%d" % number)
            )
        stamps.append(reader.read().stamp)
    store.close()
    reader.close()

    assert len(set(stamps)) == 6


def test_a_database_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    reader = LiveReader(config)
    open_for_writing(config.database).close()
    reader.read()

    for path in config.state_dir.iterdir():
        path.unlink()
    gone = reader.read()
    config.database.write_bytes(b"no database" * 1000)
    damaged = reader.read()

    assert gone.phase == "never started"
    assert "damaged" in damaged.note


def _beat() -> Heartbeat:
    now_s = time.time()
    return Heartbeat(os.getpid(), Phase.IDLE, now_s, now_s, 4, 2.5, "inotify", "")
