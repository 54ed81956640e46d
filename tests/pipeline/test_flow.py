"""From the queue to computed batches: the model has work whenever a file is decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from by_hand import Gate, HandReader, file, files, ids, picture, settled
from imgsortd.errors import StoreError
from imgsortd.library import Library
from imgsortd.pipeline import flow as flow_module
from imgsortd.pipeline.flow import Flow
from imgsortd.records import NotRead, Skipped, Unreadable
from support import flow_of, make_config, make_library, wait_until


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def library(tmp_path: Path, gate: Gate) -> Iterator[Library]:
    """Return a library whose batches are of four pictures."""
    config = make_config(tmp_path, batch={"max_images": 4, "max_wait_s": 0.5})
    library, store = make_library(config, gate)
    yield library
    store.close()


@pytest.fixture
def reader() -> HandReader:
    return HandReader()


@pytest.fixture
def flow(
    library: Library, reader: HandReader, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flow]:
    """Return a flow whose idle model is content with a single picture."""
    monkeypatch.setattr(flow_module, "_FEW", 1)
    flow = flow_of(library, reader)
    yield flow
    gate.open.set()
    flow.close()


# --- when a batch is handed on --------------------------------------------------------


def test_an_idle_model_takes_what_is_decoded(flow: Flow, reader: HandReader, gate: Gate) -> None:
    gate.open.clear()
    flow.fill(files(1, 2, 3, 4, 5, 6), 0.0, None)
    reader.decode(1, 2)

    flow.fill(deque(), 0.0, None)

    assert gate.at_work.wait(30)
    assert gate.sizes == [2]
    assert flow.images == 6


def test_a_busy_model_waits_for_a_full_batch(flow: Flow, reader: HandReader, gate: Gate) -> None:
    gate.open.clear()
    flow.fill(files(*range(1, 9)), 0.0, None)
    reader.decode(1)
    flow.fill(deque(), 0.0, None)
    assert gate.at_work.wait(30)

    reader.decode(2, 3, 4)
    flow.fill(deque(), 9.0, None)
    assert len(flow._batches) == 1  # three are not four
    reader.decode(5)
    flow.fill(deque(), 9.0, None)
    assert len(flow._batches) == 2

    gate.open.set()
    assert [settled(flow), settled(flow)] == [[1], [2, 3, 4, 5]]


def test_when_the_model_is_done_it_gets_the_rest(flow: Flow, reader: HandReader) -> None:
    flow.fill(files(1, 2, 3), 0.0, None)
    reader.decode(1)
    flow.fill(deque(), 0.0, None)
    reader.decode(2, 3)
    assert settled(flow) == [1]

    flow.fill(deque(), 0.0, None)

    assert settled(flow) == [2, 3]
    assert flow.images == 0


def test_a_file_that_is_not_decoded_holds_up_those_behind_it(
    flow: Flow, reader: HandReader
) -> None:
    flow.fill(files(1, 2, 3), 0.0, None)
    reader.decode(2, 3)
    flow.fill(deque(), 0.0, None)
    assert ids(flow.take_done()) is None
    assert flow.is_decoding

    reader.decode(1)
    flow.fill(deque(), 0.0, None)

    assert not flow.is_decoding
    assert settled(flow) == [1, 2, 3]


def test_a_lone_file_waits_while_others_may_settle_but_not_for_long(
    flow: Flow, reader: HandReader
) -> None:
    flow.fill(files(1), 10.0, 10.2)
    reader.decode(1)

    flow.fill(deque(), 10.1, 10.2)
    assert flow.is_decoding  # still here
    flow.fill(deque(), 10.5, 10.6)

    assert settled(flow) == [1]


def test_a_lone_file_does_not_wait_for_what_settles_much_later(
    flow: Flow, reader: HandReader
) -> None:
    flow.fill(files(1), 10.0, 12.0)
    reader.decode(1)

    flow.fill(deque(), 10.0, 12.0)

    assert settled(flow) == [1]


def test_it_reads_two_batches_ahead_and_leaves_the_rest_in_the_queue(
    flow: Flow, reader: HandReader, gate: Gate
) -> None:
    gate.open.clear()
    queue = files(*range(1, 31))
    flow.fill(queue, 0.0, None)
    assert (len(queue), flow.images, flow.would_take(queue)) == (22, 8, False)

    reader.decode(*range(1, 9))
    flow.fill(queue, 0.0, None)  # both to the model
    assert flow.would_take(queue)
    flow.fill(queue, 0.0, None)

    assert (len(queue), flow.images, flow.would_take(queue)) == (14, 16, False)
    reader.decode(*range(9, 17))
    flow.fill(queue, 0.0, None)
    assert (len(queue), flow.images) == (14, 16)  # the model has two batches already


def test_batches_come_out_in_the_order_of_the_queue(flow: Flow, reader: HandReader) -> None:
    queue, found = files(*range(1, 24)), []
    flow.fill(queue, 0.0, None)
    while flow.images:
        reader.decode(*(n for n, future in reader.futures.items() if not future.done()))
        flow.fill(queue, 0.0, None)
        found.append(settled(flow))
        flow.fill(queue, 0.0, None)

    assert [number for batch in found for number in batch or []] == list(range(1, 24))
    assert all(len(batch or []) <= 4 for batch in found)


# --- what is not a picture ------------------------------------------------------------


def test_what_was_not_read_goes_along_without_the_model(
    flow: Flow, reader: HandReader, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [
        Skipped(file(1), NotRead.BUSY),
        picture(2),
        Unreadable(file(3), b"3" * 32, "not a picture"),
        picture(4),
    ]
    taken, way_of = [], flow._way_of
    monkeypatch.setattr(flow, "_way_of", lambda read: (taken.append(list(read)), way_of(read))[1])
    flow.fill(files(1, 2, 3, 4), 0.0, None)
    for result in results:
        reader.futures[result.candidate.file_id].set_result(result)
    flow.fill(deque(), 0.0, None)
    flow.wait()

    batch = flow.take_done()

    assert batch is not None
    assert taken == [results]
    assert batch.computed.result().vectors.shape == (2, 3)
    assert gate.sizes == [2]


def test_a_batch_without_any_picture_is_done_at_once(
    flow: Flow, reader: HandReader, gate: Gate
) -> None:
    flow.fill(files(1), 0.0, None)
    reader.futures[1].set_result(Skipped(file(1), NotRead.GONE))

    flow.fill(deque(), 0.0, None)

    assert ids(flow.take_done()) == [1]
    assert gate.sizes == []


def test_equal_bytes_in_one_batch_are_computed_once(
    flow: Flow, reader: HandReader, gate: Gate
) -> None:
    flow.fill(files(1, 2), 0.0, None)
    for number in (1, 2):
        reader.futures[number].set_result(picture(number, content=7))
    flow.fill(deque(), 0.0, None)

    assert settled(flow) == [1, 2]
    assert gate.sizes == [1]


def test_what_the_model_raises_comes_out_of_the_batch_and_the_files_are_known(
    flow: Flow, reader: HandReader, gate: Gate
) -> None:
    gate.extract = lambda _: 1 / 0
    flow.fill(files(1), 0.0, None)
    reader.decode(1)
    flow.fill(deque(), 0.0, None)
    flow.wait()

    batch = flow.take_done()

    assert batch is not None
    assert ids(batch) == [1]
    assert isinstance(batch.computed.exception(), ZeroDivisionError)


def test_an_idle_model_waits_for_a_few_pictures_while_there_are_as_many(
    library: Library, reader: HandReader
) -> None:
    flow = flow_of(library, reader)
    flow.fill(files(1, 2, 3), 0.0, None)

    reader.decode(1, 2)
    flow.fill(deque(), 0.0, None)
    assert flow.is_decoding  # two of three
    reader.decode(3)
    flow.fill(deque(), 0.0, None)

    assert settled(flow) == [1, 2, 3]
    flow.close()


def test_files_are_not_lost_when_the_store_cannot_be_asked(
    flow: Flow, reader: HandReader, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise StoreError("locked by another program")

    flow.fill(files(1, 2), 0.0, None)
    reader.decode(1, 2)
    with monkeypatch.context() as patched:
        patched.setattr(flow, "_way_of", locked)
        with pytest.raises(StoreError):
            flow.fill(deque(), 0.0, None)
    assert flow.images == 2

    flow.fill(deque(), 0.0, None)

    assert settled(flow) == [1, 2]


# --- waiting, being woken, stopping ---------------------------------------------------


def test_waiting_for_nothing_returns(flow: Flow) -> None:
    flow.wait()

    assert flow.take_done() is None
    assert flow.images == 0


def test_waiting_ends_when_the_first_file_is_decoded(flow: Flow, reader: HandReader) -> None:
    flow.fill(files(1, 2), 0.0, None)
    waiting = threading.Thread(target=flow.wait)
    waiting.start()

    reader.decode(1)

    waiting.join(30)
    assert not waiting.is_alive()


def test_whoever_waits_elsewhere_is_woken_when_a_batch_is_computed(
    library: Library, reader: HandReader
) -> None:
    woken = threading.Event()
    flow = flow_of(library, reader, woken.set)
    flow.fill(files(1), 0.0, None)
    reader.decode(1)

    flow.fill(deque(), 0.0, None)

    assert woken.wait(30)
    assert ids(flow.take_done()) == [1]
    flow.close()


def test_a_close_does_not_wait_for_the_batches_and_ends_every_wait(
    library: Library, reader: HandReader, gate: Gate
) -> None:
    flow = flow_of(library, reader)
    gate.batch_images = 1  # the model's pieces
    gate.open.clear()
    flow.fill(files(*range(1, 9)), 0.0, None)
    reader.decode(*range(1, 9))
    flow.fill(deque(), 0.0, None)
    assert gate.at_work.wait(30)
    closing = threading.Thread(target=flow.close)
    closing.start()
    wait_until(flow.model._stopping.is_set, what="the close has begun")

    gate.open.set()

    closing.join(30)
    assert not closing.is_alive()
    assert reader.closed
    assert gate.sizes == [1]
    flow.wait()
    assert ids(flow.take_done()) == [1, 2, 3, 4]


def test_the_busy_share_covers_a_burst_and_not_the_time_after_it(
    flow: Flow, reader: HandReader
) -> None:
    flow.fill(files(1), 0.0, None)
    reader.decode(1)
    flow.fill(deque(), 0.0, None)
    settled(flow)
    flow.fill(deque(), 0.0, None)
    after_the_burst = flow.busy.last

    flow.fill(deque(), 100.0, None)

    assert after_the_burst is not None
    assert 0 < after_the_burst <= 1
    assert flow.busy.last == after_the_burst
