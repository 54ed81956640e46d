"""The model's thread: one extraction after another, errors and stops included."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from itertools import pairwise

import numpy as np
import pytest

from imgsortd.errors import NoMemoryError
from imgsortd.networks.model_thread import BusyShare, Computed, ModelThread
from imgsortd.records import ExtractorId, Layer, Pixels, Vectors
from support import ColourExtractor, wait_until


def pictures(*values: int) -> list[Pixels]:
    """Make pictures that are told apart by their value."""
    return [np.full((4, 4, 3), value, dtype=np.uint8) for value in values]


class Counter:
    """An extractor whose feature is the picture's value; each piece waits for ``go``."""

    def __init__(self, batch_images: int = 4) -> None:
        self.id = ExtractorId("counter", Layer.POOL5, 1)
        self.batch_images = batch_images
        self.pieces: list[int] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()
        self.at_work = threading.Event()
        self.before: Callable[[], None] = lambda: None

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        self.pieces.append(len(pixels))
        self.threads.add(threading.current_thread().name)
        self.at_work.set()
        assert self.go.wait(30)
        self.before()
        return np.array([[picture[0, 0, 0]] for picture in pixels], dtype=np.float32)

    def describe(self) -> str:
        return "counter"

    def unload(self) -> None:
        """Nothing to free."""


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def model(counter: Counter) -> Iterator[ModelThread]:
    model = ModelThread(counter)
    yield model
    counter.go.set()
    model.close()


def values(future: Future[Computed]) -> list[float]:
    return future.result(30).vectors[:, 0].tolist()


def test_features_come_out_in_the_order_in_which_pictures_were_handed_in(
    model: ModelThread, counter: Counter
) -> None:
    futures = [model.submit(pictures(10 * n, 10 * n + 1)) for n in range(20)]

    assert [values(future) for future in futures] == [[10 * n, 10 * n + 1] for n in range(20)]
    assert counter.threads == {"model"}


def test_it_computes_while_the_caller_does_something_else(
    model: ModelThread, counter: Counter
) -> None:
    counter.go.clear()

    future = model.submit(pictures(1))

    assert counter.at_work.wait(30)
    assert not future.done()
    counter.go.set()
    assert values(future) == [1]


def test_a_great_batch_is_computed_in_pieces_and_comes_out_whole(
    model: ModelThread, counter: Counter
) -> None:
    computed = model.submit(pictures(*range(10))).result(30)

    assert computed.vectors[:, 0].tolist() == list(range(10))
    assert computed.extract_s > 0
    assert counter.pieces == [4, 4, 2]


def test_a_model_that_does_not_answer_in_any_honest_time_is_said_to_be_stuck(
    counter: Counter,
) -> None:
    now = [0.0]
    model = ModelThread(counter, clock=lambda: now[0])
    counter.before = lambda: now.__setitem__(0, now[0] + 40.0)  # ten seconds a picture
    model.submit(pictures(1, 2, 3, 4)).result(30)
    counter.before = lambda: None
    counter.go.clear()
    counter.at_work.clear()
    model.submit(pictures(5, 6, 7, 8))
    assert counter.at_work.wait(30)
    allowed_s = 600 + 20 * 4 * 10

    stuck = []
    for later_s in (1, 599, allowed_s, allowed_s + 1):
        now[0] = 40.0 + later_s
        stuck.append((model.is_stuck, model.complaint))

    text = "the model has not answered for over 1400 s; restart the daemon"
    assert stuck == [(False, "")] * 3 + [(True, text)]
    model.close()  # does not wait for it
    counter.go.set()


def test_no_pictures_need_neither_the_model_nor_its_thread(
    model: ModelThread, counter: Counter
) -> None:
    before = threading.active_count()

    future = model.submit([])

    assert future.done()
    assert future.result().vectors.shape == (0, 1)
    assert future.result().extract_s == 0
    assert threading.active_count() == before
    assert not counter.pieces


def test_what_the_model_raises_comes_out_and_the_next_is_computed(
    model: ModelThread, counter: Counter
) -> None:
    def fail() -> None:
        counter.before = lambda: None
        raise ValueError("no memory")

    counter.before = fail
    bad, good = model.submit(pictures(1)), model.submit(pictures(2))

    with pytest.raises(ValueError, match="no memory"):
        bad.result(30)
    assert values(good) == [2]


def test_a_close_waits_for_the_piece_in_hand_and_gives_up_the_rest(counter: Counter) -> None:
    model = ModelThread(counter)
    counter.go.clear()
    great, next_one = model.submit(pictures(*range(40))), model.submit(pictures(1))
    assert counter.at_work.wait(30)
    closing = threading.Thread(target=model.close)
    closing.start()
    wait_until(model._stopping.is_set, what="the close has begun")

    counter.go.set()

    closing.join(30)
    assert not closing.is_alive()
    assert counter.pieces == [4]
    assert not any(thread.name == "model" for thread in threading.enumerate())
    for given_up in (great, next_one):  # whoever waits for it is not kept
        with pytest.raises(CancelledError):
            given_up.result(5)


def test_pictures_that_are_handed_in_after_a_close_are_given_up_at_once(
    counter: Counter,
) -> None:
    model = ModelThread(counter)
    model.close()

    future = model.submit(pictures(1))

    assert isinstance(future.exception(5), CancelledError)


def test_closing_what_never_computed_is_possible() -> None:
    ModelThread(ColourExtractor()).close()


def test_whoever_waits_is_woken_after_each_extraction_also_a_failed_one(
    counter: Counter,
) -> None:
    done: list[bool] = []
    model = ModelThread(counter, lambda: done.append(future.done()))
    future = model.submit(pictures(1))
    wait_until(lambda: len(done) == 1)

    counter.before = lambda: 1 / 0
    future = model.submit(pictures(1))

    wait_until(lambda: len(done) == 2)
    model.close()
    assert done == [True, True]


# --- how busy -------------------------------------------------------------------------


def test_busy_seconds_grow_while_it_computes_and_stand_still_otherwise(
    model: ModelThread, counter: Counter
) -> None:
    assert model.busy_s == 0
    counter.go.clear()
    future = model.submit(pictures(1))
    assert counter.at_work.wait(30)
    early = model.busy_s
    wait_until(lambda: model.busy_s > early)
    counter.go.set()
    extract_s = future.result(30).extract_s
    model.close()  # its thread has counted now

    first, second = model.busy_s, model.busy_s

    assert first == second >= extract_s >= early > 0


def test_busy_seconds_never_fall(counter: Counter) -> None:
    model, seen, before = ModelThread(counter), [0.0], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads meet in every place, not only in likely ones
    try:
        futures = [model.submit(pictures(1)) for _ in range(3000)]
        while not futures[-1].done():
            seen.append(model.busy_s)
    finally:
        sys.setswitchinterval(before)
        model.close()

    assert all(earlier <= later for earlier, later in pairwise(seen))


class FakeModel:
    """A model that is as busy as a test says."""

    busy_s = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock to set, in place of the module's."""
    now = [100.0]
    monkeypatch.setattr("imgsortd.networks.model_thread.time.perf_counter", lambda: now[0])
    return now


def test_the_busy_share_is_of_the_time_in_which_files_wait(clock: list[float]) -> None:
    model = FakeModel()
    busy = BusyShare(model)
    found = [busy.last]

    def note(now_s: float, busy_s: float, *, files_wait: bool) -> None:
        clock[0], model.busy_s = now_s, busy_s
        busy.note(files_wait=files_wait)
        found.append(busy.last)

    note(100, 0, files_wait=True)
    note(104, 3, files_wait=True)
    note(110, 9, files_wait=False)  # the burst's end
    note(500, 9, files_wait=False)
    note(600, 9, files_wait=True)  # the next burst begins
    note(602, 10, files_wait=True)

    assert found == [None, None, 0.75, 0.9, 0.9, 0.9, 0.5]


@pytest.mark.parametrize("busy_s", [5.0, 6.0])
def test_the_busy_share_is_never_above_one(busy_s: float, clock: list[float]) -> None:
    model = FakeModel()
    busy = BusyShare(model)
    busy.note(files_wait=True)

    clock[0], model.busy_s = 105.0, busy_s
    busy.note(files_wait=True)

    assert busy.last == 1.0


def test_no_time_is_no_share(clock: list[float]) -> None:
    busy = BusyShare(FakeModel())

    busy.note(files_wait=True)
    busy.note(files_wait=True)

    assert busy.last is None


# --- when memory runs out ---------------------------------------------------------------


class Cramped(Counter):
    """A model that has memory for so many pictures at a time, and none for a white one."""

    def __init__(self, at_most: int) -> None:
        super().__init__(batch_images=16)
        self.at_most = at_most

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        vectors = super().extract(pixels)
        if len(pixels) > self.at_most or 255 in vectors:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return vectors


def test_a_batch_too_large_for_the_memory_is_halved_and_stays_so() -> None:
    extractor = Cramped(at_most=3)
    model = ModelThread(extractor)

    first = model.submit(pictures(*range(16))).result(30)
    again = model.submit(pictures(*range(4))).result(30)

    assert extractor.pieces == [16, 8, 4, *[2] * 8, *[2] * 2]
    assert first.vectors[:, 0].tolist() == list(range(16))
    assert first.failed == again.failed == frozenset()
    model.close()


def test_one_picture_that_there_is_no_memory_for_is_left_out_and_named() -> None:
    model = ModelThread(Cramped(at_most=16))

    done = model.submit(pictures(0, 1, 2, 3, 4, 255, 6, 7)).result(30)

    assert done.failed == {5}
    assert done.computed("abcdefgh") == list("abcdegh")
    assert done.vectors[:, 0].tolist() == [0, 1, 2, 3, 4, 6, 7]
    model.close()


def test_where_no_picture_can_be_computed_none_is_at_fault() -> None:
    model = ModelThread(Cramped(at_most=0))

    with pytest.raises(NoMemoryError, match="on every single picture; end other programs"):
        model.submit(pictures(1, 2)).result(30)

    model.close()


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    class Broken(Counter):
        def extract(self, pixels: Sequence[Pixels]) -> Vectors:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model = ModelThread(Broken())

    with pytest.raises(RuntimeError, match="shapes"):
        model.submit(pictures(1, 2)).result(30)

    model.close()
