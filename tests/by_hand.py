"""A model and a reader that go on when a test says so."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from imgsortd.pipeline.flow import Batch, Flow
from imgsortd.records import Candidate, Picture, Pixels, ReadResult, Stamp, Vectors
from support import ColourExtractor


class Gate(ColourExtractor):
    """The quick extractor, which computes only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.at_work = threading.Event()
        self.closes = False  # behind each batch
        self.sizes: list[int] = []

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        self.sizes.append(len(pixels))
        self.at_work.set()
        assert self.open.wait(60)
        if self.closes:
            self.open.clear()
        return super().extract(pixels)


class HandReader:
    """A reader whose files are decoded when a test says so."""

    def __init__(self) -> None:
        self.futures: dict[int, Future[ReadResult]] = {}
        self.closed = False

    def submit(self, candidate: Candidate, refusal: str = "") -> Future[ReadResult]:
        self.futures[candidate.file_id] = Future()
        return self.futures[candidate.file_id]

    def decode(self, *numbers: int) -> None:
        """Finish these files, each a picture of its own."""
        for number in numbers:
            self.futures[number].set_result(picture(number))

    def close(self) -> None:
        self.closed = True


def file(number: int) -> Candidate:
    return Candidate(number, b"%d.png" % number, Stamp(number, 1, 1))


def files(*numbers: int) -> deque[Candidate]:
    return deque(file(number) for number in numbers)


def picture(number: int, content: int | None = None) -> Picture:
    value = number if content is None else content
    pixels = np.full((4, 4, 3), (value + 1, 1, 1), dtype=np.uint8)
    return Picture(file(number), bytes([value]) * 32, pixels)


def ids(batch: Batch | None) -> list[int] | None:
    return None if batch is None else [candidate.file_id for candidate in batch.candidates]


def settled(flow: Flow) -> list[int] | None:
    """Wait for the oldest batch and take it."""
    flow.wait()
    return ids(flow.take_done())
